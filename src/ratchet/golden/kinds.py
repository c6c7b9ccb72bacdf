"""By which metric examples with right answers are gated, where no policy says it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ratchet.evaluation.metrics import normalise_answer
from ratchet.files.text import counted
from ratchet.records import LABEL_TOKENS, Example, GoldenMetric
from ratchet.records.tool_calls import MARK

MOST_LABELS = 100
"""More different right answers are no closed set of labels."""
TIMES_EACH = 5
"""So often each right answer stands on average where the answers are labels."""
_LONGEST_LABEL = 4 * LABEL_TOKENS  # characters


def metric_for(examples: Sequence[Example]) -> tuple[GoldenMetric, str]:
    """Return the metric that suits examples, and why.

    Labels of a closed set are right or wrong, and calls of tools are exact or not: these are
    counted. A text has many right forms, of which a person approved one: whoever answers in other
    words would be counted as wrong. So a judge of pairs says which of two answers is better, and
    people correct the judge; the approved answer stays with the example for metrics that compare
    words.
    """
    targets = [example.right_answer or "" for example in examples]
    calls = sum(MARK in target for target in targets)
    if calls == len(targets):
        return "call_exact_match", "every right answer calls tools: they are compared exactly"
    distinct = Counter(normalise_answer(target) for target in targets)
    longest = max(map(len, targets))
    if (
        not calls
        and "" not in targets
        and longest <= _LONGEST_LABEL
        and len(distinct) <= min(MOST_LABELS, len(targets) // TIMES_EACH)
        and not any("\n" in target for target in targets)
    ):
        return "exact_match", (
            f"the right answers are {counted(len(distinct), 'label')} of a closed set: an answer "
            "is right or wrong"
        )
    return "win_rate", (
        f"{len(distinct)} different right answers of up to {longest:,} characters: a right answer "
        "has many forms, so a judge compares pairs"
    )
