"""Who may do what: keys of applications, tokens of answers, limits of rate.

A key is `ratchet_ID_SECRET`; the store holds its id and the hash of its secret. A token ties a
piece of feedback to an answer that was seen: it is an HMAC of the interaction's id, so checking it
reads nothing. As long as no key was ever made, a gateway on loopback is open to whoever reaches it,
with every role.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ratchet.gateway.problems import ProblemError
from ratchet.records import ApiKey, KeyRole

PREFIX = "ratchet"
ANYBODY = "all"
"""The application of a caller without a key."""
_TOKEN_BYTES = 18
_MOST_CALLERS = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request.

    Attributes:
        id: Key or address, for limits of rate.
        application: Whose key it is; `ANYBODY` without one.
        roles: What it may do.
        rate_per_second: Its own limit.
    """

    id: str
    application: str
    roles: frozenset[KeyRole]
    rate_per_second: float | None = None

    def require(self, role: KeyRole) -> None:
        """Refuse a caller without the role.

        Raises:
            ProblemError: 401 without a key, 403 with a key that lacks the role.
        """
        if role in self.roles or "admin" in self.roles:
            return
        if self.id.startswith("key:"):
            raise ProblemError(
                403,
                f"this needs a key with the role {role}, got one with "
                f"{', '.join(sorted(self.roles))}; make one by `ratchet keys create`",
                code="insufficient_role",
            )
        raise ProblemError(
            401,
            "a key of this gateway must be sent as 'Authorization: Bearer ratchet_...', got none; "
            "make one by `ratchet keys create`",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )


EVERYTHING: frozenset[KeyRole] = frozenset(("ingest", "read", "review", "admin"))


def new_key(
    application: str,
    roles: Sequence[KeyRole],
    *,
    now: datetime,
    rate_per_second: float | None = None,
) -> tuple[ApiKey, str]:
    """Return the record of a new key, and the key itself, which is kept nowhere."""
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    record = ApiKey(
        id=key_id,
        created_at=now,
        application=application,
        roles=tuple(dict.fromkeys(roles)),
        secret_hash=hashlib.sha256(secret.encode()).hexdigest(),
        rate_per_second=rate_per_second,
    )
    return record, f"{PREFIX}_{key_id}_{secret}"


def identify(
    authorization: str | None, address: str, keys: Mapping[str, ApiKey], *, is_open: bool
) -> Caller:
    """Return who sent a request.

    Args:
        authorization: The header.
        address: Where it came from.
        keys: The keys in place.
        is_open: Whether everybody may do everything.

    Raises:
        ProblemError: 401, the key is not one of `keys`.
    """
    if is_open:
        return Caller(f"address:{address}", ANYBODY, EVERYTHING)
    scheme, _, given = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not given:
        return Caller(f"address:{address}", ANYBODY, frozenset())
    prefix, _, rest = given.strip().partition("_")
    key_id, _, secret = rest.partition("_")
    key = keys.get(key_id)
    presented = hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
    expected = key.secret_hash if key else "0" * 64
    matches = hmac.compare_digest(presented, expected)
    if key is None or prefix != PREFIX or not matches:
        raise ProblemError(
            401,
            "a key must be one that `ratchet keys list` shows, got another; it may be revoked",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )
    return Caller(f"key:{key.id}", key.application, frozenset(key.roles), key.rate_per_second)


def load_secret(folder: Path) -> bytes:
    """Return the home's secret for tokens, made once; only its owner may read the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "secret"
    if not path.exists():
        draft = folder / f"secret.{os.getpid()}.{secrets.token_hex(4)}"
        draft.touch(mode=0o600)
        draft.write_bytes(secrets.token_bytes(32))
        try:
            os.link(draft, path)  # the first process wins, whole
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_bytes()


def token_for(secret: bytes, interaction_id: str) -> str:
    """Return the token of an interaction: who holds it has seen the answer."""
    mac = hmac.digest(secret, interaction_id.encode("utf-8", "surrogatepass"), "sha256")
    return base64.urlsafe_b64encode(mac[:_TOKEN_BYTES]).decode()


def token_is_valid(secret: bytes, interaction_id: str, token: str) -> bool:
    """Tell whether a token belongs to an interaction, in constant time."""
    expected = token_for(secret, interaction_id).encode()
    return hmac.compare_digest(expected, token.encode("utf-8", "replace"))


@dataclass(slots=True)
class RateLimits:
    """A bucket of tokens a caller: `rate` a second, twice that at once.

    Attributes:
        rate: Default a second in this process; 0 is no limit.
        workers: Processes that share a caller's rate.
        clock: Seconds, monotonic.
    """

    rate: float
    workers: int = 1
    clock: Callable[[], float] = time.monotonic
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def take(self, caller: Caller) -> None:
        """Count a request.

        Raises:
            ProblemError: 429, the caller sends too many.
        """
        rate = (caller.rate_per_second or self.rate) / self.workers
        if rate <= 0.0:
            return
        now, most = self.clock(), max(2.0 * rate, 1.0)
        left, at = self._buckets.get(caller.id, (most, now))
        left = min(most, left + (now - at) * rate)
        if left < 1.0:
            wait = (1.0 - left) / rate
            raise ProblemError(
                429,
                f"at most {rate * self.workers:g} requests a second may be sent, got more; "
                f"wait {wait:.1f} s",
                code="rate_limit_exceeded",
                headers={"retry-after": str(max(1, round(wait + 0.5)))},
            )
        self._buckets[caller.id] = (left - 1.0, now)
        self._buckets.move_to_end(caller.id)
        if len(self._buckets) > _MOST_CALLERS:
            self._buckets.popitem(last=False)
