"""Juries on files: what several judges say together, held against people as one judge is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ratchet.judges.judge import Judged, Judgement
from ratchet.judges.jury import JurySpec, combine, jury_version, outcomes_of
from ratchet.judges.label_sets import LabelledVerdict
from ratchet.judges.on_files import WINNERS, FileJudged, LabelledItem, place_of
from ratchet.judges.rubrics import JudgeSpec
from ratchet.judges.validation import validate_judge
from ratchet.models.asking import Asked

NOTHING_ASKED = Asked(0, {}, 0, None, 0.0, 0.0)


def jury_file(
    spec: JurySpec,
    members: Sequence[tuple[JudgeSpec, FileJudged]],
    items: Sequence[LabelledItem],
    *,
    seed: int = 0,
) -> FileJudged:
    """Combine what judges said of a file and hold it against the file's labels.

    Args:
        spec: The jury.
        members: Its judges with what they said, in the order of the jury.
        items: What they judged.
        seed: Of the bootstrap.

    Raises:
        InsufficientDataError: The method needs more verdicts.
    """
    judge = members[0][0]
    pairs = judge.mode == "pairwise"
    in_both = all(one.both_orders for one, _ in members)
    found = combine(
        spec,
        outcomes_of(judge),
        pair_score if pairs else judge.score,
        [judged.judged.judgements for _, judged in members],
    )
    rows = [
        LabelledVerdict(
            item_id=item.item.id,
            human=str(item.labels[0]),
            judge=_named(judgement),
            others=item.labels[1:],
            reason=judgement.reason,
            place=None if not pairs else "both" if in_both else place_of(item.item),
        )
        for item, judgement in zip(items, found, strict=True)
        if item.labels and item.labels[0] is not None
    ]
    menu = ("1", "tie", "2") if pairs else judge.menu
    validation = (
        validate_judge(rows, rng=np.random.default_rng(seed), categories=menu) if rows else None
    )
    unscored = Counter(judgement.reason or "" for judgement in found if judgement.score is None)
    return FileJudged(
        judge_version=jury_version(spec, [judged.judge_version for _, judged in members]),
        judged=Judged(found, NOTHING_ASKED, 0, dict(unscored)),
        validation=validation,
        probes=(),
        harmful=(),
        correction=None,
        set_aside=members[0][1].set_aside,
    )


def pair_score(outcome: str) -> float:
    """Return the worth of the first answer of a pair."""
    return {"first": 1.0, "second": 0.0}.get(outcome, 0.5)


def _named(judgement: Judgement) -> str | None:
    return WINNERS.get(judgement.outcome or "", judgement.outcome)
