"""Records of serving: who is sent to which version, and which keys open the gateway."""

from __future__ import annotations

import hashlib
from typing import Literal, Self

from pydantic import Field, model_validator

from ratchet.records.base import Identifier, Record, Share, Text, UtcTime

KeyRole = Literal["ingest", "read", "review", "admin"]
KeyScope = Literal["ask", "feedback", "any-answer"]
_BUCKETS = 2**64


class Variant(Record):
    """One arm of a routing: a model version, and what else is different about it.

    Attributes:
        version: The version that answers, e.g. `support-router/3`.
        share: The share of users that it gets.
        name: Names the arm where two arms have the same version; else the version does.
        system_prompt: Put in place of the application's system prompt, for tests of prompts.
    """

    version: Identifier
    share: Share
    name: Identifier | None = None
    system_prompt: Text | None = None

    @property
    def label(self) -> str:
        """The arm's name, else its version."""
        return self.name or self.version


class Routing(Record):
    """Who is sent to which version; the latest one written holds for all gateways.

    Attributes:
        experiment: Salt of the assignment: another experiment draws its users anew.
        variants: The arms in order, with shares that sum to one. An arm that is to grow comes
            first: whoever it has at 5 % it still has at 25 %.
        previous: The version to fall back to when the chosen one errors or stalls.
        reason: Why it was written.
    """

    id: Identifier
    created_at: UtcTime
    experiment: Identifier
    variants: tuple[Variant, ...] = Field(min_length=1)
    previous: Identifier | None = None
    reason: Text = ""

    @model_validator(mode="after")
    def _shares_sum_to_one(self) -> Self:
        total = sum(variant.share for variant in self.variants)
        if abs(total - 1.0) > 1e-9:
            raise ValueError(f"shares must sum to 1, got {total:g}; give the champion the rest")
        labels = [variant.label for variant in self.variants]
        if len(set(labels)) < len(labels):
            raise ValueError(f"arms must have names of their own, got {labels}; set `name`")
        return self

    def choose(self, user_id: str) -> Variant:
        """Return the arm of a user: always the same one as long as the shares stay.

        The first eight bytes of SHA-256 over experiment and user are a point in [0, 1); the arms
        share that line out in their order.
        """
        key = f"{self.experiment}\x1f{user_id}".encode("utf-8", "surrogatepass")
        point = int.from_bytes(hashlib.sha256(key).digest()[:8]) / _BUCKETS
        end = 0.0
        for variant in self.variants:
            end += variant.share
            if point < end:
                return variant
        return next(v for v in reversed(self.variants) if v.share > 0.0)


class RoutingFollowed(Record):
    """That a gateway process sends users where a routing says, from `created_at` on.

    Attributes:
        process: The process, by machine and number.
        asks_for: The name that it asks its backend for, whatever the version (`--backend-model`).
    """

    id: Identifier
    created_at: UtcTime
    routing_id: Identifier
    process: Identifier
    asks_for: Identifier | None = Field(default=None, exclude_if=lambda value: value is None)


class RoutingRefusal(Record):
    """That users were not sent to a version yet; the earlier routing stood.

    Attributes:
        step: What would have sent them there; `start` where the version answers and its rollout
            lacks something else.
        version: The version.
        stands: The champion that users had and kept.
        reason: What did not answer, and how; or what is lacking.
        decision_id: The gate's decision that is tried again.
    """

    id: Identifier
    created_at: UtcTime
    step: Literal["promotion", "rollout", "stage", "alias", "start"]
    version: Identifier
    stands: Identifier
    reason: str
    decision_id: Identifier | None = None


class ServedName(Record):
    """The name by which the backend answers as a version; the latest one of a version holds.

    A version without one is asked for by its own name, as adapters are that Ratchet loads.

    Attributes:
        version: The version, e.g. `support-router/1`.
        name: What the backend's list of models calls it.
    """

    id: Identifier
    created_at: UtcTime
    version: Identifier
    name: Identifier


class Adoption(Record):
    """That a model which answers users already was made the champion under its own name.

    Applications ask for it by its names, so such a name in a request means "the model", whichever
    version that is now.

    Attributes:
        version: The version, which is called what the server calls it.
        also: Other names of the same model, under which answers were recorded.
        parent: The base model, where the server says that it is an adapter.
        by: Who adopted it.
        elsewhere: Whether somebody else serves it: Ratchet sees its answers and sends it nobody.
    """

    id: Identifier
    created_at: UtcTime
    version: Identifier
    also: tuple[Identifier, ...] = ()
    parent: Identifier | None = None
    by: str | None = None
    elsewhere: bool = Field(default=False, exclude_if=lambda value: not value)

    @property
    def names(self) -> tuple[str, ...]:
        """All of its names, its own first."""
        return (self.version, *self.also)


class ApiKey(Record):
    """A key of an application. Of its secret only the hash is kept.

    Attributes:
        id: The public half of the key, by which it is found.
        application: Whose it is; interactions carry it as their segment.
        secret_hash: SHA-256 (hex) of the secret half, which is 256 random bits.
        rate_per_second: Requests that it may send, in place of the gateway's default.
    """

    id: Identifier
    created_at: UtcTime
    application: Identifier
    roles: tuple[KeyRole, ...] = Field(min_length=1)
    secret_hash: str = Field(pattern="^[0-9a-f]{64}$")
    rate_per_second: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)


class ApiKeyTerms(Record):
    """What a key may do and until when; `id` is the key's. A key of before has none.

    A record of its own, so that a gateway of the version before goes on reading keys.

    Attributes:
        expires_at: From then on it opens nothing; None is never.
        scopes: What its role `ingest` covers: to ask for answers, to give feedback on the answers
            of its own application, and on any answer.
    """

    id: Identifier
    created_at: UtcTime
    expires_at: UtcTime | None = None
    scopes: tuple[KeyScope, ...] = Field(min_length=1)


class ApiKeyRevocation(Record):
    """The end of a key; `id` is the key's."""

    id: Identifier
    created_at: UtcTime
