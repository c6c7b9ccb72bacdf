"""Simulated users in front of a running gateway: they ask, read, and react a little later.

    users = LiveUsers("http://127.0.0.1:8000", keys={"shop": key}, labels=QUEUES, seed=1)
    await users.run(asks, until=stopped.is_set)

What they ask and what would be right is known, so that what monitoring finds can be held against
the truth. They come over HTTP as an application's users do: with its key, or with the token of each
answer for the feedback on it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

from ratchet.files.moments import retry_after_seconds
from ratchet.files.text import first_line
from ratchet.models import Completion
from ratchet.records import LABEL_TOKENS, Interaction, LabelledMessage
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
    """One message that a user of an application sends.

    Attributes:
        session_id: Names the visit that it belongs to; without it the message is a visit of its
            own.
        turn: Place in the visit, from 1.
        ends_session: Whether it is the last message of the visit.
        key: What whoever planned it calls it.
    """

    application: str
    user_id: str
    message: LabelledMessage
    session_id: str | None = None
    turn: int = 1
    ends_session: bool = True
    key: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """A message with the answer to it.

    Attributes:
        interaction_id: The answer's id.
        version: Who gave it.
        text: The answer.
        token: What feedback on it needs where there is no key.
        asked_at: When the message was sent.
    """

    ask: Ask
    interaction_id: str
    version: str
    text: str
    token: str | None
    asked_at: datetime


def _nothing(_: Answered) -> None:
    """Take note of nothing."""


@dataclass(slots=True)
class LiveUsers:
    """See the module's text.

    Attributes:
        url: Where the gateway answers.
        keys: Key of each application, each with the role ingest; none where the gateway asks for
            none.
        labels: The queues that an answer may name.
        seed: Of the reactions.
        rates: How they react.
        hurry: How much sooner they react than `rates` say; infinite: at once.
        at_once: How many ask at a time.
        instruction: What the model is told; None has it name the queue of a message.
        max_tokens: The longest answer.
        metadata: What the application says of each request.
        on_answer: Called with each answer, before the reactions to it.
        on_reacted: Called once all reactions to an answer were sent.
        asked: Answers by version and whether they were right.
        failed: Requests that got no answer.
        failure: What the last of them met.
    """

    url: str
    keys: Mapping[str, str]
    labels: Sequence[str]
    seed: int
    rates: ReactionRates = HURRIED
    hurry: float = 1.0
    at_once: int = 8
    instruction: str | None = None
    max_tokens: int = LABEL_TOKENS
    metadata: Mapping[str, str] = field(default_factory=dict)
    on_answer: Callable[[Answered], None] = _nothing
    on_reacted: Callable[[Answered], None] = _nothing
    asked: Counter[tuple[str, bool]] = field(default_factory=Counter)
    failed: int = 0
    failure: str = ""
    _reacting: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(
        self,
        asks: Iterator[Ask | Sequence[Ask]],
        *,
        until: Callable[[], bool],
        answered: Iterable[Answered] = (),
    ) -> None:
        """Ask one after the other, several at a time, until told to stop; then react to the end.

        Args:
            asks: Messages, or visits whose messages one user sends one after the other.
            until: Whether to stop.
            answered: Answers of before, to which nobody has reacted yet.
        """
        async with httpx.AsyncClient(timeout=_SECONDS, trust_env=False) as client:
            for found in answered:
                self._react(client, found)
            await asyncio.gather(*(self._user(client, asks, until) for _ in range(self.at_once)))
            await asyncio.gather(*self._reacting)

    async def _user(
        self,
        client: httpx.AsyncClient,
        asks: Iterator[Ask | Sequence[Ask]],
        until: Callable[[], bool],
    ) -> None:
        while not until() and (visit := next(asks, None)) is not None:
            for ask in (visit,) if isinstance(visit, Ask) else visit:
                try:
                    answered = await self._ask(client, ask)
                except httpx.HTTPError as error:
                    self._fail(error)
                    await asyncio.sleep(1.0)
                    continue
                self.on_answer(answered)
                self._react(client, answered)

    async def _ask(self, client: httpx.AsyncClient, ask: Ask) -> Answered:
        asked_at = datetime.now(UTC)
        turns = conversation(self.labels, ask.message.text, self.instruction)
        session = {} if ask.session_id is None else {"session_id": ask.session_id}
        body: dict[str, Any] = {
            "model": "default",
            "messages": [message.canonical() for message in turns],
            "user": ask.user_id,
            "max_tokens": self.max_tokens,
        }
        if session or self.metadata:
            body["metadata"] = session | dict(self.metadata)
        reply = await self._post(client, "/v1/chat/completions", body, ask)
        found = reply.json()
        return Answered(
            ask,
            found["id"],
            found["model"],
            found["choices"][0]["message"]["content"],
            (found.get("ratchet") or {}).get("token"),
            asked_at,
        )

    def _react(self, client: httpx.AsyncClient, answered: Answered) -> None:
        visit = _visit(answered)
        interaction = self._interaction(answered, visit)
        self.asked[answered.version, is_right(visit, interaction)] += 1
        task = asyncio.create_task(self._reactions(client, answered, visit, interaction))
        self._reacting.add(task)
        task.add_done_callback(self._reacting.discard)

    async def _reactions(
        self,
        client: httpx.AsyncClient,
        answered: Answered,
        visit: Visit,
        interaction: Interaction,
    ) -> None:
        """Send what the user makes of an answer, each piece at its time."""
        ask, read, is_whole = answered.ask, datetime.now(UTC), True
        seen = interaction.model_copy(update={"created_at": read})
        rng = reaction_rng(self.seed, interaction.id)
        for event in react(visit, seen, self.rates, self.labels, rng):
            after = (event.created_at - read).total_seconds() / self.hurry
            await asyncio.sleep(max(0.0, after - (datetime.now(UTC) - read).total_seconds()))
            said = event.canonical()
            if self.hurry > 1.0:
                del said["created_at"]  # it is said now
            if answered.token is not None and ask.application not in self.keys:
                said["token"] = answered.token
            try:
                await self._post(client, "/v1/feedback", said, ask)
            except httpx.HTTPError as error:
                self._fail(error)
                is_whole = False
        if is_whole:
            self.on_reacted(answered)

    async def _post(
        self, client: httpx.AsyncClient, path: str, body: dict[str, Any], ask: Ask
    ) -> httpx.Response:
        """Send a request, once more as often as the gateway has them wait for their turn."""
        deadline = asyncio.get_running_loop().time() + _SECONDS
        while True:
            reply = await client.post(f"{self.url}{path}", json=body, headers=self._headers(ask))
            wait = retry_after_seconds(reply.headers.get("retry-after"), datetime.now(UTC))
            late = asyncio.get_running_loop().time() + (wait or 0.0) > deadline
            if reply.status_code != httpx.codes.TOO_MANY_REQUESTS or wait is None or late:
                reply.raise_for_status()
                return reply
            await asyncio.sleep(wait)

    def _fail(self, error: httpx.HTTPError) -> None:
        self.failed += 1
        if isinstance(error, httpx.HTTPStatusError):
            reply = error.response
            self.failure = first_line(f"{reply.status_code} {reply.text}")
        else:
            self.failure = first_line(error)

    def _interaction(self, answered: Answered, visit: Visit) -> Interaction:
        (interaction,) = record_answers(
            [visit],
            [Completion(text=answered.text, latency_seconds=0.0)],
            labels=self.labels,
            model_version=answered.version,
            instruction=self.instruction,
        )
        return interaction

    def _headers(self, ask: Ask) -> dict[str, str]:
        key = self.keys.get(ask.application)
        return {} if key is None else {"authorization": f"Bearer {key}"}


def _visit(answered: Answered) -> Visit:
    ask = answered.ask
    return Visit(
        interaction_id=answered.interaction_id,
        session_id=ask.session_id or answered.interaction_id,
        user_id=ask.user_id,
        at=answered.asked_at,
        message=ask.message.text,
        truth=ask.message.label,
        ends_session=ask.ends_session,
        session_turn=ask.turn,
    )
