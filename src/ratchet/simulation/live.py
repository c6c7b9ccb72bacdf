"""Simulated users in front of a running gateway: they ask, read, and react a little later.

    users = LiveUsers("http://127.0.0.1:8000", keys={"shop": key}, labels=QUEUES, seed=1)
    await users.run(asks, until=stopped.is_set)

What they ask and what would be right is known, so that what monitoring finds can be held against
the truth. They come over HTTP as an application's users do, with its key.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx

from ratchet.models import Completion
from ratchet.records import LABEL_TOKENS, Feedback, Interaction, LabelledMessage
from ratchet.simulation.routing import conversation, record_answers
from ratchet.simulation.users import ReactionRates, Visit, is_right, react, reaction_rng

HURRIED = ReactionRates(
    thumbs=0.6,
    explicit_delay=4.0,
    implicit_delay=2.0,
    turn_seconds_right=4.0,
    turn_seconds_wrong=8.0,
    turn_seconds_abandoned=2.0,
)
"""Users who react within seconds, so that a drill takes minutes and not hours."""
_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Ask:
    """One message that a user of an application sends."""

    application: str
    user_id: str
    message: LabelledMessage


@dataclass(slots=True)
class LiveUsers:
    """See the module's text.

    Attributes:
        url: Where the gateway answers.
        keys: Key of each application; each with the role ingest.
        labels: The queues that an answer may name.
        seed: Of the reactions.
        rates: How they react.
        at_once: How many ask at a time.
        asked: Answers by version and whether they were right.
        failed: Requests that got no answer.
    """

    url: str
    keys: Mapping[str, str]
    labels: Sequence[str]
    seed: int
    rates: ReactionRates = HURRIED
    at_once: int = 8
    asked: Counter[tuple[str, bool]] = field(default_factory=Counter)
    failed: int = 0
    _reacting: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, asks: Iterator[Ask], *, until: Callable[[], bool]) -> None:
        """Ask one after the other, several at a time, until told to stop; then react to the end."""
        async with httpx.AsyncClient(timeout=_SECONDS, trust_env=False) as client:
            await asyncio.gather(*(self._user(client, asks, until) for _ in range(self.at_once)))
            await asyncio.gather(*self._reacting)

    async def _user(
        self, client: httpx.AsyncClient, asks: Iterator[Ask], until: Callable[[], bool]
    ) -> None:
        while not until() and (ask := next(asks, None)) is not None:
            try:
                await self._ask(client, ask)
            except httpx.HTTPError:
                self.failed += 1
                await asyncio.sleep(1.0)

    async def _ask(self, client: httpx.AsyncClient, ask: Ask) -> None:
        asked_at = datetime.now(UTC)
        turns = conversation(self.labels, ask.message.text)
        body = {
            "model": "default",
            "messages": [message.canonical() for message in turns],
            "user": ask.user_id,
            "max_tokens": LABEL_TOKENS,
        }
        reply = await client.post(
            f"{self.url}/v1/chat/completions", json=body, headers=self._headers(ask)
        )
        reply.raise_for_status()
        answer = reply.json()
        visit = Visit(
            interaction_id=answer["id"],
            session_id=answer["id"],
            user_id=ask.user_id,
            at=asked_at,
            message=ask.message.text,
            truth=ask.message.label,
            ends_session=True,
            session_turn=1,
        )
        text = answer["choices"][0]["message"]["content"]
        (interaction,) = record_answers(
            [visit],
            [Completion(text=text, latency_seconds=0.0)],
            labels=self.labels,
            model_version=answer["model"],
        )
        self._react(client, ask, visit, interaction)

    def _react(
        self, client: httpx.AsyncClient, ask: Ask, visit: Visit, interaction: Interaction
    ) -> None:
        self.asked[interaction.model_version, is_right(visit, interaction)] += 1
        rng = reaction_rng(self.seed, interaction.id)
        seen = interaction.model_copy(update={"created_at": datetime.now(UTC)})
        for event in react(visit, seen, self.rates, self.labels, rng):
            task = asyncio.create_task(self._later(client, ask, event))
            self._reacting.add(task)
            task.add_done_callback(self._reacting.discard)

    async def _later(self, client: httpx.AsyncClient, ask: Ask, event: Feedback) -> None:
        wait = (event.created_at - datetime.now(UTC)).total_seconds()
        await asyncio.sleep(max(0.0, wait))
        try:
            await client.post(
                f"{self.url}/v1/feedback", json=event.canonical(), headers=self._headers(ask)
            )
        except httpx.HTTPError:
            self.failed += 1

    def _headers(self, ask: Ask) -> dict[str, str]:
        return {"authorization": f"Bearer {self.keys[ask.application]}"}
