"""What tokens cost, by model, where neither client nor server says what an answer cost.

prices.cost("support-router/3", Usage(prompt_tokens=1_000, completion_tokens=200))

What is stated goes before a price.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ratchet.records.asking import Usage
from ratchet.records.base import Identifier, Record

_MILLION = 1_000_000
_Amount = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class Price(Record):
    """What a million tokens of one model cost.

    Attributes:
        input: Of requests.
        output: Of answers, reasoning included.
        cached_input: Of those tokens of requests that a cache held; as `input` where left out.
    """

    input: _Amount
    output: _Amount
    cached_input: _Amount | None = None


class Prices(Record):
    """Prices of models in one currency.

    Attributes:
        models: By the name of a version (`support-router/3`), or of all versions of a name
            (`support-router`); the longer name counts.
    """

    models: dict[Identifier, Price] = Field(default_factory=dict)

    def of(self, model_version: str) -> Price | None:
        """Return the price of a version, by its own name or by that before its last slash."""
        name, slash, _ = model_version.rpartition("/")
        found = self.models.get(model_version)
        return self.models.get(name) if found is None and slash else found

    def cost(self, model_version: str, usage: Usage) -> float | None:
        """Return what an answer cost: what is stated, else by price; None where neither is known.

        Example:
            >>> prices = Prices(models={"router": Price(input=2.0, output=10.0)})
            >>> prices.cost("router/3", Usage(prompt_tokens=1_000, completion_tokens=200))
            0.004
        """
        if usage.cost is not None:
            return usage.cost
        price = self.of(model_version)
        asked, answered = usage.prompt_tokens, usage.completion_tokens
        if price is None or asked is None or answered is None:
            return None
        cached = min(asked, usage.cached_tokens or 0)
        of_cached = price.input if price.cached_input is None else price.cached_input
        paid = (asked - cached) * price.input + cached * of_cached + answered * price.output
        return paid / _MILLION


NO_PRICES = Prices()
"""Where nobody configured any: an answer cost what is stated, or nobody knows what."""
