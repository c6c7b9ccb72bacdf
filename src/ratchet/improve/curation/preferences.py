"""What users and judges say of answers, for KTO (liked or not) and DPO (better and worse).

select_labelled(outcomes, quality, protected, config)     thumbs and stars, unpaired
select_pairs(outcomes, quality, protected, config)        corrections, regenerations, judges
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from ratchet.improve.curation.config import CurationConfig
from ratchet.improve.curation.context import Context
from ratchet.improve.curation.funnel import LABELLED, PAIRED, require_enough
from ratchet.improve.curation.pool import (
    CORRECTED,
    DOWN,
    PREFERRED,
    RATED,
    UP,
    Background,
    IntArray,
    narrow,
    one_per_prompt,
)
from ratchet.improve.curation.rows import Source
from ratchet.improve.curation.selection import (
    NOTHING_ELSE,
    Selection,
    pool_of,
    selection_of,
)
from ratchet.improve.curation.traffic import Traffic, traffic_of
from ratchet.improve.curation.traits import BLANK
from ratchet.outcomes.join import Outcomes
from ratchet.outcomes.quality import Quality

_PAIR_SOURCES: dict[int, Source] = {
    CORRECTED: "correction",
    PREFERRED: "judge pair",
    RATED: "regenerate",
}
_BAD = 0.25


def select_labelled(
    outcomes: Outcomes,
    quality: Quality,
    protected: Collection[str],
    config: CurationConfig,
    *,
    context: Context = NOTHING_ELSE,
) -> Selection:
    """Choose answers that users liked or did not, for KTO.

    An answer is liked where its explicit rating reaches `minimum_quality`, and disliked at 0.25
    (a thumb down, two stars) or where the user corrected it. Of one answer to one prompt the label
    that most users gave stays.

    Args and raises: as `select`; demonstrations are not used.
    """
    traffic = traffic_of(outcomes, quality, "kto", context)
    return require_enough(label_answers(Background(traffic, protected, config, context)), config)


def label_answers(background: Background) -> Selection:
    """Choose answers that users liked or did not, however few. See `select_labelled`."""
    traffic = background.traffic
    liked = traffic.explicit >= background.config.minimum_quality
    disliked = (traffic.explicit <= _BAD) | traffic.corrected
    rows = np.flatnonzero((liked | disliked) & ~traffic.failed)
    label = np.where(liked[rows] & ~disliked[rows], UP, DOWN).astype(np.int8)
    pool = pool_of("kto", background, rows, np.full(len(rows), RATED, np.int8), label=label)
    narrowed = narrow(
        pool,
        background,
        LABELLED,
        unique=lambda pool: one_per_prompt(
            traffic.both[pool.position], pool.label, traffic.user[pool.position], pool.rank
        ),
        with_answer=True,
    )
    return selection_of(narrowed, background, ["thumbs"] * len(narrowed.pool))


def select_pairs(
    outcomes: Outcomes,
    quality: Quality,
    protected: Collection[str],
    config: CurationConfig,
    *,
    context: Context = NOTHING_ELSE,
) -> Selection:
    """Choose pairs of a better and a worse answer to one prompt, for DPO.

    - A correction is better than the answer that it corrects.
    - An answer that was asked for again (regenerate) is worse than the next one to the same prompt
      in the session, where that was neither asked for again nor disliked.
    - Of two answers that a judge compared, the one that is better in both orders.

    Args and raises: as `select`; demonstrations are not used.
    """
    traffic = traffic_of(outcomes, quality, "dpo", context)
    return require_enough(pair_answers(Background(traffic, protected, config, context)), config)


def pair_answers(background: Background) -> Selection:
    """Choose pairs of a better and a worse answer, however few. See `select_pairs`."""
    traffic = background.traffic
    parts = [_corrections(traffic), _regenerations(traffic), _judged(traffic)]
    worse, better, rank = (np.concatenate(part) for part in zip(*parts, strict=True))
    answers = np.where(rank == CORRECTED, traffic.correction[worse], traffic.answer[better])
    differ = (traffic.answer_state[worse] != BLANK) & (answers != traffic.answer[worse])
    order = np.flatnonzero(differ)[np.argsort(worse[differ], kind="stable")]
    narrowed = narrow(
        pool_of("dpo", background, worse[order], rank[order], better=better[order]),
        background,
        PAIRED,
        unique=lambda pool: one_per_prompt(
            traffic.prompt[pool.position],
            pool.target(traffic, "hash"),
            traffic.user[pool.position],
            pool.rank,
        ),
    )
    sources = [_PAIR_SOURCES[rank] for rank in narrowed.pool.rank]
    return selection_of(narrowed, background, sources)


Part = tuple[IntArray, IntArray, NDArray[np.int8]]


def _part(worse: IntArray, better: IntArray, rank: int) -> Part:
    return worse, better, np.full(len(worse), rank, dtype=np.int8)


def _corrections(traffic: Traffic) -> Part:
    rows = np.flatnonzero(traffic.corrected & ~traffic.failed)
    return _part(rows, rows, CORRECTED)


def _regenerations(traffic: Traffic) -> Part:
    """Pair what was asked for again with the next answer to the same prompt in the session."""
    order = np.argsort(traffic.turn, kind="stable")
    first, then = order[:-1], order[1:]
    failed = traffic.failed
    good = ~traffic.regenerated[then] & ~failed[then] & ~failed[first]
    good &= ~(traffic.explicit[then] < 0.5)
    taken = (traffic.turn[first] == traffic.turn[then]) & good & traffic.regenerated[first]
    return _part(first[taken], then[taken], RATED)


def _judged(traffic: Traffic) -> Part:
    worse, better = traffic.judged
    fine = ~traffic.failed[worse] & ~traffic.failed[better]
    fine &= traffic.exact[worse] == traffic.exact[better]
    return _part(worse[fine], better[fine], PREFERRED)
