"""Sources that a schedule brings in: what `ratchet import` takes, written down once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ratchet.collect.recognising import Recogniser
from ratchet.collect.report import IngestReport
from ratchet.doors.following import follow_source
from ratchet.doors.importing import Import, Preview, prepare, preview
from ratchet.doors.mapping import ImportMap, read_map
from ratchet.doors.pages import look, preview_server
from ratchet.doors.servers import Access, given_of, is_server, server_of
from ratchet.errors import RatchetError
from ratchet.files.moments import read_moment
from ratchet.files.text import counted, printable
from ratchet.store import EventStore
from ratchet.store.history import History


class Source(BaseModel):
    """One source, as the options of `ratchet import` say it.

    Attributes:
        source: File, folder, pattern, address, or a server (`mlflow:...`, `langfuse:...`).
        format: Its door, where its rows do not show it (`--as`).
        map: YAML file that says what scores mean and which column holds what (`--map`).
        since: From when on (`--since`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Annotated[str, Field(min_length=1)]
    format: str | None = None
    map: Path | None = None
    since: str | None = None

    def prepared(self, now: datetime) -> Import:
        """Find its files and format; nothing is stored.

        Raises:
            InvalidInputError: There are no files, or the format is not known.
        """
        return prepare(
            self.source,
            now=now,
            as_format=self.format,
            mapping=self._mapping(),
            since=self._begin(now),
        )

    def previewed(self, access: Access, now: datetime) -> tuple[str, Preview]:
        """Return its format, and what it would bring; of a server, what its first pages would.

        Raises:
            RatchetError: It cannot be read.
        """
        if is_server(self.source):
            server = server_of(self.source, access, as_format=self.format)
            given = given_of(server, self._mapping(), now)
            return server.door.name, preview_server(server, given, since=self._begin(now), now=now)
        what = self.prepared(now)
        return what.door.name, preview(what)

    def brought(
        self, store: EventStore, history: History | None, access: Access, now: datetime
    ) -> Iterator[IngestReport]:
        """Store what is new since its cursor.

        Raises:
            RatchetError: It cannot be read.
        """
        if not is_server(self.source):
            yield from follow_source(self.prepared(now), store, history, wait=lambda: False)
            return
        server = server_of(self.source, access, as_format=self.format)
        given, known = given_of(server, self._mapping(), now), Recogniser(store, history)
        yield from look(server, given, store, since=self._begin(now), known=known, now=now)

    def _mapping(self) -> ImportMap | None:
        return read_map(self.map) if self.map else None

    def _begin(self, now: datetime) -> datetime | None:
        return read_moment(self.since, now) if self.since else None


@dataclass(frozen=True, slots=True)
class Harvest:
    """What a source brought since the last time.

    Attributes:
        failed: Why nothing more could be read; empty where all could.
    """

    source: str
    interactions: int
    feedback: int
    set_aside: int
    failed: str = ""

    @property
    def in_words(self) -> str:
        """One line for people."""
        name = printable(self.source)
        brought = (
            f"{name}: {counted(self.interactions, 'interaction')} and "
            f"{counted(self.feedback, 'piece')} of feedback that are new, "
            f"{counted(self.set_aside, 'row')} set aside"
        )
        return f"{brought}; it cannot be read: {self.failed}" if self.failed else brought


def harvest(
    sources: Iterable[Source],
    store: EventStore,
    history: History | None,
    access: Access,
    now: datetime,
) -> Iterator[Harvest]:
    """Bring in what sources hold since their cursors; one that fails does not stop the others."""
    for one in sources:
        interactions = feedback = set_aside = 0
        failed = ""
        try:
            for report in one.brought(store, history, access, now):
                interactions += report.interactions
                feedback += report.feedback
                set_aside += report.set_aside
        except (RatchetError, OSError) as error:
            failed = str(error)
        yield Harvest(one.source, interactions, feedback, set_aside, failed)
