"""A defence against users who feed the model on purpose: trust, brigades, one-answer users, caps.

    said = endorsements(traffic, config)  # words of users for answers
    found = find_brigades(said, config)  # many new users, one answer, one direction
    loud = find_one_answer_users(said, config)

An endorsement is a user's word for an answer: a thumb up or good stars (up), a correction (up, for
what it says), a thumb down or bad stars (down).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratchet.evaluation.call_metrics import comparable
from ratchet.improve.curation.agreement import KeptNeighbours, Places, agreement, nearest_of_others
from ratchet.improve.curation.poisoning_config import PoisoningConfig
from ratchet.improve.curation.traffic import Traffic
from ratchet.improve.curation.traits import distinct
from ratchet.stats.agreement.trusted_raters import excess_p_values, honest_probabilities

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Vectors = NDArray[np.float32]

__all__ = ["PoisoningConfig", "SuspectGroup", "Suspicion", "cap_rows", "suspect"]

_HOUR = 3_600_000_000
_DAY = 24 * _HOUR
_REPEATED = 0.5
_PRIOR = 5.0
_LEAST_AGREEMENT = 0.2  # below it `honest_probabilities` would doubt honest users as well
_HONEST = 0.5


@dataclass(frozen=True, slots=True)
class Endorsements:
    """What users said for or against answers, shape (n,) each, in order of time.

    Attributes:
        position: Row of the traffic.
        user: Number of the user, by the time of the first message.
        answer: Number of the answer (normalised), from 0.
        up: For the answer, or against it.
        corrected: Whether it is the user's own answer in place of the model's.
        moment: Microseconds since 1970.
        is_new: Whether the user was new then.
        answers: How many distinct answers there are.
    """

    position: IntArray
    user: IntArray
    answer: IntArray
    up: BoolArray
    corrected: BoolArray
    moment: IntArray
    is_new: BoolArray
    answers: int


@dataclass(frozen=True, slots=True)
class SuspectGroup:
    """A group of endorsements that looks coordinated, for a person to look at.

    Attributes:
        answer: In the form in which answers are compared.
        positions: Rows of the traffic.
    """

    kind: str
    up: bool
    users: int
    others: int
    p_value: float
    positions: IntArray
    answer: str = ""

    def describe(self) -> str:
        """Return one line for people."""
        way = "for" if self.up else "against"
        chance = "" if np.isnan(self.p_value) else f" (p = {self.p_value:.1g})"
        return (
            f"{self.kind}: {self.users} {'new ' if self.kind == 'brigade' else ''}"
            f"{'user' if self.users == 1 else 'users'}, "
            f"{len(self.positions)} times {way} {self.answer[:60]!r}{chance}"
        )


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What is not believed.

    Attributes:
        distrusted: Rows whose feedback is left out, shape (n,).
        trust: Probability that each user is honest, by number; nan where nothing is known.
        users: Number of each row's user, shape (n,).
        findings: Brigades and one-answer users.
    """

    distrusted: BoolArray
    trust: FloatArray
    users: IntArray
    findings: tuple[SuspectGroup, ...]


def suspect(
    traffic: Traffic,
    config: PoisoningConfig,
    *,
    vectors_of: Callable[[IntArray], Vectors] | None = None,
    kept: KeptNeighbours | None = None,
) -> Suspicion:
    """Find feedback that is not to be believed.

    Args:
        traffic: All that users said, in order of time.
        config: The defence; `enabled=False` believes everybody.
        vectors_of: Returns vectors of the prompts of some rows of the traffic, of any length, for
            agreement with others where answers repeat; called once a block.
        kept: What earlier runs found of whole blocks, which is not computed again.
    """
    users, size = traffic.user, int(traffic.user.max(initial=-1)) + 1
    distrusted = np.zeros(len(users), dtype=np.bool_)
    if not config.enabled or not size:
        return Suspicion(distrusted, np.full(size, np.nan), users, findings=())
    said = endorsements(traffic, config)
    findings = (
        *find_brigades(said, config),
        *find_one_answer_users(said, config),
        *find_boilerplate(said, traffic.exact, config),
    )
    for finding in findings:
        distrusted[finding.positions] = True
    nearest = None
    if vectors_of is not None and _answers_repeat(said):
        nearest = _nearest(said, traffic.exact, config, vectors_of, kept)
    trust = user_trust(said, size, reviewed=traffic.reviewed, nearest=nearest)
    distrusted[said.position] |= trust[said.user] < config.minimum_trust
    return Suspicion(distrusted, trust, users, _with_answers(findings, traffic))


def _with_answers(findings: Sequence[SuspectGroup], traffic: Traffic) -> tuple[SuspectGroup, ...]:
    """Return findings with the answers that they are about, read from their first rows."""
    rows = np.array([finding.positions[0] for finding in findings], dtype=np.int64)
    answers = np.full(len(rows), "", dtype=np.object_)
    for places, (texts,) in traffic.texts.read(rows, "response"):
        answers[places] = texts
    corrected = traffic.corrected[rows]
    answers[corrected] = traffic.texts.corrections(rows[corrected])
    return tuple(
        replace(finding, answer=comparable(str(answer)).strip())
        for finding, answer in zip(findings, answers, strict=True)
    )


def endorsements(traffic: Traffic, config: PoisoningConfig) -> Endorsements:
    """Return what users said for or against answers."""
    corrected, explicit = traffic.corrected, traffic.explicit
    position = np.flatnonzero(corrected | ~np.isnan(explicit))
    hashes = np.where(corrected, traffic.correction, traffic.answer)[position]
    answer, answers = _by_appearance(hashes)
    moment = traffic.moment[position]
    return Endorsements(
        position=position,
        user=traffic.user[position],
        answer=answer,
        up=(corrected | (explicit >= _REPEATED))[position],
        corrected=corrected[position],
        moment=moment,
        is_new=moment - traffic.first[position] < config.new_user_days * _DAY,
        answers=answers,
    )


def _by_appearance(values: NDArray[Any]) -> tuple[IntArray, int]:
    """Return a number for each value, from 0 by first appearance, and how many there are."""
    _, at, number = np.unique(values, return_index=True, return_inverse=True)
    rank = np.empty(len(at), dtype=np.int64)
    rank[np.argsort(at)] = np.arange(len(at))
    return rank[number], len(at)


def find_brigades(said: Endorsements, config: PoisoningConfig) -> tuple[SuspectGroup, ...]:
    """Find many new users with one answer and one direction within a short time.

    For each answer, direction and window (two sets of windows, half a window apart) the distinct
    new users among the distinct users are held against their share among everybody else in the
    window, by the exact binomial test. What is found is what the new users said.

    Assumptions:
        Without a brigade, users of one window choose what they say whether new or not. Something
        that only new users are asked about breaks that, and is found too: have a person look.

    Error rate:
        At most `level` over all groups together, but for the share, which is estimated from the
        others in the window and, with the weight of five users, from all windows.
    """
    if not len(said.position):
        return ()
    window = max(1, round(config.window_hours * _HOUR))
    groups: list[tuple[float, int, int, IntArray]] = []
    tested = 0
    for shift in (0, window // 2):
        bucket = (said.moment - said.moment.min() + shift) // window
        tests = _window_tests(said, bucket)
        enough = tests.new >= config.brigade_users
        tested += int(enough.sum())
        likely = np.flatnonzero(enough & (tests.p_values < config.level))
        for place, members in zip(likely, _rows_of(tests.group, likely), strict=True):
            rows = members[said.is_new[members]]
            users = int(tests.new[place])
            groups.append(
                (float(tests.p_values[place]), users, int(tests.all[place]) - users, rows)
            )
    found = [group for group in groups if group[0] * tested < config.level]
    return tuple(
        SuspectGroup(
            kind="brigade",
            up=bool(said.up[rows[0]]),
            users=users,
            others=others,
            p_value=min(1.0, p_value * tested),
            positions=said.position[rows],
        )
        for p_value, users, others, rows in sorted(found, key=lambda group: group[0])
    )


@dataclass(frozen=True, slots=True)
class _Tests:
    """One test a group: its number of each row, its distinct users, the new ones, p-values."""

    group: IntArray
    all: IntArray
    new: IntArray
    p_values: FloatArray


def _window_tests(said: Endorsements, bucket: IntArray) -> _Tests:
    width = 2 * said.answers
    keys = bucket * width + said.answer * 2 + said.up
    names, group = np.unique(keys, return_inverse=True)
    everybody, new = (
        _distinct(group, said.user),
        _distinct(group[said.is_new], said.user[said.is_new]),
    )
    size, windows = len(names), names // width
    everybody = np.bincount(everybody, minlength=size)
    new = np.bincount(new, minlength=size)
    in_window = np.bincount(windows, weights=everybody)[windows] - everybody
    new_in_window = np.bincount(windows, weights=new)[windows] - new
    usual = (new.sum() + 1.0) / (everybody.sum() + 2.0)
    rates = (new_in_window + _PRIOR * usual) / (in_window + _PRIOR)
    return _Tests(group, everybody, new, excess_p_values(new, everybody, rates))


def _distinct(group: IntArray, user: IntArray) -> IntArray:
    """Return the group of each distinct pair of group and user."""
    if not len(group):
        return group
    width = int(user.max()) + 1
    return distinct(group * width + user) // width


def _rows_of(group: IntArray, wanted: IntArray) -> list[IntArray]:
    """Return the rows of each wanted group, ascending."""
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    begins = np.searchsorted(ordered, wanted, side="left")
    ends = np.searchsorted(ordered, wanted, side="right")
    return [order[begin:end] for begin, end in zip(begins, ends, strict=True)]


def find_one_answer_users(said: Endorsements, config: PoisoningConfig) -> tuple[SuspectGroup, ...]:
    """Find users who speak for one answer far more often than others do.

    How often each user speaks for an answer is held against its share among the words for answers
    of all others, by the exact binomial test with the share raised by one word.

    Assumptions:
        Users' questions are alike. A user who always asks about one thing is found as well, from
        about log(level / users) / log(share) words on: have a person look.

    Error rate:
        At most `level` over all users together, under the assumption.
    """
    chosen = np.flatnonzero(said.up)
    if not len(chosen):
        return ()
    user, answer = said.user[chosen], said.answer[chosen]
    width = said.answers
    pairs, pair, counts = np.unique(user * width + answer, return_inverse=True, return_counts=True)
    of_user = np.bincount(user)
    of_answer = np.bincount(answer, minlength=width)
    who, what = pairs // width, pairs % width
    others = len(user) - of_user[who]
    rates = (of_answer[what] - counts + 1.0) / (others + 2.0)
    p_values = excess_p_values(counts, of_user[who], rates)
    unlikely = (p_values * len(pairs) < config.level) & (counts >= config.brigade_users)
    findings = []
    found = np.flatnonzero(unlikely)
    for place, members in zip(found, _rows_of(pair, found), strict=True):
        rows = chosen[members]
        findings.append(
            SuspectGroup(
                kind="one-answer user",
                up=True,
                users=1,
                others=0,
                p_value=min(1.0, float(p_values[place]) * len(pairs)),
                positions=said.position[rows],
            )
        )
    return tuple(findings)


def find_boilerplate(
    said: Endorsements, prompts: NDArray[Any], config: PoisoningConfig
) -> tuple[SuspectGroup, ...]:
    """Find corrections that give one answer to many prompts, where answers hardly ever repeat.

    A rule without an error rate: where more than half of the answers that users speak for are in
    words of their own, a correction that is made to `brigade_users` distinct prompts or more was
    planted, or is boilerplate that a model need not be taught from users.
    """
    if _answers_repeat(said) or not said.corrected.any():
        return ()
    rows = np.flatnonzero(said.corrected)
    prompt = np.unique(prompts[said.position[rows]], return_inverse=True)[1]
    width = int(prompt.max()) + 1
    about = distinct(said.answer[rows] * width + prompt) // width
    names, counts = np.unique(about, return_counts=True)
    findings = []
    many = names[counts >= config.brigade_users]
    for members in _rows_of(said.answer[rows], many):
        mine = rows[members]
        findings.append(
            SuspectGroup(
                kind="one answer to many prompts",
                up=True,
                users=len(np.unique(said.user[mine])),
                others=0,
                p_value=float("nan"),
                positions=said.position[mine],
            )
        )
    return tuple(findings)


def user_trust(
    said: Endorsements,
    users: int,
    *,
    reviewed: NDArray[np.float32],
    nearest: Places | None,
) -> FloatArray:
    """Return the probability that each user is honest, from what reviewers and others say.

    A user is right about an answer that a reviewer holds to be good with a word for it, and about
    a bad one with a word against it or a correction. Where answers repeat (classes), a word for an
    answer is right as well where most of the nearest messages of other users in its block of time
    have it, weighed by those users' trust.

    Where hardly any user agrees with others in the end, messages that are alike do not call for the
    same answer, and others cannot tell. Nor can they where two thirds of the users would be
    doubted: a few who agree with each other cannot be told from honest ones then. Each user counts
    as one, however much they say, so that nobody turns this off alone.

    Args:
        said: What users said.
        users: How many there are.
        reviewed: What reviewers hold the answers of all rows to be.
        nearest: Nearest messages of other users for each word for an answer; None where answers
            do not repeat.
    """
    trust = np.full(users, np.nan)
    verdict = reviewed[said.position]
    known = np.flatnonzero(~np.isnan(verdict))
    if len(known):
        content = (said.up & ~said.corrected)[known]
        right = (verdict[known] == 1.0) == content
        trust = honest_probabilities(
            _totals(said.user[known], right, users),
            _totals(said.user[known], np.ones(len(known)), users),
        )
    if nearest is None:
        return trust
    by_reviewers = trust
    user, answer = said.user[said.up], said.answer[said.up]
    for _ in range(3):
        weight = np.where(np.isnan(trust), 1.0, trust)
        right, total = agreement(nearest, user, answer, weight)
        by_others = honest_probabilities(right, total)
        trust = np.fmin(by_reviewers, by_others)  # either is enough to doubt
    compared = total > 0.0
    rates, believed = right[compared] / total[compared], by_others[compared] >= _HONEST
    agree = rates.sum() >= _LEAST_AGREEMENT * rates.size
    return trust if agree and 3 * believed.sum() > believed.size else by_reviewers


def _nearest(
    said: Endorsements,
    messages: NDArray[np.uint64],
    config: PoisoningConfig,
    vectors_of: Callable[[IntArray], Vectors],
    kept: KeptNeighbours | None,
) -> Places:
    """Return the nearest messages of other users for each word for an answer."""
    rows = np.flatnonzero(said.up)
    position = said.position[rows]
    return nearest_of_others(
        said.user[rows],
        said.moment[rows],
        lambda places: vectors_of(position[places]),
        neighbours=config.neighbours,
        block=config.block,
        messages=messages[position],
        kept=kept,
    )


def _totals(user: IntArray, values: NDArray[Any], users: int) -> FloatArray:
    return np.bincount(user, weights=values, minlength=users).astype(np.float64)


def _answers_repeat(said: Endorsements) -> bool:
    """Tell whether there are at most half as many answers as words for them.

    The mean over users, however much one of them says, so that no user decides it alone.
    """
    user, answer = said.user[said.up], said.answer[said.up]
    if not len(user):
        return False
    words = np.bincount(user)
    answers = np.bincount(user, weights=1.0 / np.bincount(answer)[answer])
    return bool((answers[words > 0] / words[words > 0]).mean() <= _REPEATED)


def cap_rows(
    owners: NDArray[Any], limit: Callable[[int], int], *, size: int | None = None
) -> BoolArray:
    """Keep the first rows of each owner, at most `limit(number of rows)`, shape (n,).

    Args:
        owners: The user or source of each row, in order of preference.
        limit: Rows that one owner may have in a set of so many.
        size: Rows that the set will have; all by default.
    """
    most = limit(len(owners) if size is None else min(size, len(owners)))
    order = np.argsort(owners, kind="stable")
    ordered = owners[order]
    starts = np.searchsorted(ordered, ordered, side="left")
    keep = np.empty(len(owners), dtype=np.bool_)
    keep[order] = np.arange(len(owners)) - starts < most
    return keep
