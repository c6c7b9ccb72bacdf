"""The store as a gateway sees it: opened when it can be, and what it said last kept beside it.

A gateway starts and answers while its database is down, by the routing and the keys that it read
last. They are in `gateway/routing.json` in the home, which each process writes when it reads
something new. Keys are there as in the store: their hashes.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ratchet.errors import InvalidInputError, RatchetError, StoreReplacedError
from ratchet.files.whole import write_whole
from ratchet.gateway.routing import State
from ratchet.records import ApiKey, ApiKeyTerms, Routing
from ratchet.settings import Settings
from ratchet.store import EventStore
from ratchet.store.standing import FileGuard, Identity, file_of, with_short_wait

logger = logging.getLogger(__name__)


class StoreAwayError(RatchetError):
    """The store does not open now."""


class _Known(BaseModel):
    """A `State` as it is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    read_at: datetime
    store: str
    routing: Routing | None
    adapters: Mapping[str, Path | None]
    names: Mapping[str, str]
    adopted: tuple[str, ...]
    keys: tuple[ApiKey, ...]
    terms: tuple[ApiKeyTerms, ...]
    needs_key: bool


class LastKnown:
    """The file of what a store said last."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.path = folder / "routing.json"
        self._store = hashlib.sha256(settings.store_url.encode()).hexdigest()

    def write(self, state: State, now: datetime) -> None:
        """Keep a state; the file is whole at any moment. Where that fails, the one before stays."""
        known = _Known(
            read_at=now,
            store=self._store,
            routing=state.routing,
            adapters=state.adapters,
            names=state.names,
            adopted=state.adopted,
            keys=tuple(state.keys.values()),
            terms=tuple(state.terms.values()),
            needs_key=state.needs_key,
        )
        try:
            write_whole(self.path, known.model_dump_json().encode())
        except OSError as error:
            logger.warning("what the store says now cannot be kept in %s: %s", self.path, error)

    def read(self) -> tuple[State, datetime] | None:
        """Return what was kept and when it was read; None where nothing usable is there.

        What another store said counts as nothing.
        """
        try:
            known = _Known.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.warning("%s cannot be used: %s", self.path, error)
            return None
        if known.store != self._store:
            return None
        state = State(
            routing=known.routing,
            adapters=known.adapters,
            names=known.names,
            adopted=known.adopted,
            keys={key.id: key for key in known.keys},
            terms={terms.id: terms for terms in known.terms},
            needs_key=known.needs_key,
        )
        return state, known.read_at

    def state(self) -> State | None:
        """Return the state that was kept; None where nothing usable is there."""
        found = self.read()
        return None if found is None else found[0]


class StoreLink:
    """A store that is opened when it is needed and can be.

    Attributes:
        known: What it said last.
    """

    def __init__(
        self,
        settings: Settings,
        known: LastKnown,
        *,
        connections: int | None = None,
        expected: Identity | None = None,
    ) -> None:
        """Open nothing yet.

        Args:
            settings: Say where the store is.
            known: What it said last.
            connections: To PostgreSQL.
            expected: The file that another process of this gateway has open as the store.
        """
        self._settings, self.known, self._connections = settings, known, connections
        self._expected = expected
        self._store: EventStore | None = None
        self._lock = threading.Lock()

    def get(self) -> EventStore:
        """Return the store, opened now where it was not before.

        Raises:
            StoreAwayError: It does not open, or its file is gone.
            StoreReplacedError: Its file is another one than before.
            RatchetError: It is not this assistant's, or its URL is none.
        """
        with self._lock:
            if self._store is None:
                self._store = self._open()
            return self._store

    @property
    def identity(self) -> Identity | None:
        """The store's file as it was opened; None where it is none, or was not opened yet."""
        return self._expected if self._store is None else self._store.file_identity

    def problem(self) -> str | None:
        """Say why nothing may be acknowledged: the store's file is not the one that was opened."""
        store = self._store
        try:
            if store is not None:
                store.check_file()
            else:
                self._see_file()
        except (StoreReplacedError, StoreAwayError) as error:
            return str(error)
        return None

    def close(self) -> None:
        """Let go of the store."""
        with self._lock:
            if self._store is not None:
                self._store.close()

    def _open(self) -> EventStore:
        settings = self._settings
        self._see_file()
        try:
            return EventStore.open(
                with_short_wait(settings.store_url),
                assistant=settings.model_name,
                connections=self._connections,
            )
        except InvalidInputError as error:
            if self.known.read() is None:
                raise
            raise StoreAwayError(str(error)) from error

    def _see_file(self) -> None:
        """Refuse to make an empty store in the place of one that is gone."""
        path = file_of(self._settings.store_url)
        if path is None:
            return
        FileGuard(path, self._expected).check()
        if path.exists() or self.known.read() is None:
            return
        raise StoreAwayError(
            f"the store must be there as it was before, got no file {path}; restore it, or delete "
            f"{self.known.path} to begin with an empty store and without keys"
        )
