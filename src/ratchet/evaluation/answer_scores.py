"""Scores by name: which metrics a policy may ask of answers, and what they say of each example.

    scored = score_answers("token_f1", answers, targets)

A metric of a judge is not made here: it is asked for and validated by itself (docs/judges.md), and
comes in by `judged`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from ratchet.errors import InvalidInputError
from ratchet.evaluation.json_metrics import field_f1, json_validity
from ratchet.evaluation.metrics import exact_match
from ratchet.evaluation.overlap_metrics import bleu, chrf, rouge
from ratchet.evaluation.scored import Answer, FloatArray, Scored, checked_lengths, mean_scored
from ratchet.evaluation.text_metrics import (
    answer_length,
    contains_answer,
    normalised_accuracy,
    refusals,
    token_f1,
)
from ratchet.records import WIN_RATE

LATENCY = "latency_seconds"


def score_answers(
    metric: str,
    answers: Sequence[Answer],
    targets: Sequence[str],
    *,
    seconds: Sequence[float | None] = (),
) -> Scored:
    """Score each answer by a metric.

    Args:
        metric: Its name, one of `known_metrics`.
        answers: What the system said; None for no answer.
        targets: What is right, in the same order.
        seconds: How long each answer took, where that is known.

    Raises:
        InvalidInputError: There is no such metric, or lengths differ.
    """
    if metric == LATENCY:
        known = list(seconds) or [None] * len(answers)
        checked_lengths(answers, known)
        return mean_scored(
            LATENCY,
            [
                np.nan if text is None or took is None else took
                for text, took in zip(answers, known, strict=True)
            ],
            higher_is_better=False,
        )
    scorer = _SCORERS.get(metric)
    if scorer is None:
        raise InvalidInputError(
            f"a metric must be one of {', '.join(known_metrics())}, got {metric!r}; other scores "
            "are gated from a file: ratchet gate --scores"
        )
    return scorer(answers, targets)


def known_metrics() -> tuple[str, ...]:
    """Return the names of the metrics that answers can be scored by."""
    return (*_SCORERS, LATENCY)


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
            score_answers(metric, [], [])


def score_pairs(
    metrics: Sequence[str],
    champion: Sequence[Answer],
    challenger: Sequence[Answer],
    targets: Sequence[str],
    *,
    seconds: tuple[Sequence[float | None], Sequence[float | None]] = ((), ()),
    judged: Mapping[str, tuple[FloatArray, FloatArray]] = MappingProxyType({}),
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Score both systems' answers to the same examples by each metric; nan for no score.

    Args:
        metrics: Their names.
        champion: Its answers; None for no answer.
        challenger: Its answers.
        targets: What is right.
        seconds: How long the champion's and the challenger's answers took.
        judged: Scores of these examples that are there already, by metric.
    """
    return {
        metric: judged[metric]
        if metric in judged
        else (
            score_answers(metric, champion, targets, seconds=seconds[0]).values,
            score_answers(metric, challenger, targets, seconds=seconds[1]).values,
        )
        for metric in metrics
    }


def _exact(answers: Sequence[Answer], targets: Sequence[str]) -> Scored:
    checked_lengths(answers, targets)
    return mean_scored(
        "exact_match",
        [
            np.nan if text is None else float(exact_match(text, target))
            for text, target in zip(answers, targets, strict=True)
        ],
    )


_SCORERS: Mapping[str, Callable[[Sequence[Answer], Sequence[str]], Scored]] = {
    "exact_match": _exact,
    "normalised_accuracy": normalised_accuracy,
    "token_f1": token_f1,
    "contains_answer": contains_answer,
    "bleu": lambda answers, targets: bleu(answers, [[target] for target in targets]),
    "chrf": lambda answers, targets: chrf(answers, [[target] for target in targets]),
    "rougeL": lambda answers, targets: rouge(answers, [[target] for target in targets]),
    "json_validity": lambda answers, _targets: json_validity(answers),
    "field_f1": field_f1,
    "length": lambda answers, _targets: answer_length(answers),
    "refusal_rate": lambda answers, _targets: refusals(answers),
}
