"""What asking an endpoint may cost: pace, spend ceiling, and how long to wait after a failure.

Nothing here waits or reads a clock: times are arguments, in seconds of any monotonic clock.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_LONGEST_BACKOFF_SECONDS = 30.0
_BYTES_PER_TOKEN = 3


class Limits(BaseModel):
    """How fast an endpoint is asked, how often again, and what it may cost.

    Attributes:
        concurrency: Requests in flight at once.
        requests_per_minute: Pace of requests; they are spread evenly over the minute.
        tokens_per_minute: Pace of input and output tokens together.
        attempts: How often one question is sent before it counts as failed.
        backoff_seconds: Wait after the first failure; it doubles with each further one.
        timeout_seconds: Longest wait for a reply.
        spend_ceiling: What one run may cost, in the currency of the prices.
        price_per_million_input_tokens: Price of what is sent.
        price_per_million_output_tokens: Price of what comes back.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    concurrency: int = Field(default=16, ge=1, le=1024)
    requests_per_minute: float | None = Field(default=None, gt=0.0)
    tokens_per_minute: float | None = Field(default=None, gt=0.0)
    attempts: int = Field(default=5, ge=1)
    backoff_seconds: float = Field(default=0.5, gt=0.0)
    timeout_seconds: float = Field(default=60.0, gt=0.0)
    spend_ceiling: float | None = Field(default=None, ge=0.0)
    price_per_million_input_tokens: float = Field(default=0.0, ge=0.0)
    price_per_million_output_tokens: float = Field(default=0.0, ge=0.0)

    @model_validator(mode="after")
    def _ceiling_needs_prices(self) -> Self:
        prices = self.price_per_million_input_tokens + self.price_per_million_output_tokens
        if self.spend_ceiling is not None and not prices:
            raise ValueError(
                f"a spend ceiling needs prices, got spend_ceiling={self.spend_ceiling} and prices "
                "of 0; set price_per_million_input_tokens and price_per_million_output_tokens"
            )
        return self


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of one request."""

    input: int
    output: int

    @property
    def total(self) -> int:
        """Input and output."""
        return self.input + self.output


def estimate_input_tokens(*texts: str) -> int:
    """Return more tokens than texts are likely to have: a token for three bytes of UTF-8.

    English has about four characters a token; scripts of three bytes a character have about one
    token a character, which is why bytes are counted. Eight more stand for the frame of each text.
    """
    return sum(8 - (-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN) for text in texts)


class Ledger:
    """What was spent, and the most that requests in flight can add to it.

    A request is reserved at its worst case (estimated input and the longest output) and settled
    with what the server counted. Where a server counts more input than was estimated, the
    estimates of all later requests and of those in flight grow by that factor.

    Not for a bill to the cent: an endpoint that counts more output than `max_tokens`, or bills
    requests that it answers with an error, can go over the ceiling.
    """

    def __init__(self, limits: Limits) -> None:
        self._input_price = limits.price_per_million_input_tokens / 1e6
        self._output_price = limits.price_per_million_output_tokens / 1e6
        self._ceiling = limits.spend_ceiling
        self._reserved_input = self._reserved_output = 0
        self._factor = 1.0
        self.spent = 0.0

    def cost(self, tokens: Tokens) -> float:
        """Return the price of so many tokens."""
        return tokens.input * self._input_price + tokens.output * self._output_price

    def worst_case(self, estimate: Tokens) -> float:
        """Return the most that a request of this estimate can cost, as far as is known."""
        return self._price(estimate.input, estimate.output)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight, so that no settlement will make room."""
        return not self._reserved_input and not self._reserved_output

    def fits(self, estimate: Tokens) -> bool:
        """Return whether spending stays within the ceiling should all reach its worst case."""
        if self._ceiling is None:
            return True
        worst = self._price(
            self._reserved_input + estimate.input, self._reserved_output + estimate.output
        )
        return self.spent + worst <= self._ceiling

    def reserve(self, estimate: Tokens) -> None:
        """Count a request as in flight."""
        self._reserved_input += estimate.input
        self._reserved_output += estimate.output

    def settle(self, estimate: Tokens, cost: float, counted_input: int | None = None) -> None:
        """Replace a reservation by what the request cost."""
        self._reserved_input -= estimate.input
        self._reserved_output -= estimate.output
        self.spent += cost
        if counted_input is not None:
            self._factor = max(self._factor, counted_input / max(estimate.input, 1))

    def _price(self, input_tokens: int, output_tokens: int) -> float:
        return self._factor * input_tokens * self._input_price + output_tokens * self._output_price


class Pace:
    """A token bucket that holds one request: whoever takes is told how long to wait.

    Amounts are spread evenly, in the order of the calls, so that no minute has a burst.

    Args:
        per_minute: How much may be taken; None for any amount.
    """

    def __init__(self, per_minute: float | None) -> None:
        self._seconds_each = 60.0 / per_minute if per_minute else 0.0
        self._free_at = float("-inf")

    def take(self, amount: float, now: float) -> float:
        """Take an amount; return after how many seconds it may be used."""
        start = max(self._free_at, now)
        self._free_at = start + amount * self._seconds_each
        return start - now

    def give_back(self, amount: float) -> None:
        """Return what was taken and not used."""
        self._free_at -= amount * self._seconds_each


def backoff_seconds(key: str, attempt: int, first: float) -> float:
    """Return the wait after a failed attempt: doubling, and shortened by up to half by jitter.

    The jitter is derived from the question, so that runs repeat and questions do not march in step.

    Args:
        key: The question.
        attempt: Which attempt failed, from 1.
        first: Longest wait after the first.
    """
    seed = hashlib.sha256(f"{key}\x1f{attempt}".encode("utf-8", "replace")).digest()
    jitter = int.from_bytes(seed[:4], "big") / 2**32
    longest = max(first, _LONGEST_BACKOFF_SECONDS)
    return min(first * 2.0 ** min(attempt - 1, 60), longest) * (1.0 - 0.5 * jitter)
