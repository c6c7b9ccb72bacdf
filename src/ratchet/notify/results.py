"""What a channel is, and what came of a message.

What a channel says of a failure is made of status and reply, never of an address or a secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from ratchet.notify.messages import Message


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a message.

    Attributes:
        arrived: Whether the other side took it.
        said: What it said, on one line.
        again_after: How long it asks to wait.
        hopeless: Whether the same message will never be taken.
    """

    arrived: bool
    said: str = ""
    again_after: timedelta | None = None
    hopeless: bool = False


class Channel(Protocol):
    """A way to people."""

    @property
    def key(self) -> str:
        """What tells its messages from those of other channels."""

    @property
    def shown(self) -> str:
        """What it is called in records and on the terminal."""

    def send(self, message: Message, *, now: datetime) -> Result:
        """Send a message once; nothing is raised."""
