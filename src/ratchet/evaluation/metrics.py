"""The metrics of answers, each declared once: name, direction, what it needs, its scorer.

    spec = metric_named("token_f1")
    spec.higher_is_better, spec.needs
    spec.scorer(Answered(answers, targets)).values

The scorers are in `matching`, `text_metrics`, `overlap_metrics`, `json_metrics` and
`code_execution`, and found here too. Directions, also of names that are only ever read from files
of scores, are in `directions`; a test holds the table in docs/evaluation.md equal to this list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ratchet.evaluation.call_metrics import (
    argument_f1,
    call_counts,
    call_validity,
    exact_calls,
    format_validity,
    needless_calls,
    tool_names,
    unparsable_calls,
)
from ratchet.evaluation.code_execution import pass_rate
from ratchet.evaluation.code_execution.sandbox import Execution
from ratchet.evaluation.directions import direction_of
from ratchet.evaluation.json_metrics import field_f1, json_validity
from ratchet.evaluation.matching import constant_answer_rate as constant_answer_rate
from ratchet.evaluation.matching import exact_match
from ratchet.evaluation.matching import normalise_answer as normalise_answer
from ratchet.evaluation.overlap_metrics import bleu, chrf, rouge
from ratchet.evaluation.scored import Answer, Scored, checked_lengths, mean_scored
from ratchet.evaluation.text_metrics import answer_length as answer_length
from ratchet.evaluation.text_metrics import (
    contains_answer,
    empty_answers,
    normalised_accuracy,
    refusals,
    token_f1,
)
from ratchet.evaluation.text_metrics import perplexity as perplexity
from ratchet.records import WIN_RATE, Example
from ratchet.records.asking import Usage

Needs = Literal[
    "answer", "target", "no call", "tools", "format", "seconds", "usage", "likelihoods", "judge",
    "tests",
]  # fmt: skip

LATENCY = "latency_seconds"
PASS_AT_K = "pass@k"
LARGEST_K = 1_000
_PASS_AT = re.compile(r"pass@([1-9][0-9]{0,3})")


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """What a model said to examples, and what its answers are scored by; one entry an example.

    Attributes:
        answers: What it said; None for no answer.
        targets: What is right; None for an open question, or where an example has tests instead.
        seconds: How long each answer took; empty where that is not known.
        executions: How the answers to each example ran against its tests, one or more; none where
            an answer or the tests are missing.
        asked: The examples, for metrics that read what tools there were or which form was wanted.
        usage: Tokens and cost of each answer; empty where they are not known.
    """

    answers: Sequence[Answer]
    targets: Sequence[str | None] = ()
    seconds: Sequence[float | None] = ()
    executions: Sequence[Sequence[Execution]] = ()
    asked: Sequence[Example] = ()
    usage: Sequence[Usage | None] = ()


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """A metric of answers.

    Attributes:
        name: As policies, files of scores and reports write it.
        needs: What it is made of, beside the answer.
        what: What it says, in a line.
        scorer: Scores each example; None where the scores come from elsewhere.
    """

    name: str
    needs: Needs
    what: str
    scorer: Callable[[Answered], Scored] | None = None

    @property
    def higher_is_better(self) -> bool:
        """Its direction."""
        return direction_of(self.name) is not False


def metric_named(name: str) -> MetricSpec | None:
    """Return the metric of a name, `pass@3` of the family `pass@k`; None where there is none."""
    k = pass_k(name)
    if k is None:
        return _BY_NAME.get(name)
    family = _BY_NAME[PASS_AT_K]
    return MetricSpec(
        name,
        family.needs,
        family.what,
        lambda answered: pass_rate(answered.executions, k),
    )


def pass_k(name: str) -> int | None:
    """Return the k of `pass@k`, None for another metric.

    Example:
        >>> pass_k("pass@10"), pass_k("exact_match")
        (10, None)
    """
    match = _PASS_AT.fullmatch(name)
    return int(match[1]) if match and int(match[1]) <= LARGEST_K else None


def _exact(answered: Answered) -> Scored:
    answers, targets = answered.answers, _targets(answered)
    checked_lengths(answers, targets)
    return mean_scored(
        "exact_match",
        [
            np.nan if text is None else float(exact_match(text, target))
            for text, target in zip(answers, targets, strict=True)
        ],
    )


def _latency(answered: Answered) -> Scored:
    known = list(answered.seconds) or [None] * len(answered.answers)
    checked_lengths(answered.answers, known)
    return mean_scored(
        LATENCY,
        [
            np.nan if text is None or took is None else took
            for text, took in zip(answered.answers, known, strict=True)
        ],
    )


def _used(name: str, of: Callable[[Usage], float | None]) -> Callable[[Answered], Scored]:
    """Return what scores answers by a number of their usage, which may not be known."""

    def score(answered: Answered) -> Scored:
        known = list(answered.usage) or [None] * len(answered.answers)
        checked_lengths(answered.answers, known)
        numbers = [
            None if text is None or usage is None else of(usage)
            for text, usage in zip(answered.answers, known, strict=True)
        ]
        return mean_scored(name, [np.nan if number is None else number for number in numbers])

    return score


def _targets(answered: Answered) -> list[str]:
    return ["" if target is None else target for target in answered.targets]


def _references(answered: Answered) -> list[list[str]]:
    return [[target] for target in _targets(answered)]


METRICS: tuple[MetricSpec, ...] = (
    MetricSpec(
        "exact_match",
        "target",
        "the same after case, white space and outer punctuation",
        _exact,
    ),
    MetricSpec(
        "normalised_accuracy",
        "target",
        "the same words without case, punctuation and articles, as SQuAD's script",
        lambda a: normalised_accuracy(a.answers, _targets(a)),
    ),
    MetricSpec(
        "token_f1",
        "target",
        "F1 of the words against the target's, as SQuAD's script",
        lambda a: token_f1(a.answers, _targets(a)),
    ),
    MetricSpec(
        "contains_answer",
        "target",
        "the target's words are in the answer; go with a guardrail on `length`",
        lambda a: contains_answer(a.answers, _targets(a)),
    ),
    MetricSpec(
        "bleu",
        "target",
        "sacrebleu's BLEU of the sentence, 0 to 100",
        lambda a: bleu(a.answers, _references(a)),
    ),
    MetricSpec(
        "chrf",
        "target",
        "sacrebleu's chrF, 0 to 100",
        lambda a: chrf(a.answers, _references(a)),
    ),
    MetricSpec(
        "rougeL",
        "target",
        "rouge-score's F-measure; letters a to z and digits only",
        lambda a: rouge(a.answers, _references(a)),
    ),
    MetricSpec("json_validity", "answer", "it is JSON", lambda a: json_validity(a.answers)),
    MetricSpec(
        "field_f1",
        "target",
        "F1 of the leaves of its JSON against the target's",
        lambda a: field_f1(a.answers, _targets(a)),
    ),
    MetricSpec(
        "tool_name_match",
        "target",
        "it calls the tools that the target calls",
        lambda a: tool_names(a.answers, a.targets),
    ),
    MetricSpec(
        "call_exact_match",
        "target",
        "its calls are the target's, arguments and all",
        lambda a: exact_calls(a.answers, a.targets),
    ),
    MetricSpec(
        "argument_f1",
        "target",
        "F1 of the arguments of its calls against the target's",
        lambda a: argument_f1(a.answers, a.targets),
    ),
    MetricSpec(
        "needless_call_rate",
        "no call",
        "it calls a tool where the target calls none",
        lambda a: needless_calls(a.answers, a.targets),
    ),
    MetricSpec(
        "call_validity",
        "tools",
        "its calls name tools that there are, with arguments that fit them",
        lambda a: call_validity(a.answers, [one.tools for one in a.asked]),
    ),
    MetricSpec(
        "unparsable_call_rate",
        "answer",
        "a call of it cannot be read",
        lambda a: unparsable_calls(a.answers),
    ),
    MetricSpec("tool_calls", "answer", "how many calls it makes", lambda a: call_counts(a.answers)),
    MetricSpec(
        "format_validity",
        "format",
        "it has the form that the request asked for",
        lambda a: format_validity(a.answers, [one.response_format for one in a.asked]),
    ),
    MetricSpec("length", "answer", "how many words it has", lambda a: answer_length(a.answers)),
    MetricSpec(
        "refusal_rate",
        "answer",
        "opens by refusing (English)",
        lambda a: refusals(a.answers),
    ),
    MetricSpec("empty_rate", "answer", "it has no text", lambda a: empty_answers(a.answers)),
    MetricSpec(LATENCY, "seconds", "wall time, in seconds, of the batch it was made in", _latency),
    MetricSpec(
        "tokens_in",
        "usage",
        "tokens of the request, as the server counts them",
        _used("tokens_in", lambda usage: usage.prompt_tokens),
    ),
    MetricSpec(
        "tokens_out",
        "usage",
        "tokens of the answer, likewise",
        _used("tokens_out", lambda usage: usage.completion_tokens),
    ),
    MetricSpec(
        "cost",
        "usage",
        "what it cost, by the prices of RATCHET_PRICES",
        _used("cost", lambda usage: usage.cost),
    ),
    MetricSpec(
        "perplexity",
        "likelihoods",
        "of held-out answers under a local model; from Python alone",
    ),
    MetricSpec(WIN_RATE, "judge", "a judge that people correct prefers it to the champion's"),
    MetricSpec(
        PASS_AT_K,
        "tests",
        "chance that one of k answers passes the example's tests in the sandbox; `pass@1`, "
        "`pass@5`, ...",
    ),
)
"""The catalogue."""

_BY_NAME = {spec.name: spec for spec in METRICS}
