"""Samples of traffic for the gate, frozen before anything is trained on.

    frozen = freeze_traffic(store, cycle, outcomes, explicit, most=200, **known)
    opened = freeze_questions(store, outcomes, rules, redact=redact, max_new_tokens=512, **known)

`freeze_traffic` holds out a cycle's interactions whose right answer is known, corrected and
well-rated ones: no random part of all traffic, so take it for a guardrail, not for how good a model
is. What a user asked is in it as a whole or not at all, and examples keep whose they are, so that
the gate counts users. No training set may hold its prompts or anything close to them; other
messages of its users may be trained on.

`freeze_questions` holds out what a random part of users asked, whatever came of it: open questions
without a target, for a gate on `win_rate`. One set serves all cycles, so that their decisions
compare. Nothing that its users wrote is ever trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ratchet.analyze.failures.analysis import ReadTexts
from ratchet.analyze.failures.asked_with import AskedWith, Question, question_of
from ratchet.analyze.failures.profile import right_is_known
from ratchet.analyze.failures.regression_sets import (
    Known,
    examples_of,
    known_answers,
    longest_answer,
    permitted,
)
from ratchet.errors import WaitingError
from ratchet.outcomes.join import FloatArray, Outcomes
from ratchet.records import (
    SAMPLED,
    Cycle,
    Example,
    ExampleSet,
    Interaction,
    derive_id,
    digest,
    draw_of,
    reads_as_text,
    user_digest,
    with_conversations_changed,
)
from ratchet.store import EventStore
from ratchet.store.history import History
from ratchet.store.history.refusals import not_for_good

TRAFFIC = "traffic"
"""What policies call the set."""
HELD_OUT = 0.2
"""Share of a cycle's users that may be held out."""
LATEST_SETS = 200
LOOKED_AT = 50_000
"""Interactions whose right answer is known that a sample is drawn from: their texts are read."""
ENOUGH = 0.95
"""Share of the questions that are wanted with which no larger draw is made."""


def freeze_traffic(
    store: EventStore,
    cycle: Cycle,
    outcomes: Outcomes,
    explicit: FloatArray,
    *,
    most: int,
    withheld: Collection[str],
    history: History,
    now: datetime,
    texts: ReadTexts = lambda outcomes: outcomes,
    looked_at: int = LOOKED_AT,
) -> ExampleSet | None:
    """Freeze the cycle's sample, once; None where no right answer is known.

    Args:
        store: The store.
        cycle: The cycle.
        outcomes: Its interactions.
        explicit: What users said the answers are worth, shape (n,).
        most: Examples at most.
        withheld: Ids of interactions that wait for review or were found unsafe.
        history: Who refused before what the store holds.
        now: The time.
        texts: Reads the texts of outcomes; by default they are there.
        looked_at: Of the interactions whose right answer is known so many at most, the newest.
    """
    frozen = traffic_set(store, cycle)
    if frozen is not None or most < 1:
        return frozen
    rows = np.flatnonzero(right_is_known(outcomes, explicit))[-looked_at:]
    found = texts(outcomes.take(rows))
    requests = AskedWith.of(store, [str(key) for key in found.interaction_ids])
    known = known_answers(
        range(len(found)), found, explicit[rows], withheld=withheld, asked=requests
    )
    held = sample_users(permitted(store, history, known), cycle.id, most=most)
    examples = examples_of(
        store,
        held,
        lambda item: {
            "id": derive_id(TRAFFIC, item.interaction_id),
            "user_id": user_digest(item.user),
        },
    )
    if not examples:
        return None
    made = ExampleSet.freeze(_name(cycle), examples, now, longest_answer(examples))
    store.append(made)
    return made


def traffic_set(store: EventStore, cycle: Cycle) -> ExampleSet | None:
    """Return the cycle's sample, if one was frozen."""
    found = store.records(ExampleSet, latest=LATEST_SETS)
    return next((item for item in reversed(found) if item.name == _name(cycle)), None)


def sample_users(known: Sequence[Known], key: str, *, most: int) -> tuple[Known, ...]:
    """Return what belongs to a share of users, in an order that only a digest decides."""
    users = sorted({item.user for item in known}, key=lambda user: digest([key, user]))
    chosen = set(users[: int(HELD_OUT * len(users))])
    return tuple(item for item in known if item.user in chosen)[:most]


def _name(cycle: Cycle) -> str:
    return f"{TRAFFIC}-{cycle.id[:12]}"


# Open questions -----------------------------------------------------------------------------------

IntArray = NDArray[np.int64]
Redact = Callable[[Sequence[str]], Sequence[str]]


class SampleRules(BaseModel):
    """How open questions are drawn from traffic.

    Attributes:
        examples: Questions that are wanted.
        minimum: With fewer nothing is frozen, and the run waits for more traffic.
        per_user: Questions of one user at most; those of one user say little more than one.
        user_share: Share of users that may be held out; nothing that they wrote is trained on.
        flagged: Whether questions whose answers are flagged as unsafe, or were found so, may be
            drawn too.
        edition: The set that was frozen under this number serves every cycle. Another number draws
            a new set; users of earlier sets stay held out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    examples: Annotated[int, Field(ge=30, le=10_000)] = 300
    minimum: Annotated[int, Field(ge=30)] = 100
    per_user: Annotated[int, Field(ge=1)] = 2
    user_share: Annotated[float, Field(gt=0.0, le=0.5)] = HELD_OUT
    flagged: bool = False
    edition: Annotated[int, Field(ge=1)] = 1

    @property
    def name(self) -> str:
        """Name of the set."""
        return f"{SAMPLED}-{self.edition}"

    @property
    def fewest_answers(self) -> int:
        """How many answers there are at least before the fewest questions can be drawn."""
        return int(np.ceil(self.minimum / self.user_share))


def questions_set(store: EventStore, rules: SampleRules) -> ExampleSet | None:
    """Return the set that was frozen under these rules' edition; None before it was."""
    found = store.records(ExampleSet)
    return next((item for item in found if item.name == rules.name), None)


def freeze_questions(
    store: EventStore,
    outcomes: Outcomes,
    rules: SampleRules,
    *,
    redact: Redact,
    history: History,
    now: datetime,
    max_new_tokens: int,
    withheld: Collection[str] = (),
    trained: Collection[str] = (),
) -> ExampleSet:
    """Freeze what a random part of users asked, once.

    Users are drawn systematically, in the order of their segment and first message, so that each
    segment and each time has its share; a digest of the edition decides where the draw begins.

    Args:
        store: The store.
        outcomes: The interactions to draw from, oldest first; texts are not needed.
        rules: How many, of whom.
        redact: Takes personal data out of texts.
        history: Who refused before what the store holds.
        now: The time.
        max_new_tokens: Longest answer.
        withheld: Ids of interactions that wait for a safety review.
        trained: Ids of interactions that were trained on: none of their users is drawn.

    Raises:
        WaitingError: There is too little traffic; it says how much is needed.
    """
    frozen = questions_set(store, rules)
    if frozen is not None:
        return frozen
    usable = _answered(outcomes, rules, withheld)
    turns = _turns_by_user(outcomes, usable, trained, rules)
    kept = _draw(store, history, outcomes, turns, rules)
    if len(kept) < rules.minimum:
        raise WaitingError(_too_few(len(kept), turns, rules), "traffic", rules.minimum - len(kept))
    examples = _examples(kept, AskedWith.among(store, kept), redact)
    made = ExampleSet.freeze(rules.name, examples, now, max_new_tokens)
    store.append(made)
    return made


def _draw(
    store: EventStore,
    history: History,
    outcomes: Outcomes,
    turns: Sequence[UserTurns],
    rules: SampleRules,
) -> list[Interaction]:
    """Return what a draw gives; a larger one where many of the first may not be used."""
    available, wanted = sum(len(one.rows) for one in turns), rules.examples
    while True:
        users = draw_users(turns, rules, wanted)
        ids = [str(outcomes.interaction_ids[row]) for user in users for row in user.rows]
        refused, stored = not_for_good(store, history, ids), store.stored_interactions(ids)
        usable = [one for one in stored.values() if _is_whole(one) and one.id not in refused]
        requests = AskedWith.among(store, usable)
        kept = [one for one in _distinct(usable) if requests.fields(one) is not None]
        is_most = wanted >= rules.user_share * available
        if is_most or len(kept) >= ENOUGH * rules.examples:
            return kept
        wanted = int(wanted * min(2.0, rules.examples / max(1, len(kept)))) + 1


def _is_whole(interaction: Interaction) -> bool:
    """Tell whether a user asked something in words and got an answer: words, or calls of tools."""
    answer = bool(interaction.response.strip() or interaction.tool_calls)
    answered = interaction.messages[-1].role == "user" and answer
    return answered and reads_as_text(interaction.messages)


@dataclass(frozen=True, slots=True)
class UserTurns:
    """A user with the rows of what may be asked again.

    Attributes:
        segment: Of the first of them.
        first: When it came.
        rows: At most as many as one user may give.
    """

    user: str
    segment: str
    first: np.datetime64
    rows: tuple[int, ...]


def draw_users(users: Sequence[UserTurns], rules: SampleRules, wanted: int) -> list[UserTurns]:
    """Draw users systematically by segment and time; each has the same chance.

    Args:
        users: To draw from.
        rules: The share of them that may be drawn, and the edition.
        wanted: Questions to draw.
    """
    ordered = sorted(
        users, key=lambda one: (one.segment, one.first, digest([rules.name, one.user]))
    )
    turns = sum(len(one.rows) for one in ordered)
    share = min(rules.user_share, wanted / turns) if turns else 0.0
    start = draw_of(rules.name, "start")
    reached = np.floor(np.arange(len(ordered) + 1) * share + start)
    return [ordered[place] for place in np.flatnonzero(np.diff(reached))]


def _answered(outcomes: Outcomes, rules: SampleRules, withheld: Collection[str]) -> IntArray:
    """Return the rows of whole turns: answered without an error, and not flagged as unsafe."""
    usable = ~outcomes.failed_with_error
    if not rules.flagged:
        flagged = np.array([str(key) in withheld for key in outcomes.interaction_ids], np.bool_)
        usable &= ~flagged & (outcomes.unsafe != 1.0)
    return np.flatnonzero(usable)


def _turns_by_user(
    outcomes: Outcomes, usable: IntArray, trained: Collection[str], rules: SampleRules
) -> list[UserTurns]:
    learnt = {
        str(user)
        for key, user in zip(outcomes.interaction_ids, outcomes.user_ids, strict=True)
        if str(key) in trained
    }
    rows_of: dict[str, list[int]] = {}
    for row in usable.tolist():
        rows_of.setdefault(str(outcomes.user_ids[row]), []).append(row)
    return [
        UserTurns(
            user,
            str(outcomes.segments[rows[0]]),
            outcomes.created_at[rows[0]],
            tuple(
                sorted(
                    rows, key=lambda row: digest([rules.name, str(outcomes.interaction_ids[row])])
                )
            )[: rules.per_user],
        )
        for user, rows in rows_of.items()
        if user not in learnt
    ]


def _distinct(interactions: Sequence[Interaction]) -> Iterator[Interaction]:
    """Yield the interactions, of one question the first alone."""
    seen: set[Question] = set()
    for one in sorted(interactions, key=lambda item: (item.created_at, item.id)):
        question = question_of(one)
        if question[0] and question not in seen:
            seen.add(question)
            yield one


def _examples(
    interactions: Sequence[Interaction], asked_with: AskedWith, redact: Redact
) -> tuple[Example, ...]:
    """Return the conversations as examples, without personal data but for system prompts."""
    clean = with_conversations_changed([one.messages for one in interactions], redact)
    return tuple(
        Example(
            id=derive_id(SAMPLED, one.id),
            messages=said,
            user_id=user_digest(one.user_id),
            **(asked_with.fields(one) or {}),
        )
        for one, said in zip(interactions, clean, strict=True)
    )


def _too_few(found: int, users: Sequence[UserTurns], rules: SampleRules) -> str:
    each = found / len(users) if found else rules.user_share
    needed = int(np.ceil(rules.minimum / each))
    return (
        f"examples sampled from traffic need at least {rules.minimum} questions of at most "
        f"{rules.user_share:.0%} of users, got {found} of {len(users):,} users; that takes about "
        f"{needed:,} users: wait for more, bring a log in with `ratchet ingest`, name a file in "
        "collect.examples, or set collect.sample"
    )
