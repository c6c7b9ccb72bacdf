"""The application of the demonstration: its users talk to a gateway, once each.

It keeps a file of what was answered and what was said of it, as an application has a database of
its own: stopped and started again, it goes on with what is left.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ratchet.demo.plan import DemoOptions, by_session
from ratchet.errors import RatchetError
from ratchet.records import LabelledMessage
from ratchet.records.events import ORIGIN, SIMULATED
from ratchet.simulation.live import Answered, Ask, LiveUsers
from ratchet.simulation.traffic import Visit

logger = logging.getLogger(__name__)

APPLICATION = "support desk"
_ROUNDS = 3
_TOLD_EVERY = 64
_OVER: dict[str, str | None] = {"visit": None}


@dataclass(slots=True)
class Asking:
    """See the module's text.

    Attributes:
        path: The file.
        options: Who comes.
        labels: The answers that there are.
        visits: What they send.
        is_over: Whether everything was asked and said, and is in the store.
    """

    path: Path
    options: DemoOptions
    labels: Sequence[str]
    visits: Sequence[Visit]
    is_over: bool = False
    _answered: dict[str, Answered] = field(default_factory=dict)
    _reacted: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        asks = {visit.interaction_id: _ask(visit) for visit in self.visits}
        lines = self.path.read_text("utf-8").splitlines() if self.path.exists() else []
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue  # the process was killed while it wrote
            if row == _OVER:
                self.is_over = True
            elif "answer" in row:
                self._answered[row["visit"]] = Answered(
                    asks[row["visit"]],
                    row["answer"],
                    row["version"],
                    row["text"],
                    row["token"],
                    datetime.fromisoformat(row["at"]),
                )
            else:
                self._reacted.add(row["visit"])

    def run(self, url: str) -> None:
        """Have the users ask what was not asked yet, and react.

        Raises:
            RatchetError: Some got no answer, though they asked again.
        """
        for _ in range(_ROUNDS):
            users = self._round(url)
            if len(self._reacted) == len(self.visits):
                return
        raise RatchetError(
            f"the gateway must answer and take feedback, got {users.failed} requests that failed, "
            f"the last with: {users.failure}; its log is logs/gateway.log in the home"
        )

    def end(self) -> None:
        """Note that all of it is in the store: the gateway has stopped."""
        self.is_over = True
        self._write(_OVER)

    def _round(self, url: str) -> LiveUsers:
        users = LiveUsers(
            url,
            keys={},
            labels=self.labels,
            seed=self.options.seed,
            rates=self.options.reactions,
            hurry=math.inf,
            at_once=self.options.at_once,
            instruction=self.options.instruction,
            max_tokens=self.options.max_new_tokens,
            metadata={ORIGIN: SIMULATED},
            on_answer=self._keep_answer,
            on_reacted=self._keep_reacted,
        )
        waiting = [found for visit, found in self._answered.items() if visit not in self._reacted]
        asyncio.run(users.run(self._left(), until=lambda: False, answered=waiting))
        return users

    def _left(self) -> Iterator[tuple[Ask, ...]]:
        """Yield what was not answered yet, by session."""
        asked = set(self._answered)
        for session in by_session(tuple(self.visits)):
            left = tuple(_ask(visit) for visit in session if visit.interaction_id not in asked)
            if left:
                yield left

    def _keep_answer(self, answered: Answered) -> None:
        visit = answered.ask.key
        self._answered[visit] = answered
        self._write(
            {
                "visit": visit,
                "answer": answered.interaction_id,
                "version": answered.version,
                "text": answered.text,
                "token": answered.token,
                "at": answered.asked_at.isoformat(),
            }
        )
        count = len(self._answered)
        if count % _TOLD_EVERY == 0 or count == len(self.visits):
            logger.info("answered %d of %d messages", count, len(self.visits))

    def _keep_reacted(self, answered: Answered) -> None:
        self._reacted.add(answered.ask.key)
        self._write({"visit": answered.ask.key})

    def _write(self, row: dict[str, str | None]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _ask(visit: Visit) -> Ask:
    return Ask(
        APPLICATION,
        visit.user_id,
        LabelledMessage(text=visit.message, label=visit.truth),
        session_id=visit.session_id,
        turn=visit.session_turn,
        ends_session=visit.ends_session,
        key=visit.interaction_id,
    )
