"""Scores by name: which metrics a policy may ask of answers, and what they say of each example.

    scored = score_answers("token_f1", answers, targets)

The metrics themselves are declared in `metrics`. A metric of a judge is not made here: it is asked
for and validated by itself (docs/judges.md), and comes in by `judged`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from ratchet.errors import InvalidInputError
from ratchet.evaluation.call_metrics import has_form
from ratchet.evaluation.code_execution.sandbox import Execution
from ratchet.evaluation.metrics import METRICS, Answered, MetricSpec, metric_named
from ratchet.evaluation.scored import Answer, Scored, checked_lengths
from ratchet.records import WIN_RATE, Example
from ratchet.records.asking import Usage
from ratchet.records.tool_calls import read_calls
from ratchet.stats.arrays import FloatArray


def score_answers(
    metric: str,
    answers: Sequence[Answer],
    targets: Sequence[str | None],
    *,
    seconds: Sequence[float | None] = (),
    usage: Sequence[Usage | None] = (),
    executions: Sequence[Sequence[Execution]] = (),
    asked: Sequence[Example] = (),
) -> Scored:
    """Score each answer by a metric.

    Args:
        metric: Its name, one of `known_metrics`, or `pass@k` with its k.
        answers: What the system said; None for no answer.
        targets: What is right, in the same order; None for an open question and for an example
            that has tests instead, which get no score by a metric that needs a target.
        seconds: How long each answer took, where that is known.
        usage: Tokens and cost of each answer, likewise.
        executions: How the answers to each example ran against its tests, for `pass@k`.
        asked: The examples, for metrics that need their tools or the form they ask for.

    Raises:
        InvalidInputError: There is no such metric, or lengths differ.
    """
    spec = _scored_metric(metric)
    assert spec.scorer is not None
    checked_lengths(answers, targets)
    answered = Answered(answers, targets, seconds, executions, asked, usage)
    if spec.needs == "target":
        pairs = zip(answers, targets, strict=True)
        kept = [None if target is None else answer for answer, target in pairs]
        answered = Answered(kept, targets)
    elif spec.needs in ("tools", "format"):
        checked_lengths(answers, asked)
    return spec.scorer(answered)


def _scored_metric(metric: str) -> MetricSpec:
    spec = metric_named(metric)
    if spec is None or spec.scorer is None:
        raise InvalidInputError(
            f"a metric must be one of {', '.join(known_metrics())}, or pass@1, pass@2, ... of "
            f"examples with tests, got {metric!r}; other scores are gated from a file: ratchet "
            "gate --scores"
        )
    return spec


def known_metrics() -> tuple[str, ...]:
    """Return the names of the metrics that answers can be scored by, beside `pass@k` of tests."""
    return tuple(spec.name for spec in METRICS if spec.scorer is not None)


def check_metrics(metrics: Sequence[str], judged: Collection[str] = ()) -> None:
    """Refuse names that no metric has, before anything is answered.

    Args:
        metrics: Their names.
        judged: Names of those that a judge's scores are brought for.

    Raises:
        InvalidInputError: There is no such metric.
    """
    for metric in metrics:
        if metric == WIN_RATE and metric not in judged:
            raise InvalidInputError(
                f"{WIN_RATE} needs a judge of pairs, got none; name a file of judges "
                "(RATCHET_JUDGES, --judges)"
            )
        if metric not in judged:
            _scored_metric(metric)


def check_needs(
    metric: str, where: str, examples: Sequence[Example], *, of_all: bool = False
) -> None:
    """Refuse a metric that examples cannot be scored by.

    Args:
        metric: Its name.
        where: What to add to "examples" in the message, such as " of safety".
        examples: What it is to be measured on.
        of_all: Whether each must have what it needs. Without it, one that needs targets is measured
            on the examples that have them (`measured_on`), and refused where none has.

    Raises:
        InvalidInputError: Examples lack targets or tests.
    """
    spec = metric_named(metric)
    needs = "" if spec is None else spec.needs
    untested = [example.id for example in examples if example.tests is None]
    if needs == "tests" and untested:
        raise InvalidInputError(
            f"{metric} needs tests in every example{where}, got {len(untested)} of "
            f"{len(examples)} without, {untested[0]} first; add them or leave the metric out"
        )
    if needs in _ASKED and examples and not any(measured_on(metric, examples)):
        raise InvalidInputError(
            f"{metric} needs examples{where} {_ASKED[needs]}, got none among {len(examples)}; add "
            "some or leave the metric out"
        )
    open_ones = [example.id for example in examples if example.right_answer is None]
    if needs == "target" and open_ones and (of_all or len(open_ones) == len(examples)):
        way_out = f"gate on {WIN_RATE} (policy open-ended)" if of_all else "leave the metric out"
        raise InvalidInputError(
            f"metric {metric} needs targets; {len(open_ones)} of {len(examples)} examples{where} "
            f"have none, {open_ones[0]} first; add them or {way_out}"
        )


def measured_on(metric: str, examples: Sequence[Example]) -> list[bool]:
    """Tell which examples a metric is measured on: those that have what it needs."""
    spec = metric_named(metric)
    return [spec is None or _has(example, spec.needs) for example in examples]


_ASKED = {
    "no call": "with a target that calls no tool",
    "tools": "with tools",
    "format": "with a response_format of JSON",
}


def _has(example: Example, needs: str) -> bool:
    if needs in ("target", "no call"):
        target = example.right_answer
        return target is not None and not (needs == "no call" and read_calls(target).calls)
    if needs == "tools":
        return example.tools is not None
    return needs != "format" or has_form(example.response_format)


def score_pairs(
    metrics: Sequence[str],
    champion: Sequence[Answer],
    challenger: Sequence[Answer],
    targets: Sequence[str | None],
    *,
    seconds: tuple[Sequence[float | None], Sequence[float | None]] = ((), ()),
    usage: tuple[Sequence[Usage | None], Sequence[Usage | None]] = ((), ()),
    executions: tuple[Sequence[Sequence[Execution]], Sequence[Sequence[Execution]]] = ((), ()),
    judged: Mapping[str, tuple[FloatArray, FloatArray]] = MappingProxyType({}),
    asked: Sequence[Example] = (),
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Score both systems' answers to the same examples by each metric; nan for no score.

    Args:
        metrics: Their names.
        champion: Its answers; None for no answer.
        challenger: Its answers.
        targets: What is right; None for an open question, or one that has tests instead.
        seconds: How long the champion's and the challenger's answers took.
        usage: Tokens and cost of the champion's and the challenger's answers.
        executions: How the champion's and the challenger's answers ran against tests.
        judged: Scores of these examples that are there already, by metric.
        asked: The examples.
    """

    def scores(metric: str, side: int) -> FloatArray:
        answers, took, ran = (champion, challenger)[side], seconds[side], executions[side]
        return score_answers(
            metric, answers, targets, seconds=took, usage=usage[side], executions=ran, asked=asked
        ).values

    return {
        metric: judged[metric] if metric in judged else (scores(metric, 0), scores(metric, 1))
        for metric in metrics
    }
