"""Adopting what a server serves already: its model becomes the champion under its own name.

    served = look(replicas)
    model = choose(served, asked)
    probe(replicas, model.name)
    adopt(store, tracker, model, served, by="ada", now=now)

Nothing of the model is loaded: the registry gets its name, the store a release and a routing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from ratchet.deploy.backends import Listed, Replica
from ratchet.deploy.routing import (
    REGISTRY_SECONDS,
    follow,
    reconcile,
    refuse_another,
    serving_champion,
    switch,
)
from ratchet.deploy.served import adoptions, served_name, served_names
from ratchet.errors import InvalidInputError, ModelError, TrackingError
from ratchet.records import Adoption, Candidate, Release, ServedName, derive_id
from ratchet.store import EVER, EventStore, Window
from ratchet.store.arrivals import count_answers, first_answer, last_answer, versions_in_use
from ratchet.tracking import Tracker

_LISTED = 20
_LONGEST_NAME = 60


@dataclass(frozen=True, slots=True)
class Served:
    """What the replicas of a backend answer to.

    Attributes:
        common: What every replica lists, in the first one's order.
    """

    common: tuple[Listed, ...]

    def named(self, name: str) -> Listed | None:
        """Return what is listed under a name."""
        return next((item for item in self.common if item.name == name), None)

    def other_names(self, model: Listed) -> tuple[str, ...]:
        """Return the other names that the server itself has for a model."""
        if model.root is None or model.parent is not None:
            return ()
        return tuple(
            item.name
            for item in self.common
            if item.root == model.root and item.parent is None and item.name != model.name
        )


@dataclass(frozen=True, slots=True)
class Recorded:
    """Answers that were recorded under one name.

    Attributes:
        answers: How many.
        first: Time of the first one.
        last: Time of the last one.
    """

    name: str
    answers: int
    first: datetime
    last: datetime


@dataclass(frozen=True, slots=True)
class Adopted:
    """What an adoption did.

    Attributes:
        version: What was adopted.
        champion: The champion now: another version where one was promoted since an adoption before.
        previous: What is kept for rollback.
        gone: The champion before, where the server lacks it.
        switched: Whether users are sent elsewhere than before.
        told: Whether the registry says so already.
    """

    version: str
    champion: str
    previous: str | None
    gone: str | None
    switched: bool
    told: bool


# Looking ------------------------------------------------------------------------------------------


def look(replicas: Iterable[Replica]) -> Served:
    """Ask every replica what it has.

    Raises:
        ModelError: One does not say, or two have different base models.
    """
    lists = [(replica.url, replica.listed()) for replica in replicas]
    bases = [(url, {item.name for item in listed if item.parent is None}) for url, listed in lists]
    for url, names in bases[1:]:
        if names != bases[0][1]:
            raise ModelError(
                "replicas must serve the same models, got "
                f"{_named(bases[0][1])} at {bases[0][0]} and {_named(names)} at {url}; start them "
                "alike, or adopt the backend of one of them"
            )
    shared = set.intersection(*({item.name for item in listed} for _, listed in lists))
    return Served(tuple(item for item in lists[0][1] if item.name in shared))


def choose(served: Served, asked: str | None) -> Listed:
    """Return the model to adopt: the one that is asked for, else the only base model.

    Raises:
        InvalidInputError: It is not listed, or there are several and none was asked for.
    """
    names = [item.name for item in served.common]
    if asked is not None:
        found = served.named(asked)
        if found is None:
            raise InvalidInputError(
                f"--model must be a name that every replica lists, got {asked!r}; they list "
                f"{_named(names)}"
            )
        return found
    bases = [item for item in served.common if item.parent is None]
    if not bases:
        raise ModelError(
            f"a backend must list a model at /v1/models, got {_named(names)}; wait until it has "
            "loaded one"
        )
    first = bases[0]
    if {first.name, *served.other_names(first)} == {item.name for item in bases}:
        return first
    raise InvalidInputError(
        f"the backend has several models, {_named([item.name for item in bases])}; say which one "
        "answers your users by --model"
    )


def probe(replicas: Iterable[Replica], name: str) -> None:
    """Have a model answer at every replica.

    Raises:
        ModelError: It does not.
    """
    for replica in replicas:
        replica.probe(name)


def recorded_answers(store: EventStore, now: datetime) -> list[Recorded]:
    """Return what was recorded until now by the name that it was recorded under, most first."""
    found = []
    for name in versions_in_use(store, EVER, now):
        window = Window(EVER, now, name)
        first, last = first_answer(store, window), last_answer(store, window)
        if first is not None and last is not None:
            found.append(Recorded(name, count_answers(store, window), first, last))
    return sorted(found, key=lambda item: (-item.answers, item.name))


def plain_name(served: str) -> str:
    """Return a name for the assistant, a plain word, out of what a server calls its model."""
    word = re.sub(r"[^a-z0-9.]+", "-", served.rstrip("/").rpartition("/")[2].lower()).strip("-.")
    return word[:_LONGEST_NAME].strip("-.") or "assistant"


# Adopting -----------------------------------------------------------------------------------------


def begin_adopting(
    store: EventStore, tracker: Tracker, names: Collection[str], name: str, now: datetime
) -> None:
    """See that a model may be adopted under these names, and that nothing before is unfinished.

    Raises:
        ConflictError: A rollout or a test of variants runs.
        InvalidInputError: A name is one of this home's versions.
        TrackingError: MLflow does not answer.
    """
    refuse_another(store)
    check_names(names, name, tracker.model_name)
    if not tracker.answers(within_seconds=REGISTRY_SECONDS):
        raise TrackingError(
            "adopting a model needs MLflow, which does not answer; start it, or correct "
            "MLFLOW_TRACKING_URI"
        )
    reconcile(store, tracker, now)


def adopt(
    store: EventStore,
    tracker: Tracker,
    model: Listed,
    served: Served,
    *,
    also: Collection[str] = (),
    by: str | None,
    now: datetime,
) -> Adopted:
    """Make a served model the champion; done again it completes what is missing, else nothing.

    Args:
        store: The store.
        tracker: The registry.
        model: What is adopted.
        served: What the backend has.
        also: Other names that the same model answered under.
        by: Who adopts it.
        now: The time.

    Raises:
        ConflictError: A rollout or a test of variants runs.
        InvalidInputError: A name of `also` is one of this home's versions.
        TrackingError: MLflow does not answer.
    """
    names = tuple(dict.fromkeys([*served.other_names(model), *also]))
    begin_adopting(store, tracker, names, model.name, now)
    version = tracker.register_served(model.name)
    reference, before = version.reference, champion_now(store, tracker)
    replaced = before if before != reference else None
    kept = replaced if replaced and served.named(served_name(store, replaced)) else None
    release = Release(
        id=derive_id("release", "adopt", reference, now.isoformat()),
        created_at=now,
        action="adopt",
        champion=reference,
        previous=kept,
        by=by,
    )
    if replaced and was_promoted_over(store, replaced, reference):
        note_adoption(store, reference, names, model.parent, by, now)
        return Adopted(reference, replaced, _previous(store), None, switched=False, told=True)
    switched, told = replaced is not None or store.latest(Release) is None, True
    with store.atomic():
        name_version(store, reference, model.name, now)
        note_adoption(store, reference, names, model.parent, by, now)
        if switched:
            move = switch(store, release, by="adoption")
    if switched:
        told = follow(store, tracker, move, now)
    elif tracker.champion() != version:
        tracker.move_champion(reference, _previous(store))
    gone = None if kept else replaced
    return Adopted(reference, reference, _previous(store), gone, switched=switched, told=told)


def was_promoted_over(store: EventStore, champion: str, adopted: str) -> bool:
    """Tell whether a champion was trained here and promoted since a model was adopted.

    To adopt that model again, for another name or by habit, does not undo the promotion.
    """
    trained = {item.reference for item in store.records(Candidate)}
    return champion in trained and adopted in adoptions(store)


def check_names(names: Collection[str], model: str, assistant: str) -> None:
    """Refuse names that stand for something else.

    Raises:
        InvalidInputError: One is an alias, or has the form of this home's own versions.
    """
    for name in names:
        own = name.startswith(f"{assistant}/") and name.rpartition("/")[2].isdigit()
        if own or name in ("champion", "challenger", "previous"):
            raise InvalidInputError(
                f"another name of {model} must be one that applications or logs use, got {name!r}, "
                "which stands for a version of this home; leave it out"
            )


def map_version(
    store: EventStore, tracker: Tracker, served: Served, version: str, name: str, now: datetime
) -> bool:
    """Record that the backend answers as a version under a name; False where it was known.

    Raises:
        InvalidInputError: Not every replica lists the name.
        TrackingError: There is no such version.
    """
    model = choose(served, name)
    reference = tracker.version(version).reference
    with store.atomic():
        return name_version(store, reference, model.name, now)


def name_version(store: EventStore, version: str, name: str, now: datetime) -> bool:
    """Record the backend's name of a version; False where the latest record says the same."""
    if served_names(store).get(version) == name:
        return False
    return store.append(
        ServedName(
            id=derive_id("served", version, name, now.isoformat()),
            created_at=now,
            version=version,
            name=name,
        )
    )


def note_adoption(
    store: EventStore,
    version: str,
    names: tuple[str, ...],
    parent: str | None,
    by: str | None,
    now: datetime,
    *,
    elsewhere: bool = False,
) -> None:
    """Record how a version was adopted; nothing where the latest record says the same."""
    known = adoptions(store).get(version)
    same = known is not None and (known.parent, known.elsewhere) == (parent, elsewhere)
    if known is not None and same and set(names) <= set(known.also):
        return
    store.append(
        Adoption(
            id=derive_id("adoption", version, *names, now.isoformat()),
            created_at=now,
            version=version,
            also=names,
            parent=parent,
            by=by,
            elsewhere=elsewhere,
        )
    )


def champion_now(store: EventStore, tracker: Tracker) -> str | None:
    """Return who answers users until now: as the store says, else as the registry does."""
    serving = serving_champion(store)
    if serving is not None:
        return serving.version
    champion = tracker.champion()
    return None if champion is None else champion.reference


def _previous(store: EventStore) -> str | None:
    release = store.latest(Release)
    return None if release is None else release.previous


def _named(names: Collection[str] | Sequence[str]) -> str:
    shown = list(names) if isinstance(names, Sequence) else sorted(names)
    more = f" and {len(shown) - _LISTED} more" if len(shown) > _LISTED else ""
    return (", ".join(shown[:_LISTED]) or "nothing") + more
