"""Lines that are missing from the log: their numbers jump, or they are damaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ratchet.gateway.log_lines import Entry, Header
from ratchet.records import AlertEvent, derive_id

SUBJECT = "gateway"
"""Version that an alert about the log names: what is lost may be of any."""
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Gaps:
    """What was noticed so far.

    `look` returns the next state, so that a transaction that fails counts nothing twice.

    Attributes:
        lost: Acknowledged lines that did not reach the store.
        places: Where the latest were, as an alert says it.
    """

    lost: int = 0
    places: tuple[str, ...] = ()
    _next: dict[str, int] = field(default_factory=dict)

    def begin(self, segment: str, header: Header) -> None:
        """Take note of the number that a segment begins with."""
        self._next.setdefault(segment, header.first)

    def forget(self, segment: str) -> None:
        """Drop what is known of a segment that is gone."""
        self._next.pop(segment, None)

    def look(self, entries: Sequence[Entry]) -> Gaps:
        """Return what is known after these lines, with the losses that they show."""
        following, lost = dict(self._next), self.lost
        places: list[str] = []
        for entry in entries:
            expected = following.get(entry.segment)
            if entry.is_damaged:
                lost += 1
                places.append(f"{entry.segment} at {entry.start}: damaged")
                if expected is not None:
                    following[entry.segment] = expected + 1
            elif entry.number is not None:
                if expected is not None and entry.number > expected:
                    lost += entry.number - expected
                    where = f"{entry.segment} at {entry.start}"
                    places.append(f"{where}: line {expected} expected, got {entry.number}")
                following[entry.segment] = entry.number + 1
        return Gaps(lost, tuple(places), following)

    def alert(self, now: datetime) -> AlertEvent | None:
        """Return the alert about what the last `look` found; None where it found nothing."""
        if not self.places:
            return None
        alert_id = derive_id("log", *self.places)
        shown = "; ".join(self.places[:_SHOWN])
        return AlertEvent(
            id=derive_id(alert_id, "opened"),
            alert_id=alert_id,
            created_at=now,
            change="opened",
            kind="pipeline",
            severity="critical",
            model_version=SUBJECT,
            signal="log",
            since=now,
            value=float(self.lost),
            lower=float(self.lost),
            upper=float(self.lost),
            expected=0.0,
            observations=len(self.places),
            certainty="lines are numbered and carry checksums; no estimate",
            message=(
                f"lines of the gateway's log are missing or damaged, {self.lost} since the gateway "
                f"started: {shown}"
            ),
            action=(
                "What was acknowledged in them is not in the store. Look at the disk and its file "
                "system (`dmesg`), and at who deletes files in the home's gateway/wal."
            ),
        )
