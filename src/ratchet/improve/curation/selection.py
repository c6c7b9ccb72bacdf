"""Which answers are trained on: what users, judges and experts showed to be good.

A correction is trained on as the user gave it. An answer is trained on where somebody rated it
well, its quality is high, and enough speaks for that; or where a judge prefers it to another in
both orders. Nothing blank, unsafe, refused, planted or tested on by the gate gets in.

    selection = select(outcomes, quality, protected, config, context=Context(...))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ratchet.errors import InsufficientDataError
from ratchet.evaluation.metrics import Outcomes, Quality, QualityWeights, normalise_answer
from ratchet.improve.curation.config import ClusterRequest, CurationConfig, Demonstration
from ratchet.improve.curation.decontamination import Guard
from ratchet.improve.curation.duplicates import drop_near_duplicates
from ratchet.improve.curation.evidence import evidence_weights, quality_lower_bounds
from ratchet.improve.curation.poisoning import Finding, cap_rows, numbered, suspect
from ratchet.improve.curation.propensity import feedback_strata, propensity_weights
from ratchet.improve.curation.rows import Source
from ratchet.improve.curation.shingles import compact

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
ObjectArray = NDArray[np.object_]

DEMONSTRATED, REQUESTED, CORRECTED, PREFERRED, RATED = range(5)
_SOURCES: tuple[Source, ...] = ("demonstration", "correction", "correction", "judge", "rated")


@dataclass(frozen=True, slots=True)
class Context:
    """What is known besides interactions and feedback.

    Attributes:
        withheld: Ids of interactions that are flagged as unsafe and that nobody reviewed yet; those
            that were found unsafe are left out as well.
        refused: Ids of interactions that must not be trained on: no consent, or kept too long.
        preferred: Ids of interactions whose answer a judge prefers to another in both orders.
        demonstrations: Answers of experts.
        requests: Examples wanted for failure clusters.
        reviewed: What reviewers hold answers to be, by interaction: good or not.
        propensity: Chance that an interaction gets feedback, where it is known.
        vectors: Unit vectors of the outcomes' prompts, for the agreement of users with each other.
        weights: How the quality was weighed.
    """

    withheld: Collection[str] = ()
    refused: Collection[str] = ()
    preferred: Collection[str] = ()
    demonstrations: tuple[Demonstration, ...] = ()
    requests: tuple[ClusterRequest, ...] = ()
    reviewed: Mapping[str, bool] = field(default_factory=dict)
    propensity: Mapping[str, float] = field(default_factory=dict)
    vectors: FloatArray | None = None
    weights: QualityWeights = field(default_factory=QualityWeights)


NOTHING_ELSE = Context()


@dataclass(frozen=True, slots=True)
class Selected:
    """An interaction chosen for training, by its place in the outcomes.

    Attributes:
        lower_bound: What the answer's quality is worth at least; nan for what users or experts
            wrote themselves.
        weight: Average interactions that it stands for.
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


@dataclass(frozen=True, slots=True)
class Selection:
    """What was chosen, and how many were left after each step.

    Attributes:
        set_aside: Rows that broke a rule, by reason.
        leaks: Rows too close to an example that the gate tests on, by how.
        findings: What looked coordinated and was left out.
        demonstrations: Those among the rows, by id.
        validation: What validates the training; no user is in both parts.
    """

    rows: tuple[Selected, ...]
    funnel: tuple[tuple[str, int], ...]
    set_aside: tuple[tuple[str, int], ...] = ()
    leaks: tuple[tuple[str, int], ...] = ()
    findings: tuple[Finding, ...] = ()
    demonstrations: Mapping[str, Demonstration] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Pool:
    """Rows under consideration, as arrays of shape (n,), in order of time."""

    position: IntArray
    key: ObjectArray
    prompt: ObjectArray
    target: ObjectArray
    rank: IntArray
    user: ObjectArray
    segment: ObjectArray
    moment: IntArray
    cluster: ObjectArray
    lower: FloatArray
    weight: FloatArray

    def __len__(self) -> int:
        return len(self.position)

    def take(self, rows: BoolArray | IntArray) -> _Pool:
        return _Pool(**{item.name: getattr(self, item.name)[rows] for item in fields(self)})

    def by_preference(self) -> IntArray:
        """Return the rows: experts' first, then corrections, then rated; the newest first."""
        return np.lexsort((-self.position, self.rank))


def select(
    outcomes: Outcomes,
    quality: Quality,
    protected: Collection[str],
    config: CurationConfig,
    *,
    withheld: Collection[str] = (),
    context: Context = NOTHING_ELSE,
) -> Selection:
    """Choose interactions to train on.

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
    interactions = len(outcomes.interaction_ids) + len(context.demonstrations)
    pool = _good(outcomes, quality, config, context)
    funnel = [("interactions", interactions), ("corrected or well rated", len(pool))]

    def keep(name: str, rows: BoolArray | IntArray) -> None:
        nonlocal pool
        pool = pool.take(rows)
        funnel.append((name, len(pool)))

    reasons = unusable(pool.prompt, pool.target, config.maximum_characters)
    set_aside = _counted(reasons)
    keep("readable", reasons == "")
    keep("not refused by their user", ~_among(pool.key, context.refused))
    unsafe = np.append(outcomes.unsafe, np.zeros(len(context.demonstrations))) == 1.0
    keep("not flagged as unsafe", ~_among(pool.key, context.withheld) & ~unsafe[pool.position])
    suspicion = _suspicion(outcomes, quality, config, context)
    distrusted = np.append(suspicion.distrusted, np.zeros(len(context.demonstrations), np.bool_))
    keep("from trusted users", ~distrusted[pool.position])
    keep("one per prompt", one_per_prompt(pool.prompt, pool.target, pool.user, pool.rank))
    keep("no near duplicates", _distinct(pool, config))
    leaks = Guard.build(protected, config.decontamination).leaks(pool.prompt)
    keep("not in an evaluation set", leaks == "")
    keep("of ordinary length", _of_ordinary_length(pool, outcomes, config))
    keep("capped per user and source", _capped(pool, config))
    keep("balanced and capped", _balanced(pool, config, context))
    _require_enough(len(pool), funnel, config)
    return Selection(
        rows=tuple(_selected(pool)),
        funnel=tuple(funnel),
        set_aside=set_aside,
        leaks=_counted(leaks),
        findings=suspicion.findings,
        demonstrations={item.id: item for item in context.demonstrations},
    )


def _suspicion(
    outcomes: Outcomes, quality: Quality, config: CurationConfig, context: Context
) -> Any:
    reviewed = None
    if context.reviewed:
        reviewed = np.array(
            [float(context.reviewed.get(key, np.nan)) for key in outcomes.interaction_ids]
        )
    return suspect(
        outcomes, quality, config.poisoning, reviewed=reviewed, vectors=context.vectors
    )


def _require_enough(left: int, funnel: list[tuple[str, int]], config: CurationConfig) -> None:
    if left < config.minimum_examples:
        raise InsufficientDataError(
            f"a training set needs at least {config.minimum_examples} examples, got {left} "
            f"({', '.join(f'{name}: {count}' for name, count in funnel)}); collect more feedback"
        )


# What is good -----------------------------------------------------------------------------------


def _good(
    outcomes: Outcomes, quality: Quality, config: CurationConfig, context: Context
) -> _Pool:
    corrected = np.array([text is not None for text in outcomes.corrections], dtype=np.bool_)
    rated = (quality.value >= config.minimum_quality) & (quality.explicit >= config.minimum_quality)
    lower = _lower_bounds(outcomes, quality, config, context)
    rated &= lower >= config.minimum_lower_bound
    preferred = _among(outcomes.interaction_ids, context.preferred)
    preferred &= ~(quality.value < config.minimum_quality) & ~outcomes.failed_with_error
    taken = np.flatnonzero(corrected | rated | preferred)
    source = np.where(rated, RATED, np.where(preferred, PREFERRED, RATED))
    clusters = _clusters(outcomes.interaction_ids[taken], context)
    rank = np.where(corrected, CORRECTED, source)[taken]
    rank[(clusters != "") & corrected[taken]] = REQUESTED
    pool = _Pool(
        position=taken,
        key=outcomes.interaction_ids[taken],
        prompt=outcomes.prompts[taken],
        target=np.where(corrected[taken], outcomes.corrections[taken], outcomes.responses[taken]),
        rank=rank,
        user=outcomes.user_ids[taken],
        segment=outcomes.segments[taken],
        moment=outcomes.created_at.astype(np.int64)[taken],
        cluster=clusters,
        lower=np.where(corrected, np.nan, lower)[taken],
        weight=_weights(outcomes, quality, config, context)[taken],
    )
    return _with_demonstrations(pool, outcomes, context.demonstrations)


def _lower_bounds(
    outcomes: Outcomes, quality: Quality, config: CurationConfig, context: Context
) -> FloatArray:
    evidence = evidence_weights(quality, context.weights)
    prompts = codes(compact(outcomes.prompts))
    answers = numbered(outcomes.responses)
    users = numbered(outcomes.user_ids)
    pairs = prompts * (int(answers.max(initial=0)) + 1) + answers
    same = np.unique(pairs, return_inverse=True)[1]
    return quality_lower_bounds(quality, evidence, same, users, config.confidence)


def _weights(
    outcomes: Outcomes, quality: Quality, config: CurationConfig, context: Context
) -> FloatArray:
    if not config.propensity.enabled:
        return np.ones(len(outcomes))
    corrected = np.array([text is not None for text in outcomes.corrections], dtype=np.bool_)
    known = None
    if context.propensity:
        known = np.array([context.propensity.get(k, np.nan) for k in outcomes.interaction_ids])
    lengths = [_lengths(outcomes.prompts), _lengths(outcomes.responses)]
    return propensity_weights(
        feedback_strata(numbered(outcomes.segments), *lengths),
        corrected | ~np.isnan(quality.explicit),
        largest=config.propensity.largest,
        known=known,
    )


def _clusters(keys: ObjectArray, context: Context) -> ObjectArray:
    by_id = {
        key: request.cluster_id for request in context.requests for key in request.interaction_ids
    }
    return np.array([by_id.get(key, "") for key in keys], dtype=np.object_)


def _with_demonstrations(
    pool: _Pool, outcomes: Outcomes, demonstrations: tuple[Demonstration, ...]
) -> _Pool:
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
        "rank": np.full(size, DEMONSTRATED),
        "user": texts([f"demonstration {item.id}" for item in items]),
        "segment": texts([item.segment for item in items]),
        "moment": np.full(size, last),
        "cluster": texts([""] * size),
        "lower": np.full(size, np.nan),
        "weight": np.ones(size),
    }
    return _Pool(**{name: np.concatenate([getattr(pool, name), added[name]]) for name in added})


# Steps ------------------------------------------------------------------------------------------


def unusable(prompts: ObjectArray, targets: ObjectArray, longest: int) -> ObjectArray:
    """Say for each row why it cannot be trained on, "" where it can, shape (n,)."""
    reasons = np.full(len(prompts), "", dtype=np.object_)
    for name, texts in (("answer", targets), ("prompt", prompts)):
        column = pa.array([_sound(text) for text in texts], pa.large_string())
        blank = pc.equal(pc.utf8_trim_whitespace(column), "")
        checks = {
            f"{name} is blank": blank,
            f"{name} is longer than {longest:,} characters": pc.greater(
                pc.utf8_length(column), longest
            ),
            f"{name} holds a NUL or an unpaired surrogate": pc.is_null(column),
        }
        for reason, broken in checks.items():
            reasons[np.asarray(pc.fill_null(broken, False))] = reason
    return reasons


def _sound(text: str) -> str | None:
    if text.isascii():
        return None if "\x00" in text else text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return None
    return None if "\x00" in text else text


def one_per_prompt(
    prompts: ObjectArray, targets: ObjectArray, users: ObjectArray, rank: IntArray
) -> IntArray:
    """Return the rows to keep: of each prompt one, with the target that most users named.

    An expert's demonstration settles it. Of several rows with that target the most preferred by
    rank stays, of those the newest; where two targets are named by equally many users none does.
    """
    if not len(prompts):
        return np.empty(0, dtype=np.int64)
    prompt = codes(compact(prompts))
    target = numbered(np.array([normalise_answer(text) for text in targets], dtype=np.object_))
    user = numbered(users)
    width, depth = int(target.max()) + 1, int(user.max()) + 1
    named = prompt * width + target
    distinct = np.unique(named * depth + user)
    names, votes = np.unique(distinct // depth, return_counts=True)
    votes = votes.astype(np.int64)
    experts = np.isin(names, named[rank == DEMONSTRATED])
    votes[experts] += len(prompts) + 1
    order = np.lexsort((-votes, names // width))
    group = (names // width)[order]
    leads = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
    runner = np.minimum(leads + 1, len(order) - 1)
    tied = (group[runner] == group[leads]) & (runner != leads)
    tied &= votes[order[runner]] == votes[order[leads]]
    winners = names[order[leads[~tied]]]
    rows = np.flatnonzero(np.isin(named, winners))
    best = np.lexsort((-rows, rank[rows], prompt[rows]))
    first = np.unique(prompt[rows][best], return_index=True)[1]
    return np.sort(rows[best[first]])


def _distinct(pool: _Pool, config: CurationConfig) -> IntArray:
    order = pool.by_preference()
    kept = drop_near_duplicates(compact(pool.prompt[order]), config.duplicates)
    return np.sort(order[kept])


def _of_ordinary_length(pool: _Pool, outcomes: Outcomes, config: CurationConfig) -> BoolArray:
    """Drop the longest rated answers of a segment until their mean is ordinary."""
    keep = np.ones(len(pool), dtype=np.bool_)
    if config.length_ratio is None or not len(pool):
        return keep
    answered = ~outcomes.failed_with_error & (_lengths(outcomes.responses) > 0)
    lengths, chosen = _lengths(pool.target), pool.rank >= PREFERRED
    everywhere = _lengths(outcomes.responses)
    for segment in sorted({str(name) for name in pool.segment}):
        mine = answered & (outcomes.segments == segment)
        rows = np.flatnonzero(chosen & (pool.segment == segment))
        if mine.any() and len(rows):
            most = config.length_ratio * float(everywhere[mine].mean())
            keep[rows] = within_mean(lengths[rows], most, free=config.length_free)
    return keep


def within_mean(lengths: IntArray, most: float, *, free: int) -> BoolArray:
    """Drop the longest until the mean is at most `most`; those of at most `free` all stay."""
    order = np.argsort(lengths, kind="stable")
    means = np.cumsum(lengths[order]) / np.arange(1, len(order) + 1)
    keep = np.empty(len(lengths), dtype=np.bool_)
    keep[order] = (means <= most) | (lengths[order] <= free)
    return keep


def _capped(pool: _Pool, config: CurationConfig) -> BoolArray:
    """Cap what one user, and one segment where there are several, may give."""
    keep = np.ones(len(pool), dtype=np.bool_)
    caps = config.poisoning
    if not caps.enabled or not len(pool):
        return keep
    order = pool.by_preference()
    of_user = cap_rows(
        numbered(pool.user[order]),
        lambda rows: max(caps.user_rows, int(caps.user_share * rows)),
        size=config.maximum_examples,
    )
    keep[order] = of_user
    segments = numbered(pool.segment[order])
    if caps.source_share < 1.0 and segments.max() > 0:
        keep[order] &= cap_rows(
            segments,
            lambda rows: max(1, int(caps.source_share * rows)),
            size=config.maximum_examples,
        )
    return keep


def _balanced(pool: _Pool, config: CurationConfig, context: Context) -> IntArray:
    """Take from the strata in turn, by preference within each, until full; requests come first."""
    order = pool.by_preference()
    stratum = codes(
        pc.binary_join_element_wise(
            pa.array(pool.segment[order], pa.large_string()),
            pa.array(pool.cluster[order], pa.large_string()),
            pa.array([normalise_answer(t) for t in pool.target[order]], pa.large_string()),
            "\x1f",
        )
    )
    share = np.ones(int(stratum.max(initial=-1)) + 1)
    if config.balance == "traffic":
        share = np.bincount(stratum, weights=pool.weight[order])
    turn = (_places(stratum) + 1.0) / share[stratum]
    turn[_requested(pool.cluster[order], context)] = 0.0
    return np.sort(order[np.argsort(turn, kind="stable")[: config.maximum_examples]])


def _requested(clusters: ObjectArray, context: Context) -> BoolArray:
    wanted = {request.cluster_id: request.wanted for request in context.requests}
    number = numbered(clusters)
    limits = np.array([wanted.get(str(name), 0) for name in clusters])
    return np.asarray(_places(number) < limits)


def _places(groups: IntArray) -> IntArray:
    """Return the place of each row among those of its group, from 0."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    places = np.empty(len(groups), dtype=np.int64)
    places[order] = np.arange(len(groups)) - np.searchsorted(ordered, ordered, side="left")
    return places


def _selected(pool: _Pool) -> list[Selected]:
    return [
        Selected(
            interaction_id=str(pool.key[row]),
            prompt=str(pool.prompt[row]),
            target=str(pool.target[row]).strip(),
            source=_SOURCES[pool.rank[row]],
            position=int(pool.position[row]),
            user_id=str(pool.user[row]),
            segment=str(pool.segment[row]),
            moment=int(pool.moment[row]),
            cluster=str(pool.cluster[row]),
            lower_bound=float(pool.lower[row]),
            weight=round(float(pool.weight[row]), 6),
        )
        for row in range(len(pool))
    ]


def codes(column: pa.Array) -> IntArray:
    """Return a number for each value, from 0 by first appearance."""
    return np.asarray(
        column.dictionary_encode().indices.to_numpy(zero_copy_only=False), dtype=np.int64
    )


def _lengths(texts: ObjectArray) -> IntArray:
    return np.asarray(pc.utf8_length(pa.array(texts, pa.large_string())), dtype=np.int64)


def _among(keys: ObjectArray, wanted: Collection[str]) -> BoolArray:
    if not wanted:
        return np.zeros(len(keys), dtype=np.bool_)
    values = pa.array(sorted(wanted), pa.large_string())
    return np.asarray(pc.is_in(pa.array(keys, pa.large_string()), value_set=values), dtype=np.bool_)


def _counted(reasons: ObjectArray) -> tuple[tuple[str, int], ...]:
    counts = Counter(str(reason) for reason in reasons if reason)
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
