"""Rows that may be trained on, and the steps that narrow them down, the same for every kind of set.

narrowed = narrow(pool, Background(traffic, protected, config, context), name, unique=..., text=...)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratchet.improve.curation.calls import (
    FAULTS,
    GONE,
    digest_of,
    fault,
    settled,
    tools_by_digest,
)
from ratchet.improve.curation.config import CurationConfig
from ratchet.improve.curation.context import Context
from ratchet.improve.curation.decontamination import Guard
from ratchet.improve.curation.duplicates import (
    Signatures,
    Signed,
    drop_near_duplicates,
    sign,
)
from ratchet.improve.curation.funnel import (
    BALANCED,
    CAPPED,
    DISTINCT,
    EVERYTHING,
    IN_TIME,
    NOT_HELD_OUT,
    NOT_REFUSED,
    ONE_PER_PROMPT,
    ORDINARY,
    READABLE,
    SAFE,
    TRUSTED,
    UNSEEN,
)
from ratchet.improve.curation.poisoning import SuspectGroup, cap_rows, suspect
from ratchet.improve.curation.rows import RowKind, Tools
from ratchet.improve.curation.shapes import WHY_NOT
from ratchet.improve.curation.shingles import compact
from ratchet.improve.curation.traffic import BATCH, Traffic, read_at
from ratchet.improve.curation.traits import BLANK, CALLING, UNSOUND, HashArray, distinct
from ratchet.records import user_digest

__all__ = ["Background", "Context", "Narrowed", "Pool", "narrow"]

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
ObjectArray = NDArray[np.object_]

DEMONSTRATED, REQUESTED, CORRECTED, PREFERRED, RATED = range(5)
UNLABELLED, UP, DOWN = range(3)
_RESULT = "\nresult of "  # how a result stands in what was asked (`ratchet.records.spoken`)
_MIXED = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Background:
    """Everything that a selection looks at."""

    traffic: Traffic
    protected: Collection[str]
    config: CurationConfig
    context: Context


@dataclass(frozen=True, slots=True)
class Pool:
    """Rows under consideration, as arrays of shape (n,).

    Attributes:
        kind: What set they are for.
        position: Row of the traffic; of a pair that of the worse answer.
        other_position: Row of the better answer of a pair, else as `position`.
        corrected: Whether the answer to learn is the user's correction; it is the row's else.
        label: `UP` or `DOWN` of a labelled answer.
        rank: `DEMONSTRATED` to `RATED`; a lower one is preferred.
        lower: What the answer's quality is worth at least.
        weight: Average interactions that the row stands for.
    """

    kind: RowKind
    position: IntArray
    other_position: IntArray
    corrected: BoolArray
    label: NDArray[np.int8]
    rank: NDArray[np.int8]
    lower: FloatArray
    weight: FloatArray

    def __len__(self) -> int:
        return len(self.position)

    def take(self, rows: BoolArray | IntArray) -> Pool:
        """Return some rows, given as a mask or as indices."""
        columns = {item.name: getattr(self, item.name) for item in fields(self)}
        kind = columns.pop("kind")
        return Pool(kind, **{name: values[rows] for name, values in columns.items()})

    def by_preference(self) -> IntArray:
        """Return the rows: experts' first, then corrections, then rated; the newest first."""
        return np.lexsort((-self.position, self.rank))

    def target(self, traffic: Traffic, what: str) -> NDArray[Any]:
        """Return a number of the answers to learn, to label, or the better ones.

        Args:
            traffic: Where the rows are from.
            what: `hash`, `length` or `state`.
        """
        columns: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {
            "hash": (traffic.correction, traffic.answer),
            "length": (traffic.correction_length, traffic.answer_length),
            "state": (traffic.correction_state, traffic.answer_state),
        }
        by_user, by_model = columns[what]
        by_user, by_model = by_user[self.position], by_model[self.other_position]
        chosen: NDArray[Any] = np.where(self.corrected, by_user, by_model)
        return chosen


@dataclass(frozen=True, slots=True)
class Narrowed:
    """What is left of a pool, and what became of the rest.

    Attributes:
        liked: Of labelled answers those that were liked, after each step of the funnel from the
            pool's own on.
        dropped: Rows of the traffic that each step left out.
    """

    pool: Pool
    funnel: tuple[tuple[str, int], ...]
    set_aside: tuple[tuple[str, int], ...]
    leaks: tuple[tuple[str, int], ...]
    findings: tuple[SuspectGroup, ...]
    liked: tuple[int, ...]
    dropped: tuple[tuple[str, IntArray], ...]


def narrow(
    pool: Pool,
    background: Background,
    name: str,
    *,
    unique: Callable[[Pool], IntArray],
    with_answer: bool = False,
) -> Narrowed:
    """Leave out step by step what must not be trained on, and count what is left.

    Args:
        pool: The rows, in order of time.
        background: What they come from.
        name: What the funnel calls them.
        unique: The rows to keep where prompts repeat.
        with_answer: Whether near duplicates are looked for in prompts with their answers.
    """
    config, context, traffic = background.config, background.context, background.traffic
    funnel, liked = [*_beginning(background), (name, len(pool))], [_liked(pool)]
    dropped: list[tuple[str, IntArray]] = []

    def keep(step: str, rows: BoolArray | IntArray) -> None:
        nonlocal pool
        before, pool = pool.position, pool.take(rows)
        funnel.append((step, len(pool)))
        liked.append(_liked(pool))
        dropped.append((step, np.setdiff1d(before, pool.position)))

    set_aside, usable = _set_aside(pool, traffic, context, config.maximum_characters)
    keep(READABLE, usable)
    # of a pair neither answer may be refused or unsafe
    refused, flagged = traffic.refused, traffic.withheld | traffic.unsafe
    keep(NOT_REFUSED, ~(refused[pool.position] | refused[pool.other_position]))
    if context.held_out:
        keep(NOT_HELD_OUT, _not_held_out(pool, traffic, context.held_out))
    keep(SAFE, ~(flagged[pool.position] | flagged[pool.other_position]))
    suspicion = suspect(
        traffic, config.poisoning, vectors_of=context.vectors_of, kept=context.neighbours
    )
    keep(TRUSTED, ~suspicion.distrusted[pool.position])
    keep(ONE_PER_PROMPT, unique(pool))
    keep(DISTINCT, _distinct(pool, background, with_answer))
    leaks = _leaks(pool, traffic, Guard.build(background.protected, config.decontamination))
    keep(UNSEEN, leaks == "")
    keep(ORDINARY, _of_ordinary_length(pool, traffic, config))
    keep(CAPPED, _capped(pool, traffic, config))
    keep(BALANCED, _balanced(pool, traffic, config, context))
    return Narrowed(
        pool, tuple(funnel), set_aside, counted(leaks), suspicion.findings, tuple(liked),
        tuple(dropped),
    )  # fmt: skip


def _beginning(background: Background) -> list[tuple[str, int]]:
    """Return how many interactions there are, and of the time chosen where one was chosen."""
    config, traffic = background.config, background.traffic
    size = traffic.size + traffic.demonstrated
    if config.since is None and config.until is None:
        return [(EVERYTHING, size)]
    return [(EVERYTHING, size + traffic.outside), (IN_TIME, size)]


def _liked(pool: Pool) -> int:
    return int((pool.label == UP).sum())


def _set_aside(
    pool: Pool, traffic: Traffic, context: Context, longest: int
) -> tuple[tuple[tuple[str, int], ...], BoolArray]:
    """Return why rows cannot be trained on, with how many, and which can, shape (n,).

    What a user or an expert wrote is whole; the answer that a correction is preferred to must be
    whole too, or the model would learn to avoid a beginning that may be right. Of several reasons
    the last one is named.
    """
    cut = traffic.ending[pool.position]
    cut = np.where(cut == 0, traffic.ending[pool.other_position], cut)
    by_model = np.ones(len(pool), np.bool_) if pool.kind != "sft" else pool.rank >= PREFERRED
    reasons = np.where(by_model, cut, 0)
    names = list(traffic.endings)
    texts = [
        ("answer", pool.target(traffic, "state"), pool.target(traffic, "length")),
        ("prompt", traffic.prompt_state[pool.position], traffic.prompt_length[pool.position]),
    ]
    if pool.kind == "dpo":
        worse = traffic.answer_state[pool.position], traffic.answer_length[pool.position]
        texts.append(("worse answer", *worse))
    for name, states, lengths in texts:
        sound = states != UNSOUND
        checks = {
            f"{name} is blank": states == BLANK,
            f"{name} is longer than {longest:,} characters": sound & (lengths > longest),
            f"{name} holds a NUL or an unpaired surrogate": ~sound,
        }
        for reason, broken in checks.items():
            reasons[broken] = len(names)
            names.append(reason)
    shape = traffic.shape[pool.position]
    shape = np.where(np.isin(shape, list(WHY_NOT)), shape, traffic.shape[pool.other_position])
    for number, reason in WHY_NOT.items():
        reasons[shape == number] = len(names)
        names.append(reason)
    faults = call_faults(pool.take(reasons == 0), traffic, context)
    reasons[reasons == 0] = np.where(faults > 0, len(names) + faults - 1, 0)
    names += FAULTS
    counts = np.bincount(reasons, minlength=len(names))
    found = [(names[number], int(counts[number])) for number in np.flatnonzero(counts) if number]
    return _most_frequent_first(found), reasons == 0


def call_faults(pool: Pool, traffic: Traffic, context: Context) -> IntArray:
    """Return why calls of each row must not be learnt: a place in `FAULTS` from 1, 0 where none.

    What users did not like and the worse answers of pairs may be any call.
    """
    faults = np.zeros(len(pool), dtype=np.int64)
    tools = traffic.tools[pool.position]
    known = _known_tools(pool, traffic, context)
    gone = (tools != 0) & ~np.isin(tools, np.array(list(known), dtype=np.uint64))
    faults[gone] = FAULTS.index(GONE) + 1
    learnt = (pool.target(traffic, "state") == CALLING) & (pool.label != DOWN) & ~gone
    rows = np.flatnonzero(learnt)
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        for row, text in zip(part, read_targets(pool.take(part), traffic), strict=True):
            why = fault(text, known.get(int(tools[row])))
            faults[row] = FAULTS.index(why) + 1 if why else 0
    return faults


def _known_tools(pool: Pool, traffic: Traffic, context: Context) -> dict[int, Tools]:
    """Return the tools that rows could call, of those that are stored, by their hashes."""
    found, first = np.unique(traffic.tools[pool.position], return_index=True)
    first, found = first[found != 0], found[found != 0]
    if not len(first):
        return {}
    (digests,) = read_at(traffic.texts, pool.position[first], "tools")
    shown = {digest_of(item.tools): item.tools for item in context.demonstrations if item.tools}
    stored = tools_by_digest(context.definitions([str(name) for name in digests]))
    named = zip(found.tolist(), digests, strict=True)
    known = {key: stored.get(str(name)) or shown.get(str(name)) for key, name in named}
    return {key: tools for key, tools in known.items() if tools is not None}


def read_targets(pool: Pool, traffic: Traffic) -> list[str]:
    """Return the answers to learn, to label, or the better ones, calls as they are written."""
    (answers,) = read_at(traffic.texts, pool.other_position, "response")
    mine = pool.corrected
    answers[mine] = traffic.texts.corrections(pool.position[mine])
    return [settled(str(answer).strip()) for answer in answers]


def one_per_prompt(
    prompts: HashArray, targets: NDArray[Any], users: IntArray, rank: NDArray[np.int8]
) -> IntArray:
    """Return the rows to keep: of each prompt one, with the target that most users named.

    An expert's demonstration settles it. Of several rows with that target the newest stays; where
    two targets are named by equally many users none does.

    Args:
        prompts: Equal where the prompts are, shape (n,).
        targets: Equal where the targets are.
        users: Number of the user.
        rank: As of a pool.
    """
    if not len(prompts):
        return np.empty(0, dtype=np.int64)
    prompt, named = _codes(prompts), combined(prompts, targets)
    depth = int(users.max()) + 1
    named_by = distinct(named * depth + users)
    names, votes = np.unique(named_by // depth, return_counts=True)
    votes = votes.astype(np.int64)
    experts = np.isin(names, named[rank == DEMONSTRATED])
    votes[experts] += len(prompts) + 1
    prompt_of = np.empty(len(names), dtype=np.int64)
    prompt_of[named] = prompt
    order = np.lexsort((-votes, prompt_of))
    group = prompt_of[order]
    leads = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
    runner = np.minimum(leads + 1, len(order) - 1)
    tied = (group[runner] == group[leads]) & (runner != leads)
    tied &= votes[order[runner]] == votes[order[leads]]
    winners = names[order[leads[~tied]]]
    rows = np.flatnonzero(np.isin(named, winners))
    best = np.lexsort((-rows, rank[rows] != DEMONSTRATED, prompt[rows]))
    first = np.unique(prompt[rows][best], return_index=True)[1]
    return np.sort(rows[best[first]])


def _distinct(pool: Pool, background: Background, with_answer: bool) -> IntArray:
    traffic, config = background.traffic, background.config
    order = pool.by_preference()
    rows = pool.position[order]
    names = ("prompt", "asked", "response") if with_answer else ("prompt", "asked")
    with Signed(len(pool), config.duplicates) as signed:
        if signed.needed:
            read: list[IntArray] = []

            def texts() -> Iterator[ObjectArray]:
                for places, (prompts, asked, *answers) in traffic.texts.read(rows, *names):
                    kinds = _kinds(rows[places], traffic, prompts, asked, with_answer=with_answer)
                    signed.tell_apart(places, kinds)
                    read.append(places)
                    yield asked + "\n" + answers[0] if with_answer else asked

            work = partial(_signatures, config.duplicates.bands * config.duplicates.rows)
            for number, signatures in background.context.executor.run(work, texts()):
                signed.keep(read[number], signatures)
        return np.sort(order[drop_near_duplicates(signed)])


def _signatures(hashes: int, texts: ObjectArray) -> Signatures:
    return sign(compact(texts), hashes)


def _kinds(
    rows: IntArray,
    traffic: Traffic,
    prompts: ObjectArray,
    asked: ObjectArray,
    *,
    with_answer: bool,
) -> HashArray:
    """Return a hash of what tells rows with similar texts apart, 0 for words alone, shape (n,).

    It is made of their tools, the number of results since the user's words, and with answers of the
    calls.
    """
    results = np.zeros(len(rows), dtype=np.uint64)
    for place in np.flatnonzero(prompts != asked):
        results[place] = asked[place][len(prompts[place]) :].count(_RESULT)
    kinds: HashArray = traffic.tools[rows] ^ (results * _MIXED)
    if with_answer:
        calling = traffic.answer_state[rows] == CALLING
        kinds = kinds ^ np.where(calling, traffic.answer[rows], np.uint64(0))
    return kinds


def _not_held_out(pool: Pool, traffic: Traffic, held_out: Collection[str]) -> BoolArray:
    """Tell of which rows neither answer was given to a user that the gate asks for, shape (n,)."""
    rows = np.unique(np.concatenate([pool.position, pool.other_position]))
    users, first = np.unique(traffic.user[rows], return_index=True)
    (names,) = read_at(traffic.texts, rows[first], "user_id")
    held = users[[user_digest(str(name)) in held_out for name in names]]
    both = (pool.position, pool.other_position)
    of_held = [np.isin(traffic.user[positions], held) for positions in both]
    return ~(of_held[0] | of_held[1])


def _leaks(pool: Pool, traffic: Traffic, guard: Guard) -> ObjectArray:
    """Say for each prompt how it leaks an evaluation set, "" where it does not, shape (n,)."""
    reasons = np.full(len(pool), "", dtype=np.object_)
    if guard.knows_any:
        for places, (prompts,) in traffic.texts.read(pool.position, "prompt"):
            reasons[places] = guard.leaks(prompts)
    return reasons


def _of_ordinary_length(pool: Pool, traffic: Traffic, config: CurationConfig) -> BoolArray:
    """Drop the longest rated answers until their mean is ordinary for a segment.

    Of pairs those go whose better answer is longer by most, until better ones are ordinary beside
    the worse ones.
    """
    keep = np.ones(len(pool), dtype=np.bool_)
    ratio = config.length_ratio
    if ratio is None or not len(pool):
        return keep
    lengths, chosen = pool.target(traffic, "length"), pool.rank >= PREFERRED
    free = lengths <= config.length_free
    paired = pool.other_position != pool.position
    pairs = np.flatnonzero(chosen & paired)
    excess = lengths[pairs] - ratio * traffic.answer_length[pool.position[pairs]]
    keep[pairs] = within_mean(excess, 0.0, free=free[pairs])
    single = chosen & ~paired & (pool.label != DOWN)
    segments = traffic.segment[pool.position]
    for segment in np.unique(segments):
        rows = np.flatnonzero(single & (segments == segment))
        ordinary = traffic.ordinary_length
        if segment < len(ordinary) and not np.isnan(ordinary[segment]) and len(rows):
            most = ratio * float(ordinary[segment])
            keep[rows] = within_mean(lengths[rows].astype(np.float64), most, free=free[rows])
    return keep


def within_mean(lengths: FloatArray, most: float, *, free: BoolArray) -> BoolArray:
    """Drop the longest until the mean is at most `most`; those that are free all stay."""
    order = np.argsort(lengths, kind="stable")
    means = np.cumsum(lengths[order]) / np.arange(1, len(order) + 1)
    keep = np.empty(len(lengths), dtype=np.bool_)
    keep[order] = (means <= most) | free[order]
    return keep


def _capped(pool: Pool, traffic: Traffic, config: CurationConfig) -> BoolArray:
    """Cap what one user, and one segment where there are several, may give."""
    keep = np.ones(len(pool), dtype=np.bool_)
    caps = config.poisoning
    if not caps.enabled or not len(pool):
        return keep
    order = pool.by_preference()
    of_user = cap_rows(
        traffic.user[pool.position[order]],
        lambda rows: max(caps.user_rows, int(caps.user_share * rows)),
        size=config.maximum_examples,
    )
    keep[order] = of_user
    segments = traffic.segment[pool.position[order]]
    if caps.source_share < 1.0 and (segments != segments[0]).any():
        keep[order] &= cap_rows(
            segments,
            lambda rows: max(1, int(caps.source_share * rows)),
            size=config.maximum_examples,
        )
    return keep


def _balanced(pool: Pool, traffic: Traffic, config: CurationConfig, context: Context) -> IntArray:
    """Take from the strata in turn, by preference within each, until full; requests come first."""
    order = pool.by_preference()
    rows = pool.position[order]
    clusters = traffic.cluster[rows]
    targets = pool.target(traffic, "hash")[order]
    stratum = combined(traffic.segment[rows], clusters, targets, pool.label[order])
    share = np.ones(int(stratum.max(initial=-1)) + 1)
    if config.balance == "traffic":
        share[:] = np.bincount(stratum, weights=pool.weight[order])
    turn = (_places(stratum) + 1.0) / share[stratum]
    wanted = {request.cluster_id: request.wanted for request in context.requests}
    limits = np.array([wanted.get(name, 0) for name in traffic.clusters])
    turn[_places(clusters) < limits[clusters]] = 0.0
    return np.sort(order[np.argsort(turn, kind="stable")[: config.maximum_examples]])


def combined(*columns: NDArray[Any]) -> IntArray:
    """Return a number for each combination of values, from 0, shape (n,)."""
    number = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        part = _codes(column)
        number = _codes(number * (int(part.max(initial=0)) + 1) + part)
    return number


def _codes(values: NDArray[Any]) -> IntArray:
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _places(groups: NDArray[Any]) -> IntArray:
    """Return the place of each row among those of its group, from 0."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    places = np.empty(len(groups), dtype=np.int64)
    places[order] = np.arange(len(groups)) - np.searchsorted(ordered, ordered, side="left")
    return places


def counted(reasons: ObjectArray) -> tuple[tuple[str, int], ...]:
    """Return how often each reason stands, most frequent first; "" is none."""
    names, counts = np.unique(reasons.astype(str), return_counts=True)
    found = [(str(name), int(count)) for name, count in zip(names, counts, strict=True) if name]
    return _most_frequent_first(found)


def _most_frequent_first(counts: list[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(counts, key=lambda item: (-item[1], item[0])))
