"""Which answers are trained on: what users, judges and experts showed to be good.

A correction is trained on as the user gave it. An answer is trained on where somebody rated it
well, its quality is high, and enough speaks for that; or where a judge prefers it to another in
both orders. Nothing blank, unsafe, refused, planted or tested on by the gate gets in.

    selection = select(outcomes, quality, protected, config, context=Context(...))
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ratchet.improve.curation.calls import settled
from ratchet.improve.curation.config import CurationConfig, Demonstration
from ratchet.improve.curation.context import Context
from ratchet.improve.curation.evidence import quality_lower_bounds
from ratchet.improve.curation.funnel import GOOD, require_enough
from ratchet.improve.curation.poisoning import SuspectGroup
from ratchet.improve.curation.pool import (
    CORRECTED,
    DEMONSTRATED,
    PREFERRED,
    RATED,
    REQUESTED,
    UNLABELLED,
    UP,
    Background,
    FloatArray,
    IntArray,
    Narrowed,
    Pool,
    narrow,
    one_per_prompt,
    read_targets,
)
from ratchet.improve.curation.propensity import propensity_weights
from ratchet.improve.curation.rows import RowKind, Source
from ratchet.improve.curation.traffic import Traffic, read_at, traffic_of
from ratchet.outcomes.join import Outcomes
from ratchet.outcomes.quality import Quality
from ratchet.stats.intervals.shrunken import shrunken_mean

NOTHING_ELSE = Context()
SOURCES: tuple[Source, ...] = ("demonstration", "correction", "correction", "judge", "rated")


@dataclass(frozen=True, slots=True)
class Selected:
    """An interaction chosen for training, by its row of the traffic.

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
        liked: Of labelled answers those that were liked, after each of the last steps.
        dropped: Rows of the traffic that each step left out.
    """

    rows: tuple[Selected, ...]
    funnel: tuple[tuple[str, int], ...]
    kind: RowKind = "sft"
    set_aside: tuple[tuple[str, int], ...] = ()
    leaks: tuple[tuple[str, int], ...] = ()
    findings: tuple[SuspectGroup, ...] = ()
    demonstrations: Mapping[str, Demonstration] = field(default_factory=dict)
    liked: tuple[int, ...] = ()
    dropped: tuple[tuple[str, IntArray], ...] = field(default=(), compare=False, repr=False)

    def keeping(self, kept: Collection[str], step: str) -> Self:
        """Return what some interactions leave of it, counted as a step where that is less."""
        rows = tuple(row for row in self.rows if row.interaction_id in kept)
        if len(rows) == len(self.rows):
            return self
        gone = [row.position for row in self.rows if row.interaction_id not in kept]
        liked = sum(bool(row.desirable) for row in rows)
        return replace(
            self,
            rows=rows,
            funnel=(*self.funnel, (step, len(rows))),
            liked=(*self.liked, liked) if self.liked else (),
            dropped=(*self.dropped, (step, np.array(gone, dtype=np.int64))),
        )


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
    traffic = traffic_of(outcomes, quality, "sft", context)
    return require_enough(select_answers(Background(traffic, protected, config, context)), config)


def select_answers(background: Background) -> Selection:
    """Choose answers to learn, however few. See `select`."""
    traffic = background.traffic
    narrowed = narrow(
        _good(background),
        background,
        GOOD,
        unique=lambda pool: one_per_prompt(
            traffic.prompt[pool.position],
            pool.target(traffic, "hash"),
            traffic.user[pool.position],
            pool.rank,
        ),
    )
    return selection_of(narrowed, background, [SOURCES[rank] for rank in narrowed.pool.rank])


def selection_of(narrowed: Narrowed, background: Background, sources: list[Source]) -> Selection:
    """Return what is left of a pool as a selection."""
    return Selection(
        rows=tuple(_selected(narrowed.pool, background.traffic, sources)),
        funnel=narrowed.funnel,
        kind=narrowed.pool.kind,
        set_aside=narrowed.set_aside,
        leaks=narrowed.leaks,
        findings=narrowed.findings,
        demonstrations={item.id: item for item in background.context.demonstrations},
        liked=narrowed.liked if narrowed.pool.kind == "kto" else (),
        dropped=narrowed.dropped,
    )


def _selected(pool: Pool, traffic: Traffic, sources: list[Source]) -> list[Selected]:
    ids, users, prompts, answers = read_at(
        traffic.texts, pool.position, "id", "user_id", "prompt", "response"
    )
    kind, targets = pool.kind, read_targets(pool, traffic)
    chosen_ids = read_at(traffic.texts, pool.other_position, "id")[0] if kind == "dpo" else ids
    return [
        Selected(
            interaction_id=str(ids[row]),
            prompt=str(prompts[row]),
            target=targets[row],
            source=sources[row],
            position=position,
            user_id=str(users[row]),
            segment=traffic.segments[traffic.segment[position]],
            moment=int(traffic.moment[position]),
            cluster=traffic.clusters[traffic.cluster[position]],
            lower_bound=float(pool.lower[row]),
            weight=round(float(pool.weight[row]), 6),
            desirable=bool(pool.label[row] == UP) if kind == "kto" else None,
            rejected=settled(str(answers[row]).strip()) if kind == "dpo" else None,
            chosen_id=str(chosen_ids[row]) if kind == "dpo" else "",
        )
        for row, position in enumerate(pool.position.tolist())
    ]


def _good(background: Background) -> Pool:
    traffic, config = background.traffic, background.config
    lower = _lower_bounds(traffic, config)
    least = config.minimum_quality
    corrected = traffic.corrected
    rated = (traffic.value >= least) & (traffic.explicit >= least)
    rated &= lower >= config.minimum_lower_bound
    preferred = traffic.preferred & ~(traffic.value < least) & ~traffic.failed
    taken = corrected | rated | preferred
    expert = np.arange(len(traffic)) >= len(traffic) - traffic.demonstrated
    rows = np.flatnonzero(taken | expert)
    rank = np.where(corrected, CORRECTED, np.where(rated, RATED, PREFERRED)).astype(np.int8)
    rank[corrected & (traffic.cluster != 0)] = REQUESTED
    rank[expert] = DEMONSTRATED
    lower[corrected | expert] = np.nan
    return pool_of("sft", background, rows, rank[rows], lower=lower[rows])


def pool_of(
    kind: RowKind,
    background: Background,
    rows: IntArray,
    rank: NDArray[np.int8],
    *,
    label: NDArray[np.int8] | None = None,
    better: IntArray | None = None,
    lower: FloatArray | None = None,
) -> Pool:
    """Return rows of the traffic as a pool."""
    size = len(rows)
    return Pool(
        kind=kind,
        position=rows,
        other_position=rows if better is None else better,
        corrected=np.isin(rank, (CORRECTED, REQUESTED)),
        label=np.full(size, UNLABELLED, dtype=np.int8) if label is None else label,
        rank=rank,
        lower=np.full(size, np.nan) if lower is None else lower,
        weight=_weights(background.traffic, background.config)[rows],
    )


def _lower_bounds(traffic: Traffic, config: CurationConfig) -> FloatArray:
    explicit = np.where(np.isnan(traffic.explicit), 0.0, traffic.evidence)
    return quality_lower_bounds(
        traffic.pooled,
        traffic.same,
        traffic.evidence,
        prior=shrunken_mean(np.nan_to_num(traffic.value), explicit),
        confidence=config.confidence,
    )


def _weights(traffic: Traffic, config: CurationConfig) -> FloatArray:
    weights = np.ones(len(traffic))
    if config.propensity.enabled:
        rows = slice(len(traffic) - traffic.demonstrated)
        known = traffic.propensity
        weights[rows] = propensity_weights(
            traffic.stratum[rows],
            (traffic.corrected | ~np.isnan(traffic.explicit))[rows],
            largest=config.propensity.largest,
            known=None if known is None else known[rows],
            sizes=traffic.strata,
        )
    return weights
