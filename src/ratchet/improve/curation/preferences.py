"""What users and judges say of answers, for KTO (liked or not) and DPO (better and worse).

select_labelled(outcomes, quality, protected, config)     thumbs and stars, unpaired
select_pairs(outcomes, quality, protected, config)        corrections, regenerations, judges
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from ratchet.evaluation.metrics import normalise_answer
from ratchet.improve.curation.config import CurationConfig
from ratchet.improve.curation.poisoning import numbered
from ratchet.improve.curation.pool import (
    CORRECTED,
    PREFERRED,
    RATED,
    Background,
    BoolArray,
    Context,
    IntArray,
    ObjectArray,
    Pool,
    codes,
    narrow,
    one_per_prompt,
)
from ratchet.improve.curation.rows import Source
from ratchet.improve.curation.selection import (
    NOTHING_ELSE,
    Selection,
    given,
    pool_of,
    selection_of,
)
from ratchet.improve.curation.shingles import compact
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
    found = Background(outcomes, quality, protected, config, _without_demonstrations(context))
    liked = quality.explicit >= config.minimum_quality
    disliked = (quality.explicit <= _BAD) | given(outcomes.corrections)
    rows = np.flatnonzero((liked | disliked) & ~outcomes.failed_with_error)
    label = np.where(liked[rows] & ~disliked[rows], "up", "down").astype(np.object_)
    pool = pool_of(found, rows, outcomes.responses[rows], np.full(len(rows), RATED), other=label)
    narrowed = narrow(
        pool, found, "liked or not", unique=_one_label_per_answer, text=_prompt_and_answer
    )
    return selection_of(narrowed, "kto", found, ["thumbs"] * len(narrowed.pool))


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
    found = Background(outcomes, quality, protected, config, _without_demonstrations(context))
    parts = [_corrections(outcomes), _regenerations(outcomes, quality), _judged(found)]
    worse, better, rank = (np.concatenate(part) for part in zip(*parts, strict=True))
    answers = np.where(rank == CORRECTED, outcomes.corrections[worse], outcomes.responses[better])
    differ = _differ(answers, outcomes.responses[worse])
    order = np.flatnonzero(differ)[np.argsort(worse[differ], kind="stable")]
    pool = pool_of(
        found,
        worse[order],
        answers[order],
        rank[order],
        other=outcomes.responses[worse[order]],
        other_rows=better[order],
    )
    narrowed = narrow(
        pool, found, "pairs of answers", unique=_one_pair_per_prompt, text=lambda pool: pool.prompt
    )
    sources = [_PAIR_SOURCES[rank] for rank in narrowed.pool.rank]
    return selection_of(narrowed, "dpo", found, sources)


def _without_demonstrations(context: Context) -> Context:
    return replace(context, demonstrations=())


def _prompt_and_answer(pool: Pool) -> ObjectArray:
    return np.asarray(pool.prompt + "\n" + pool.target, dtype=np.object_)


def _one_label_per_answer(pool: Pool) -> IntArray:
    return one_per_prompt(_prompt_and_answer(pool), pool.other, pool.user, pool.rank)


def _one_pair_per_prompt(pool: Pool) -> IntArray:
    return one_per_prompt(pool.prompt, pool.target, pool.user, pool.rank)


Part = tuple[IntArray, IntArray, IntArray]


def _part(worse: IntArray, better: IntArray, rank: int) -> Part:
    return worse, better, np.full(len(worse), rank, dtype=np.int64)


def _corrections(outcomes: Outcomes) -> Part:
    rows = np.flatnonzero(given(outcomes.corrections) & ~outcomes.failed_with_error)
    return _part(rows, rows, CORRECTED)


def _regenerations(outcomes: Outcomes, quality: Quality) -> Part:
    """Pair what was asked for again with the next answer to the same prompt in the session."""
    if not len(outcomes):
        return _part(np.empty(0, np.int64), np.empty(0, np.int64), RATED)
    session, prompt = numbered(outcomes.session_ids), codes(compact(outcomes.prompts))
    order = np.lexsort((np.arange(len(session)), prompt, session))
    first, then = order[:-1], order[1:]
    same = (session[first] == session[then]) & (prompt[first] == prompt[then])
    failed = outcomes.failed_with_error
    good = (outcomes.regenerated[then] != 1.0) & ~failed[then] & ~failed[first]
    good &= ~(quality.explicit[then] < 0.5)
    taken = same & good & (outcomes.regenerated[first] == 1.0)
    return _part(first[taken], then[taken], RATED)


def _judged(found: Background) -> Part:
    place = _places(found)
    pairs = [
        (place[pair.worse], place[pair.better])
        for pair in found.context.judged
        if pair.worse in place and pair.better in place
    ]
    if not pairs:
        return _part(np.empty(0, np.int64), np.empty(0, np.int64), PREFERRED)
    worse, better = (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True))
    failed, prompts = found.outcomes.failed_with_error, found.outcomes.prompts
    fine = ~failed[worse] & ~failed[better] & (prompts[worse] == prompts[better])
    return _part(worse[fine], better[fine], PREFERRED)


def _places(found: Background) -> dict[str | None, int]:
    """Return the places of the interactions that a judge compared."""
    wanted = {key for pair in found.context.judged for key in (pair.first_id, pair.second_id)}
    ids = found.outcomes.interaction_ids
    return {str(key): place for place, key in enumerate(ids) if key in wanted}


def _differ(one: ObjectArray, other: ObjectArray) -> BoolArray:
    """Tell where both answers say something, and not the same."""
    return np.array(
        [
            bool(b.strip()) and normalise_answer(a) != normalise_answer(b)
            for a, b in zip(one, other, strict=True)
        ],
        dtype=np.bool_,
    )
