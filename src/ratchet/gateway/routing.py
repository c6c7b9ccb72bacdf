"""Who answers a request: read from the store every second, held in memory.

A canary, a promotion or a rollback writes a `Routing` to the store's journal, and every gateway
process follows within a second. MLflow is not asked. Where there is no routing, or a release is
younger than it, the champion of the latest release answers. While the store cannot be read, what
it said last holds, also in a process that starts meanwhile (`ratchet.gateway.known`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from ratchet.deploy.adapters import AdapterShelf
from ratchet.deploy.routing import current_routing
from ratchet.deploy.served import adoptions, served_names
from ratchet.gateway.backends import Target
from ratchet.records import (
    Adoption,
    ApiKey,
    ApiKeyRevocation,
    ApiKeyTerms,
    Candidate,
    Release,
    Routing,
    RoutingFollowed,
    ServedName,
    Variant,
    derive_id,
)
from ratchet.store import EventStore

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
SILENT_SECONDS = 15.0
"""After so long without an answer of the store, `/healthz` says so."""
READ = (
    Adoption, ApiKey, ApiKeyRevocation, ApiKeyTerms, Candidate, Release, Routing, ServedName
)  # fmt: skip
"""What the state is made of."""
NO_HEADERS: Mapping[str, str] = {}
ALIASES = ("champion", "challenger", "previous")


class UnknownModelError(Exception):
    """A request names a version or an alias that does not answer.

    Attributes:
        name: The name.
        why: Why it does not answer.
        names: Those that do.
    """

    def __init__(self, name: str, why: str, names: Sequence[str]) -> None:
        super().__init__(f"{name}: {why}")
        self.name, self.why, self.names = name, why, tuple(names)


@dataclass(frozen=True, slots=True)
class RoutingPlan:
    """Who is to answer one request, and who instead.

    Attributes:
        variant: The arm.
        experiment: The routing's experiment; None where a version was asked for by name.
        previous: The version to fall back to.
    """

    variant: Variant
    experiment: str | None
    previous: str | None


@dataclass(frozen=True, slots=True)
class State:
    """What the store said last.

    Attributes:
        routing: Who is sent where; None before anything was released.
        adapters: Folder of each version's adapter, None for a base model.
        names: What the backend calls versions, where that is not their own name.
        adopted: Names of adopted models: applications ask by them for "the model".
        keys: Keys that open the gateway, by id.
        terms: What they may do and until when, by their ids.
        needs_key: Whether a key was ever made; a store whose keys are all revoked is shut.
    """

    routing: Routing | None = None
    adapters: Mapping[str, Path | None] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    adopted: tuple[str, ...] = ()
    keys: Mapping[str, ApiKey] = field(default_factory=dict)
    terms: Mapping[str, ApiKeyTerms] = field(default_factory=dict)
    needs_key: bool = False

    @property
    def served(self) -> tuple[str, ...]:
        """The versions that the routing names, the one to fall back to last."""
        if self.routing is None:
            return ()
        named = [*(variant.version for variant in self.routing.variants), self.routing.previous]
        return tuple(dict.fromkeys(version for version in named if version))

    @property
    def chosen(self) -> tuple[str, ...]:
        """The versions that the routing sends users to."""
        return () if self.routing is None else tuple(v.version for v in self.routing.variants)

    def target(self, version: str, headers: Mapping[str, str] = NO_HEADERS) -> Target:
        """Return what a backend is asked for a version, and the headers that it gets with it."""
        return Target(version, self.adapters.get(version), self.names.get(version), headers)

    @property
    def aliases(self) -> dict[str, str]:
        """What `champion`, `challenger` and `previous` stand for."""
        if self.routing is None:
            return {}
        *others, last = self.routing.variants
        found = {"champion": last.version}
        if others:
            found["challenger"] = others[0].version
        if self.routing.previous:
            found["previous"] = self.routing.previous
        return found


class Router:
    """See the module's text.

    Attributes:
        state: What holds.
        held: Why the store's routing is not followed; None where it is.
        away: Why the store cannot be read now; None where it can.
    """

    def __init__(
        self,
        store: Callable[[], EventStore],
        *,
        home: Path,
        default: str | None,
        on_change: Callable[[State], None] = lambda _state: None,
        has: Callable[[State, str], bool] = lambda _state, _version: True,
        shelf: AdapterShelf | None = None,
        asks_for: str | None = None,
        known: Callable[[], State | None] = lambda: None,
        remember: Callable[[State, datetime], None] = lambda _state, _now: None,
    ) -> None:
        """Begin with nothing read.

        Args:
            store: Returns the store, or raises while it is away.
            home: Its adapters lie there.
            default: The local model's name, which answers before anything was released.
            on_change: Told of a new state before anybody is sent there.
            has: Tells whether a version that no routing names would be answered.
            shelf: Where adapters lie for the backend; by default in the home.
            asks_for: The one name that the backend is asked for, whatever the version.
            known: Returns what the store said last, which holds while it is away.
            remember: Keeps what it says.
        """
        self._store, self._default, self._remember = store, default, remember
        self._known = known
        self._shelf = shelf or AdapterShelf(home)
        self._on_change, self._has, self._asks_for = on_change, has, asks_for
        self.held: str | None = None
        self.away: str | None = None
        self._read_at = time.monotonic()
        self._process = f"{socket.gethostname()}:{os.getpid()}"
        self.state = State()
        self._seen: dict[str, int] | None = None

    def refresh(self) -> None:
        """Read the store once, if it holds anything new."""
        store = self._store()
        seen = store.last_positions(READ)
        self._read_at = time.monotonic()
        if seen == self._seen and not self._lacks_adapter():
            return
        before, found = self.state, read_state(store, self._shelf)
        is_first = self._seen is None
        self._seen = seen
        self._take(store, before, found, is_first=is_first)

    def _lacks_adapter(self) -> bool:
        """Whether the local model waits for an adapter, which may come to another folder."""
        wanted = wanted_adapters(self.state).values() if self._default is not None else ()
        return any(not folder.exists() for folder in wanted)

    def _take(self, store: EventStore, before: State, found: State, *, is_first: bool) -> None:
        """Follow what was read."""
        self.held = several_versions(found, self._asks_for)
        if self.held is not None:
            logger.error("the routing is not followed: %s", self.held)
            found = replace(found, routing=before.routing or _champion_alone(found.routing))
        if found != before:
            self._on_change(found)  # loads adapters, before anybody is sent to them
            self.state = found
        if is_first or found != before:
            self._remember(found, datetime.now(UTC))
        if found.routing is None or self.held is not None:
            return
        if is_first or found.routing != before.routing:
            self._say_so(store, found.routing, datetime.now(UTC))

    def _say_so(self, store: EventStore, routing: Routing, now: datetime) -> None:
        """Record that this process follows a routing: a rollback's effect can be read from it."""
        asked = [self._asks_for] if self._asks_for else []
        followed = RoutingFollowed(
            id=derive_id("followed", routing.id, self._process, *asked),
            created_at=now,
            routing_id=routing.id,
            process=self._process,
            asks_for=self._asks_for,
        )
        try:
            if store.get(RoutingFollowed, followed.id) is None:
                store.append(followed)
        except Exception as error:
            logger.warning("that the routing is followed cannot be recorded: %s", error)

    def begin(self) -> None:
        """Read the store for the first time; while it is away, what is known holds."""
        try:
            self.refresh()
        except Exception as error:
            known = self._known()
            if known is None:
                raise
            self._note(error)
            self._on_change(known)
            self.state = known

    async def follow(self) -> None:
        """Read the store every second, for ever; what was read last holds while it fails."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await asyncio.to_thread(self.refresh)
                self.away = None
            except Exception as error:
                self._note(error)

    def unread(self) -> str | None:
        """Say why the store was not read lately; None where it was."""
        seconds = time.monotonic() - self._read_at
        if self.away is None and seconds > SILENT_SECONDS:
            return f"the store has not answered for {seconds:.0f} s"
        return self.away

    def _note(self, error: Exception) -> None:
        if self.away is None:
            logger.warning("the routing cannot be read, the last one holds: %s", error)
        self.away = str(error)

    def plan(self, requested: str, user_id: str) -> RoutingPlan:
        """Return who answers.

        A version or an alias asked for by name answers itself. Any other name is an application's
        own for "the model", and the routing decides; so does it for a name of an adopted model,
        which its applications sent before there was any other. Before anything was released, the
        name goes to the backend as it is, and to the local model in any case.

        Raises:
            UnknownModelError: It is an alias of nothing, or a version that does not answer.
        """
        state = self.state
        if requested in ALIASES:
            if requested not in state.aliases:
                raise UnknownModelError(requested, f"there is no {requested} now", self.names())
            return RoutingPlan(Variant(version=state.aliases[requested], share=1.0), None, None)
        if self.is_version(requested):
            if not self._answers(requested):
                raise UnknownModelError(requested, "it is not loaded", self.names())
            return RoutingPlan(Variant(version=requested, share=1.0), None, None)
        if state.routing is None:
            return RoutingPlan(Variant(version=self._default or requested, share=1.0), None, None)
        chosen = state.routing.choose(user_id)
        return RoutingPlan(chosen, state.routing.experiment, state.routing.previous)

    def choose(self, user_id: str) -> str | None:
        """Return the version that a user is sent to; None before anything was released."""
        routing = self.state.routing
        return None if routing is None else routing.choose(user_id).version

    def is_version(self, name: str) -> bool:
        """Tell whether a requested name is a version of this home; an adopted model's is none."""
        state = self.state
        if name in state.adopted:
            return False
        ours = [version for version in state.adapters if version not in state.adopted]
        own = {version.rpartition("/")[0] for version in ours if "/" in version}
        of, _, number = name.rpartition("/")
        return name in state.adapters or (of in own and number.isdecimal())

    def names(self) -> list[str]:
        """Return the names that a request may give as its model: those that are answered."""
        state = self.state
        versions = [version for version in state.adapters if self._answers(version)]
        asked = state.adopted if state.routing is not None else ()
        return list(dict.fromkeys([*state.aliases, *versions, *asked]))

    def _answers(self, version: str) -> bool:
        state = self.state
        return version in state.served or (version in state.adapters and self._has(state, version))


def wanted_adapters(state: State) -> dict[str, Path]:
    """Return the versions with an adapter that the routing names, with their folders."""
    found = {version: state.adapters.get(version) for version in state.served}
    return {version: folder for version, folder in found.items() if folder is not None}


def several_versions(state: State, asks_for: str | None) -> str | None:
    """Say why one name of a backend cannot answer as a routing; None where it can."""
    if asks_for is None or len(state.served) <= 1:
        return None
    return (
        f"--backend-model {asks_for} would record the answers of one model as several versions, "
        f"got a routing to {', '.join(state.served)}; leave it out, and `ratchet adopt` says which "
        "version the backend's name is"
    )


def _champion_alone(routing: Routing | None) -> Routing | None:
    if routing is None:
        return None
    champion = routing.variants[-1].model_copy(update={"share": 1.0})
    return routing.model_copy(update={"variants": (champion,), "previous": None})


def read_keys(
    store: EventStore,
) -> tuple[dict[str, ApiKey], dict[str, ApiKeyTerms], bool]:
    """Return keys not revoked and their terms, by id, and whether a key was ever made."""
    revoked = {item.id for item in store.records(ApiKeyRevocation)}
    made = store.records(ApiKey)
    keys = {key.id: key for key in made if key.id not in revoked}
    terms = {item.id: item for item in store.records(ApiKeyTerms)}  # written before their keys
    return keys, terms, bool(made)


def read_state(store: EventStore, shelf: AdapterShelf) -> State:
    """Return what the store says now."""
    routing = current_routing(store)
    adapters: dict[str, Path | None] = {
        candidate.reference: shelf.find(candidate) for candidate in store.records(Candidate)
    }
    if routing is not None:
        versions = [variant.version for variant in routing.variants]
        for version in (*versions, *((routing.previous,) if routing.previous else ())):
            adapters.setdefault(version, None)
    keys, terms, needs_key = read_keys(store)
    return State(
        routing=routing,
        adapters=adapters,
        names=served_names(store),
        adopted=tuple(dict.fromkeys(n for item in adoptions(store).values() for n in item.names)),
        keys=keys,
        terms=terms,
        needs_key=needs_key,
    )
