"""How an application reports a yes or no: what it means that none came.

A page may send "copied" and "seen not to", or only "copied". Of one that sends the yes alone, every
rate among what was sent is 100 %. Only the application can tell, so it is declared:

    ratchet signals declare copy regenerate --application shop --reported when-it-happens
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator

from ratchet.records.base import Identifier, Record, Text, UtcTime
from ratchet.records.signals import FEEDBACK_SIGNALS, TRAFFIC_KINDS

Reported = Literal["both", "when it happens", "never"]
DECLARABLE_KINDS: Final = tuple(
    signal.name for signal in FEEDBACK_SIGNALS if signal.absence == "declared"
)
"""Kinds of which an application may send the yes alone."""
EVERY_APPLICATION: Final = "*"
MOST_DAYS: Final = 30


class SignalDeclaration(Record):
    """How an application reports one kind of feedback from a time on.

    It holds for answers given at `since` or later, until one that was written later takes over. One
    of an application goes before one of all applications.

    Attributes:
        application: Its name, or `*` for every application that has none of its own.
        kind: The kind of feedback.
        reported: Whether yes and no are sent (`both`); whether the yes alone is, so that an answer
            without one after `after_seconds` is a no (`when it happens`); or whether what is sent
            says nothing and is not counted (`never`).
        since: The first answer that it holds for.
        after_seconds: Age of an answer at which no event means no.
        by: Who declares it.
        note: Why.
    """

    id: Identifier
    created_at: UtcTime
    application: Identifier
    kind: Identifier
    reported: Reported
    since: UtcTime
    after_seconds: Annotated[float, Field(ge=0.0, le=MOST_DAYS * 86_400.0)] = 600.0
    by: Identifier
    note: Text | None = None

    @field_validator("kind")
    @classmethod
    def _may_be_declared(cls, kind: str) -> str:
        if kind not in DECLARABLE_KINDS:
            raise ValueError(
                f"kind must be a yes or no ({', '.join(DECLARABLE_KINDS)}); of all other kinds it "
                "is known what absence means, so leave it out"
            )
        return kind

    @property
    def after(self) -> timedelta:
        """The settling time."""
        return timedelta(seconds=self.after_seconds)


class SignalSwitch(Record):
    """That a kind of signal is derived from the traffic no longer, or again; the latest one counts.

    Attributes:
        kind: The kind of signal.
        off: Whether it is derived no longer.
        by: Who says so.
        note: Why.
    """

    id: Identifier
    created_at: UtcTime
    kind: Identifier
    off: bool
    by: Identifier
    note: Text = ""

    @field_validator("kind")
    @classmethod
    def _is_derived(cls, kind: str) -> str:
        if kind not in TRAFFIC_KINDS:
            raise ValueError(
                f"a signal that is switched off or on must be derived from the traffic "
                f"({', '.join(TRAFFIC_KINDS)}); name one of these"
            )
        return kind
