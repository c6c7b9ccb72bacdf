"""Sources that a schedule brings in: what `ratchet import` takes, written down once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ratchet.doors.following import follow_source
from ratchet.doors.importing import Import, prepare
from ratchet.doors.mapping import read_map
from ratchet.errors import RatchetError
from ratchet.files.moments import read_moment
from ratchet.files.text import counted, printable
from ratchet.store import EventStore
from ratchet.store.history import History


class Source(BaseModel):
    """One source, as the options of `ratchet import` say it.

    Attributes:
        source: File, folder, pattern or address.
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
            mapping=read_map(self.map) if self.map else None,
            since=read_moment(self.since, now) if self.since else None,
        )


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
    sources: Iterable[Source], store: EventStore, history: History | None, now: datetime
) -> Iterator[Harvest]:
    """Bring in what sources hold since their cursors; one that fails does not stop the others."""
    for one in sources:
        interactions = feedback = set_aside = 0
        failed = ""
        try:
            for report in follow_source(one.prepared(now), store, history, wait=lambda: False):
                interactions += report.interactions
                feedback += report.feedback
                set_aside += report.set_aside
        except (RatchetError, OSError) as error:
            failed = str(error)
        yield Harvest(one.source, interactions, feedback, set_aside, failed)
