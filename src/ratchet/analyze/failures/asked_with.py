"""What a request that the gate asks again has to hold: its tools, and the form it asked for.

asked = AskedWith.of(store, ids)
asked.fields(interaction)      # of an `Example`; None where they are not stored any more
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

from pydantic import JsonValue

from ratchet.evaluation.metrics import normalise_answer
from ratchet.records import Interaction
from ratchet.records.tool_calls import asked, written
from ratchet.store import EventStore
from ratchet.store.texts import calling_ids

Question: TypeAlias = tuple[str, str | None]
"""What is asked, in the form in which texts are compared, and the digest of its tools."""


@dataclass(frozen=True, slots=True)
class AskedWith:
    """Requests with tools, calls or results, and what they refer to.

    Attributes:
        calling: Interactions whose request had tools, or whose turns or answer call some, by id.
        bodies: Definitions by digest.
    """

    calling: Mapping[str, Interaction]
    bodies: Mapping[str, JsonValue]

    @classmethod
    def of(cls, store: EventStore, ids: Collection[str]) -> Self:
        """Read of some interactions those with tools, calls or results, and their definitions."""
        calling = store.stored_interactions(list(calling_ids(store, ids)))
        return cls(calling, _bodies(store, calling.values()))

    @classmethod
    def among(cls, store: EventStore, interactions: Collection[Interaction]) -> Self:
        """Return the definitions of interactions that were read."""
        return cls({one.id: one for one in interactions}, _bodies(store, interactions))

    def fields(self, interaction: Interaction) -> dict[str, Any] | None:
        """Return `tools` and `response_format` of an example that asks the same again.

        None where a definition is not stored any more, or is none.
        """
        found: dict[str, Any] = {}
        if interaction.tools is not None:
            found["tools"] = self.tools(interaction)
        if interaction.response_format is not None:
            form = self.bodies.get(interaction.response_format)
            found["response_format"] = form if isinstance(form, dict) else None
        return None if None in found.values() else found

    def tools(self, interaction: Interaction) -> tuple[dict[str, Any], ...] | None:
        """Return the tools of a request; None where it had none, or they are not stored."""
        body = self.bodies.get(interaction.tools or "")
        if not isinstance(body, list):
            return None
        return tuple(tool for tool in body if isinstance(tool, dict)) or None

    def question(self, key: str, prompt: str) -> Question:
        """Return what an interaction's answer answers, by which equal questions are known.

        Args:
            key: Id of the interaction.
            prompt: The words of the user's last turn.
        """
        found = self.calling.get(key)
        return (normalise_answer(prompt), None) if found is None else question_of(found)

    def answer(self, key: str, response: str) -> str:
        """Return an interaction's whole answer, its calls as text."""
        found = self.calling.get(key)
        return response if found is None else written(found.answer)


NOTHING = AskedWith({}, {})


def question_of(interaction: Interaction) -> Question:
    """Return what an answer answers: the user's words with results after them, and the tools."""
    said = asked(interaction.prompt, interaction.messages)
    return normalise_answer(said), interaction.tools


def _bodies(store: EventStore, interactions: Iterable[Interaction]) -> dict[str, JsonValue]:
    named = {
        name
        for one in interactions
        for name in (one.tools, one.response_format)
        if name is not None
    }
    return {key: found.body for key, found in store.definitions(sorted(named)).items()}
