"""A rate by a judge, corrected by the labels of people on a part of the items.

Many verdicts make the interval of a judge's own rate narrow, not right. The corrected rate is
valid however the judge errs, if the labelled items are a random part of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.judges.effects import figure, undefined
from ratchet.records import Figure
from ratchet.stats.judges.corrected_rate import labels_needed, prediction_powered_rate


@dataclass(frozen=True, slots=True)
class RateCorrection:
    """Rates by the judge, by people and corrected, and what would settle the question.

    Attributes:
        figures: `judge_rate` (no interval that would mean anything), `human_rate`,
            `corrected_rate`.
        settles: How many more labels would settle on which side of the threshold the rate lies.
    """

    figures: tuple[Figure, ...]
    settles: str

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        found = {one.name: one.model_dump(exclude={"name"}) for one in self.figures}
        return {"figures": found, "settles": self.settles}


def corrected_rate(
    labels: Sequence[float], verdicts: Sequence[float], *, threshold: float = 0.5
) -> RateCorrection:
    """Correct a judge's rate by people's labels.

    Args:
        labels: Worth by people in [0, 1] of each item, NaN where nobody labelled it.
        verdicts: Worth by the judge, NaN where it is unscored.
        threshold: The question: is the rate above it?
    """
    name = "corrected_rate"
    try:
        found = prediction_powered_rate(labels, verdicts)
    except (InsufficientDataError, InvalidInputError) as error:
        return RateCorrection((undefined(name, error),), "")
    needed = labels_needed(found, threshold)
    items = found.labelled + found.unlabelled
    more = "" if needed.more_labels is None else f"{needed.more_labels} more labels: "
    return RateCorrection(
        (
            Figure(name="judge_rate", value=found.judge_estimate, observations=items),
            figure("human_rate", found.human_estimate, found.human_interval, found.labelled),
            figure(name, found.estimate, found.interval, items),
        ),
        f"whether it is above {threshold:g}: {more}{needed.reason}",
    )
