"""What MLflow loads a registered version by: it answers as a gateway with the local model does.

MLflow imports this module and calls `_load_pyfunc` (`ratchet.tracking.models`). The base model is
the one that `RATCHET_BASE_MODEL` names, else the one that the version was made from.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.errors import ModelError
from ratchet.gateway.backends import Target
from ratchet.gateway.local_backend import LocalBackend
from ratchet.gateway.replies import BackendError
from ratchet.models.serving import AdapterModel
from ratchet.models.weights import model_digest, prepare_base_model
from ratchet.settings import load_settings
from ratchet.tracking.models import FACTS, MOST_TOKENS


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A version that answers.

    Attributes:
        backend: Base model and adapter.
        target: The version.
    """

    backend: LocalBackend
    target: Target

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> list[str]:
        """Return what the version answers to each conversation.

        Args:
            model_input: A table with a column `messages`, one such row, or several.
            params: `max_tokens` and `temperature`; 0 decodes greedily.

        Raises:
            ModelError: It cannot answer one of them.
        """
        bodies = [{"messages": turns} | dict(params or {}) for turns in _conversations(model_input)]
        # a thread of its own, since notebooks have a loop that runs already
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(lambda: asyncio.run(self._answers(bodies))).result()

    async def _answers(self, bodies: Sequence[Mapping[str, Any]]) -> list[str]:
        try:
            found = await asyncio.gather(
                *(self.backend.complete(body, self.target) for body in bodies)
            )
        except BackendError as error:
            raise ModelError(f"a conversation must be one that it can answer: {error}") from error
        return [one["choices"][0]["message"]["content"] or "" for one in found]


def _conversations(model_input: Any) -> Iterable[list[dict[str, Any]]]:
    """Return the turns of each conversation; MLflow hands over a table where it knows columns."""
    if hasattr(model_input, "columns"):
        found: Iterable[Any] = model_input["messages"]
    elif isinstance(model_input, Mapping):
        found = [model_input["messages"]]
    else:
        found = [row["messages"] for row in model_input]
    return [[dict(turn) for turn in turns] for turns in found]


def _load_pyfunc(path: str) -> RegisteredModel:
    """Return the version whose files lie in a folder; MLflow calls it.

    Raises:
        ModelError: The base model is another one than the version was made from.
    """
    folder = Path(path)
    facts = json.loads((folder / FACTS).read_text("utf-8"))
    settings = load_settings(os.environ, Path.cwd())
    named = settings.base_model if settings.states_base_model else facts["base_model"]
    template = settings.chat_template or facts["chat_template"]
    base = prepare_base_model(named, settings.cache, template)
    if model_digest(base) != facts["base_digest"]:
        raise ModelError(
            f"a version must be loaded on the base model that it was made from, "
            f"{facts['base_model']}, got other weights or another template in {named}; name them "
            "by RATCHET_BASE_MODEL"
        )
    adapter = folder if (folder / "adapter_config.json").exists() else None
    backend = LocalBackend(AdapterModel.load(base), max_tokens=MOST_TOKENS)
    return RegisteredModel(backend, Target(facts["digest"], adapter))
