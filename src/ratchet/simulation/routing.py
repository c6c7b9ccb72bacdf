"""What the simulated users want: the queue of a message, or what an instruction asks for.

Without an instruction the model is a support desk's router, as in the demonstration.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ratchet.errors import InsufficientDataError
from ratchet.models import Completion
from ratchet.records import (
    Example,
    Interaction,
    LabelledMessage,
    Message,
    derive_id,
)
from ratchet.records.events import ORIGIN, SIMULATED
from ratchet.simulation.traffic import Visit


def conversation(
    labels: Sequence[str], text: str, instruction: str | None = None
) -> tuple[Message, ...]:
    """Return the prompt that asks for the queue of a message, or for what the instruction says."""
    system = instruction or (
        "Route the customer's message to one queue. Answer with the queue's name only. "
        f"Queues: {', '.join(labels)}."
    )
    return Message(role="system", content=system), Message(role="user", content=text)


def build_examples(
    messages: Sequence[LabelledMessage], labels: Sequence[str], instruction: str | None = None
) -> tuple[Example, ...]:
    """Turn held-out messages into evaluation examples, in the same order."""
    asked = labels if instruction is None else [instruction]
    return tuple(
        Example(
            id=derive_id("example", message.text, *asked),
            messages=conversation(labels, message.text, instruction),
            target=message.label,
        )
        for message in messages
    )


def traffic_of_cycle(
    messages: Sequence[LabelledMessage], *, number: int, limit: int, seed: int
) -> tuple[LabelledMessage, ...]:
    """Return the messages that come in during a cycle.

    Cycle after cycle takes the next `limit` of one shuffled pass; after the last message it begins
    at the first again.

    Args:
        messages: All messages that may come in, held-out ones left out.
        number: The cycle, from 1.
        limit: Messages a cycle.
        seed: Of the shuffle.

    Raises:
        InsufficientDataError: There are no messages.
    """
    if not messages:
        raise InsufficientDataError("traffic needs at least one message, got none; add messages")
    order = np.random.default_rng([seed, 1]).permutation(len(messages))
    size = min(limit, len(messages))
    first = (number - 1) * size
    return tuple(messages[order[(first + step) % len(messages)]] for step in range(size))


def record_answers(
    visits: Sequence[Visit],
    completions: Sequence[Completion],
    *,
    labels: Sequence[str],
    model_version: str,
    instruction: str | None = None,
) -> list[Interaction]:
    """Build the interactions of visits that were just answered."""
    return [
        Interaction(
            id=visit.interaction_id,
            session_id=visit.session_id,
            user_id=visit.user_id,
            created_at=visit.at,
            model_version=model_version,
            messages=conversation(labels, visit.message, instruction),
            response=completion.text,
            latency_seconds=completion.latency_seconds,
            error=completion.error,
            metadata={ORIGIN: SIMULATED},
        )
        for visit, completion in zip(visits, completions, strict=True)
    ]
