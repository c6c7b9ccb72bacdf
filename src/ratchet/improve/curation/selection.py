"""Which answers are trained on: what users, judges and experts showed to be good.

A correction is trained on as the user gave it. An answer is trained on where somebody rated it
well, its quality is high, and enough speaks for that; or where a judge prefers it to another in
both orders. Nothing blank, unsafe, refused, planted or tested on by the gate gets in.

    selection = select(outcomes, quality, protected, config, context=Context(...))
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ratchet.improve.curation.config import CurationConfig, Demonstration
from ratchet.improve.curation.evidence import evidence_weights, quality_lower_bounds
from ratchet.improve.curation.poisoning import SuspectGroup, numbered
from ratchet.improve.curation.pool import (
    CORRECTED,
    DEMONSTRATED,
    PREFERRED,
    RATED,
    REQUESTED,
    Background,
    BoolArray,
    Context,
    FloatArray,
    IntArray,
    Narrowed,
    ObjectArray,
    Pool,
    among,
    codes,
    lengths_of,
    narrow,
    one_per_prompt,
)
from ratchet.improve.curation.propensity import feedback_strata, propensity_weights
from ratchet.improve.curation.rows import RowKind, Source
from ratchet.improve.curation.shingles import compact
from ratchet.outcomes.join import Outcomes
from ratchet.outcomes.quality import Quality

NOTHING_ELSE = Context()
SOURCES: tuple[Source, ...] = ("demonstration", "correction", "correction", "judge", "rated")


@dataclass(frozen=True, slots=True)
class Selected:
    """An interaction chosen for training, by its place in the outcomes.

    Attributes:
        target: The answer to learn or to label, or the better one of a pair.
        lower_bound: What the answer's quality is worth at least; nan for what users or experts
            wrote themselves.
        weight: Average interactions that it stands for.
        desirable: Whether a labelled answer was liked.
        rejected: The worse answer of a pair.
        chosen_id: The interaction with the better answer of a pair.
    """

    interaction_id: str
    prompt: str
    target: str
    source: Source
    position: int
    user_id: str = ""
    segment: str = "all"
    moment: int = 0
    cluster: str = ""
    lower_bound: float = float("nan")
    weight: float = 1.0
    desirable: bool | None = None
    rejected: str | None = None
    chosen_id: str = ""


@dataclass(frozen=True, slots=True)
class Selection:
    """What was chosen, and how many were left after each step.

    Attributes:
        set_aside: Rows that broke a rule, by reason.
        leaks: Rows too close to an example that the gate tests on, by how.
        findings: What looked coordinated and was left out.
        demonstrations: Those of experts, by id.
    """

    rows: tuple[Selected, ...]
    funnel: tuple[tuple[str, int], ...]
    kind: RowKind = "sft"
    set_aside: tuple[tuple[str, int], ...] = ()
    leaks: tuple[tuple[str, int], ...] = ()
    findings: tuple[SuspectGroup, ...] = ()
    demonstrations: Mapping[str, Demonstration] = field(default_factory=dict)


def select(
    outcomes: Outcomes,
    quality: Quality,
    protected: Collection[str],
    config: CurationConfig,
    *,
    withheld: Collection[str] = (),
    context: Context = NOTHING_ELSE,
) -> Selection:
    """Choose answers to learn.

    Args:
        outcomes: All interactions with their feedback, in order of time.
        quality: Their quality, same order.
        protected: Prompts that the gate tests on; none of them gets in, nor what is close to one.
        config: What counts as good and how many to take.
        withheld: More ids for `Context.withheld`.
        context: What else is known.

    Raises:
        InsufficientDataError: Fewer than `minimum_examples` are left.
    """
    context = replace(context, withheld={*context.withheld, *withheld})
    background = Background(outcomes, quality, protected, config, context)
    narrowed = narrow(
        _with_demonstrations(_good(background), background),
        background,
        "corrected or well rated",
        unique=lambda pool: one_per_prompt(pool.prompt, pool.target, pool.user, pool.rank),
        text=lambda pool: pool.prompt,
    )
    return selection_of(narrowed, "sft", background, [SOURCES[rank] for rank in narrowed.pool.rank])


def selection_of(
    narrowed: Narrowed, kind: RowKind, background: Background, sources: list[Source]
) -> Selection:
    """Return what is left of a pool as a selection."""
    return Selection(
        rows=tuple(_selected(narrowed.pool, kind, background, sources)),
        funnel=narrowed.funnel,
        kind=kind,
        set_aside=narrowed.set_aside,
        leaks=narrowed.leaks,
        findings=narrowed.findings,
        demonstrations={item.id: item for item in background.context.demonstrations},
    )


def _selected(
    pool: Pool, kind: RowKind, background: Background, sources: list[Source]
) -> list[Selected]:
    ids = background.outcomes.interaction_ids
    return [
        Selected(
            interaction_id=str(pool.key[row]),
            prompt=str(pool.prompt[row]),
            target=str(pool.target[row]).strip(),
            source=sources[row],
            position=int(pool.position[row]),
            user_id=str(pool.user[row]),
            segment=str(pool.segment[row]),
            moment=int(pool.moment[row]),
            cluster=str(pool.cluster[row]),
            lower_bound=float(pool.lower[row]),
            weight=round(float(pool.weight[row]), 6),
            desirable=bool(pool.other[row] == "up") if kind == "kto" else None,
            rejected=str(pool.other[row]).strip() if kind == "dpo" else None,
            chosen_id=str(ids[pool.other_position[row]]) if kind == "dpo" else "",
        )
        for row in range(len(pool))
    ]


def _good(background: Background) -> Pool:
    outcomes, quality, config = background.outcomes, background.quality, background.config
    corrected = given(outcomes.corrections)
    rated = (quality.value >= config.minimum_quality) & (quality.explicit >= config.minimum_quality)
    lower = _lower_bounds(background)
    rated &= lower >= config.minimum_lower_bound
    winners = {pair.better for pair in background.context.judged if pair.better is not None}
    preferred = among(outcomes.interaction_ids, winners)
    preferred &= ~(quality.value < config.minimum_quality) & ~outcomes.failed_with_error
    taken = np.flatnonzero(corrected | rated | preferred)
    rank = np.where(corrected, CORRECTED, np.where(rated, RATED, PREFERRED))
    target = np.where(corrected, outcomes.corrections, outcomes.responses)
    pool = pool_of(
        background,
        taken,
        target[taken],
        rank[taken],
        lower=np.where(corrected, np.nan, lower)[taken],
    )
    wanted = (pool.cluster != "") & (pool.rank == CORRECTED)
    return replace(pool, rank=np.where(wanted, REQUESTED, pool.rank))


def pool_of(
    background: Background,
    rows: IntArray,
    target: ObjectArray,
    rank: IntArray,
    *,
    other: ObjectArray | None = None,
    other_rows: IntArray | None = None,
    lower: FloatArray | None = None,
) -> Pool:
    """Return rows of the outcomes as a pool."""
    outcomes, size = background.outcomes, len(rows)
    return Pool(
        position=rows,
        key=outcomes.interaction_ids[rows],
        prompt=outcomes.prompts[rows],
        target=target,
        other=np.full(size, "", dtype=np.object_) if other is None else other,
        other_position=rows if other_rows is None else other_rows,
        rank=rank,
        user=outcomes.user_ids[rows],
        segment=outcomes.segments[rows],
        moment=outcomes.created_at.astype(np.int64)[rows],
        cluster=_clusters(outcomes.interaction_ids[rows], background.context),
        lower=np.full(size, np.nan) if lower is None else lower,
        weight=_weights(background)[rows],
    )


def given(texts: ObjectArray) -> BoolArray:
    """Tell where there is a text."""
    return np.array([text is not None for text in texts], dtype=np.bool_)


def _lower_bounds(background: Background) -> FloatArray:
    outcomes, quality = background.outcomes, background.quality
    evidence = evidence_weights(quality, background.context.weights)
    prompts = codes(compact(outcomes.prompts))
    answers = numbered(outcomes.responses)
    users = numbered(outcomes.user_ids)
    pairs = prompts * (int(answers.max(initial=0)) + 1) + answers
    same = np.unique(pairs, return_inverse=True)[1]
    return quality_lower_bounds(quality, evidence, same, users, background.config.confidence)


def _weights(background: Background) -> FloatArray:
    outcomes, config, context = background.outcomes, background.config, background.context
    if not config.propensity.enabled:
        return np.ones(len(outcomes))
    known = None
    if context.propensity:
        known = np.array([context.propensity.get(k, np.nan) for k in outcomes.interaction_ids])
    lengths = [lengths_of(outcomes.prompts), lengths_of(outcomes.responses)]
    return propensity_weights(
        feedback_strata(numbered(outcomes.segments), *lengths),
        given(outcomes.corrections) | ~np.isnan(background.quality.explicit),
        largest=config.propensity.largest,
        known=known,
    )


def _clusters(keys: ObjectArray, context: Context) -> ObjectArray:
    by_id = {
        key: request.cluster_id for request in context.requests for key in request.interaction_ids
    }
    return np.array([by_id.get(key, "") for key in keys], dtype=np.object_)


def _with_demonstrations(pool: Pool, background: Background) -> Pool:
    outcomes, demonstrations = background.outcomes, background.context.demonstrations
    if not demonstrations:
        return pool
    items = sorted(demonstrations, key=lambda item: item.id)
    size = len(items)
    last = int(outcomes.created_at.astype(np.int64).max()) if len(outcomes) else 0

    def texts(values: list[str]) -> ObjectArray:
        return np.array(values, dtype=np.object_)

    added: dict[str, Any] = {
        "position": len(outcomes) + np.arange(size),
        "key": texts([item.id for item in items]),
        "prompt": texts([item.prompt for item in items]),
        "target": texts([item.target for item in items]),
        "other": texts([""] * size),
        "other_position": len(outcomes) + np.arange(size),
        "rank": np.full(size, DEMONSTRATED),
        "user": texts([f"demonstration {item.id}" for item in items]),
        "segment": texts([item.segment for item in items]),
        "moment": np.full(size, last),
        "cluster": texts([""] * size),
        "lower": np.full(size, np.nan),
        "weight": np.ones(size),
    }
    return Pool(**{name: np.concatenate([getattr(pool, name), added[name]]) for name in added})
