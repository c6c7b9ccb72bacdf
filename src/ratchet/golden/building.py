"""Build a version of the golden set out of what people said to be right, or of a file.

    made = refresh(store, home, history, GoldenRules(), now=now, open_tokens=512)

A version keeps what the one before has and adds what is new, held out in three ways:

- by user: a share of users, drawn by a digest, of whom nothing is trained on from then on; users
  of earlier training sets are left out;
- by time: what is right was said after the end of the traffic of every earlier training set;
- by text: a question that is close to one of an earlier training set is left out; later sets are
  decontaminated against every version.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ratchet.analyze.failures.regression_sets import longest_answer
from ratchet.doors.door import UNKNOWN_USER
from ratchet.errors import WaitingError
from ratchet.evaluation.example_files import read_examples
from ratchet.golden.answers import Right, find_right
from ratchet.golden.kinds import metric_for
from ratchet.golden.rules import GoldenRules
from ratchet.golden.versions import content_digest, frozen_examples, latest_version
from ratchet.improve.curation.dataset import (
    read_any_rows,
    trained_interactions,
)
from ratchet.improve.curation.decontamination import DecontaminationConfig, Guard
from ratchet.improve.curation.duplicates import DuplicateConfig, Signed, drop_near_duplicates
from ratchet.improve.curation.redacting import redacted_answers
from ratchet.improve.curation.shingles import compact
from ratchet.records import (
    GOLDEN,
    WIN_RATE,
    Cycle,
    Example,
    ExampleSet,
    GoldenVersion,
    Interaction,
    TrainingSet,
    derive_id,
    draw_of,
    user_digest,
    with_conversations_changed,
)
from ratchet.safety.redaction import RedactionConfig, redactor
from ratchet.store import EventStore
from ratchet.store.arrivals import last_position
from ratchet.store.cycles import held_out_users
from ratchet.store.history import History
from ratchet.store.right_answers import users_of


@dataclass(frozen=True, slots=True)
class Trained:
    """What models were trained on until now.

    Attributes:
        until: End of the latest traffic of a training set; None where there was none.
        interactions: Rows of sets that are on disk, by interaction.
        users: Their users.
        texts: What users say in them.
    """

    until: datetime | None
    interactions: frozenset[str]
    users: frozenset[str]
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a version would add, oldest first, and what could not be used, by reason.

    Attributes:
        before: Examples of the version before.
        said_after: End of the traffic of earlier training sets; what is right was said later.
    """

    right: tuple[Right, ...]
    set_aside: Counter[str]
    before: tuple[Example, ...]
    said_after: datetime | None


def refresh(
    store: EventStore,
    home: Path,
    history: History,
    rules: GoldenRules,
    *,
    now: datetime,
    open_tokens: int,
    asked: bool = False,
) -> GoldenVersion | None:
    """Make the next version where the rules say that one is due; None where none is.

    Args:
        store: The store.
        home: The home folder, which has the training sets.
        history: Who refused before what the store holds.
        rules: What counts, and when a version is due.
        now: The time.
        open_tokens: Longest answer to questions that have many right answers.
        asked: Whether a person asks for one: then one new example is enough for another version.

    Raises:
        WaitingError: A person asks, and there is too little.
    """
    latest = latest_version(store)
    if latest is not None and not asked and not rules.is_old(latest, now):
        return None
    found = draw(store, home, history, rules, latest=latest)
    new = len(found.right)
    why = rules.why_due(latest, new, now)
    if why is None and asked and new and latest is not None:
        why = "a person asked for it"
    if why is None:
        if asked:
            raise WaitingError(_too_few(found, rules, latest), "labels")
        return None
    added = _examples(found.right)
    anew = {example.id for example in added}
    kept = tuple(example for example in found.before if example.id not in anew)
    kept = kept[max(0, len(kept) + len(added) - rules.examples) :]
    added = added[-rules.examples :]
    sources = Counter(one.source for one in found.right[-rules.examples :])
    fields = {
        "kept": len(kept),
        "added": len(added),
        "retired": len(found.before) - len(kept),
        "sources": tuple(sorted(sources.items())),
        "set_aside": _by_number(found.set_aside),
        "said_after": found.said_after,
    }
    return _store(store, (*kept, *added), now, open_tokens, why, fields)


def from_file(store: EventStore, path: Path, *, now: datetime, open_tokens: int) -> GoldenVersion:
    """Make the next version of a file of examples; the same file again is the same version.

    Raises:
        InvalidInputError: The file breaks a rule.
    """
    latest = latest_version(store)
    examples = read_examples(path)
    if latest is not None and latest.digest == content_digest(examples):
        return latest
    before = () if latest is None else frozen_examples(store, latest).examples
    kept = len({example.id for example in before} & {example.id for example in examples})
    fields = {
        "kept": kept,
        "added": len(examples) - kept,
        "retired": len(before) - kept,
        "sources": (("file", len(examples)),),
        "origin": "file",
    }
    return _store(store, examples, now, open_tokens, "a file was given", fields)


def draw(
    store: EventStore,
    home: Path,
    history: History,
    rules: GoldenRules,
    *,
    latest: GoldenVersion | None,
) -> Drawn:
    """Return what the next version would add, held out by user, time and text.

    Args:
        store: The store.
        home: The home folder, which has the training sets.
        history: Who refused before what the store holds.
        rules: What counts.
        latest: The version before.
    """
    before = () if latest is None else frozen_examples(store, latest).examples
    since = 0 if latest is None else latest.heard
    found = find_right(store, history, rules, position=since)
    aside = Counter(found.set_aside)
    news = _news(found.right, before, latest)
    aside["in the version before"] += len(found.right) - len(news)
    if not news:
        return Drawn((), aside, before, None)
    trained = _trained(store, home)
    news = _after_training(news, trained, aside)
    news = _of_users_held_out(news, held_out_users(store), trained, rules, aside)
    news = _unlike_training(news, trained, aside)
    news = _unlike_each_other(news, before, aside)
    news = _capped(news, before, rules, aside)
    return Drawn(tuple(news), aside, before, trained.until)


def _news(
    right: Sequence[Right], before: Sequence[Example], latest: GoldenVersion | None
) -> list[Right]:
    """Leave out what the version before has, but for questions that were answered anew since."""
    known = {example.id for example in before}
    since = None if latest is None else latest.until
    return [
        one
        for one in right
        if _example_id(one) not in known or (since is not None and one.said_at > since)
    ]


def _after_training(right: Sequence[Right], trained: Trained, aside: Counter[str]) -> list[Right]:
    if trained.until is None:
        return list(right)
    kept = [one for one in right if one.said_at > trained.until]
    aside["said before the end of what was trained on"] += len(right) - len(kept)
    return kept


def _of_users_held_out(
    right: Sequence[Right],
    held_out: frozenset[str],
    trained: Trained,
    rules: GoldenRules,
    aside: Counter[str],
) -> list[Right]:
    """Return what users said that are held out already, or may be from now on."""
    kept = []
    for one in right:
        user = whose(one.interaction)
        if one.interaction.id in trained.interactions or user in trained.users:
            aside["its user was trained on"] += 1
        elif user_digest(user) in held_out or draw_of(GOLDEN, user) < rules.user_share:
            kept.append(one)
        else:
            aside["its user is not among those held out"] += 1
    return kept


def _unlike_training(right: Sequence[Right], trained: Trained, aside: Counter[str]) -> list[Right]:
    guard = Guard.build(trained.texts, DecontaminationConfig())
    reasons = guard.leaks([one.interaction.prompt for one in right])
    kept = [one for one, reason in zip(right, reasons, strict=True) if not reason]
    aside["close to what was trained on"] += len(right) - len(kept)
    return kept


def _unlike_each_other(
    right: Sequence[Right], before: Sequence[Example], aside: Counter[str]
) -> list[Right]:
    """Leave out near duplicates of earlier examples and of each other."""
    fresh = {_example_id(one) for one in right}
    asked = [example.prompt for example in before if example.id not in fresh]
    texts = [*asked, *(one.interaction.prompt for one in right)]
    with Signed(len(texts), DuplicateConfig()) as signed:
        if signed.needed:
            signed.put(np.arange(len(texts)), compact(texts))
        stays = drop_near_duplicates(signed)[len(asked) :]
    kept = [one for one, stay in zip(right, stays, strict=True) if stay]
    aside["a near duplicate"] += len(right) - len(kept)
    return kept


def _capped(
    right: Sequence[Right], before: Sequence[Example], rules: GoldenRules, aside: Counter[str]
) -> list[Right]:
    """Return at most so many of one user, with those that there are."""
    fresh = {_example_id(one) for one in right}
    given = Counter(example.user_id for example in before if example.id not in fresh)
    kept = []
    for one in right:
        user = user_digest(whose(one.interaction))
        given[user] += 1
        if given[user] <= rules.per_user:
            kept.append(one)
    aside["more than one user may give"] += len(right) - len(kept)
    return kept


def whose(interaction: Interaction) -> str:
    """Return who asked; where nobody says, the session stands for them."""
    nobody = interaction.user_id == UNKNOWN_USER
    return f"session {interaction.session_id}" if nobody else interaction.user_id


def _example_id(one: Right) -> str:
    return derive_id(GOLDEN, one.interaction.id)


def _examples(right: Sequence[Right]) -> tuple[Example, ...]:
    """Return questions and right answers without personal data; system prompts stay."""

    def redact(texts: Sequence[str]) -> Sequence[str]:
        return redactor(RedactionConfig()).redact(texts).texts

    said = with_conversations_changed([one.interaction.messages for one in right], redact)
    targets = redacted_answers([one.target for one in right], redact)
    return tuple(
        Example(
            id=_example_id(one),
            messages=messages,
            target=target,
            user_id=user_digest(whose(one.interaction)),
            **one.fields,
        )
        for one, messages, target in zip(right, said, targets, strict=True)
    )


def _store(
    store: EventStore,
    examples: tuple[Example, ...],
    now: datetime,
    open_tokens: int,
    why: str,
    fields: dict[str, Any],
) -> GoldenVersion:
    """Freeze examples and their version together."""
    metric, why_metric = metric_for(examples)
    longest = open_tokens if metric == WIN_RATE else longest_answer(examples)
    with store.atomic():
        number = max((one.number for one in store.records(GoldenVersion)), default=0) + 1
        frozen = ExampleSet.freeze(f"{GOLDEN}-{number}", examples, now, longest)
        version = GoldenVersion(
            id=f"{GOLDEN}-{number}",
            created_at=now,
            number=number,
            example_set_id=frozen.id,
            digest=content_digest(examples),
            metric=metric,
            why_metric=why_metric,
            examples=len(examples),
            users=len({example.user_id for example in examples if example.user_id}),
            until=now,
            heard=last_position(store).feedback,
            why=why,
            **fields,
        )
        store.append(frozen)
        store.append(version)
    return version


# What was trained on ------------------------------------------------------------------------------


def _trained(store: EventStore, home: Path) -> Trained:
    sets = store.records(TrainingSet, since=store.origins().found_since)
    interactions = trained_interactions(home, sets)
    return Trained(
        until=_trained_until(store, sets),
        interactions=interactions,
        users=frozenset(users_of(store, sorted(interactions)) - {UNKNOWN_USER}),
        texts=tuple(dict.fromkeys(_texts(home, sets))),
    )


def _trained_until(store: EventStore, sets: Sequence[TrainingSet]) -> datetime | None:
    """Return the end of the latest traffic that a set was made of."""
    ends = {cycle.id: cycle.window_end for cycle in store.records(Cycle)} if sets else {}
    return max((ends.get(one.cycle_id, one.created_at) for one in sets), default=None)


def _texts(home: Path, sets: Sequence[TrainingSet]) -> Iterator[str]:
    """Yield what users say in the rows of sets that are on disk."""
    for folder in dict.fromkeys(home / one.path for one in sets):
        if not folder.is_dir():
            continue
        for split in ("train", "validation"):
            for row in read_any_rows(folder, split):
                yield from (turn.text for turn in row.messages if turn.role == "user")


def _by_number(reasons: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple((reason, count) for reason, count in reasons.most_common() if count)


def _too_few(found: Drawn, rules: GoldenRules, latest: GoldenVersion | None) -> str:
    wanted = "1 new example" if latest else f"{rules.minimum} examples"
    left_out = "; ".join(f"{count} {why}" for why, count in _by_number(found.set_aside)[:4])
    return (
        f"a version of the golden set needs {wanted} with a right answer that people confirmed, "
        f"approved or named, got {len(found.right)} (left out: {left_out or 'nothing'}); decide "
        "more in `ratchet review`, count all corrections by `corrections: given`, or give a file "
        "by `ratchet golden build --from FILE`"
    )
