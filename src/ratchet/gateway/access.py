"""Who may do what: keys of applications and limits of rate.

A key is `ratchet_ID_SECRET`; the store holds its id, the hash of its secret and its terms: until
when it holds and what it may do. As long as no key was ever made, a gateway on loopback is open to
whoever reaches it, with every role.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ratchet.gateway.problems import ProblemError
from ratchet.records import ApiKey, ApiKeyTerms, KeyRole, KeyScope

logger = logging.getLogger(__name__)

PREFIX = "ratchet"
ANYBODY = "all"
"""The application of a caller without a key."""
OWN: tuple[KeyScope, ...] = ("ask", "feedback")
"""What a key with the role `ingest` may do unless its terms say otherwise."""
SCOPES: tuple[KeyScope, ...] = ("ask", "feedback", "any-answer")
EVERY_SCOPE: frozenset[KeyScope] = frozenset(SCOPES)
MOST_WRONG = 20.0
WRONG_A_SECOND = 0.2
_LOGGED_SECONDS = 60.0
_MOST_CALLERS = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request.

    Attributes:
        id: Key or address, for limits of rate.
        application: Whose key it is; `ANYBODY` without one.
        roles: What it may do.
        rate_per_second: Its own limit.
        scopes: What the role `ingest` covers.
    """

    id: str
    application: str
    roles: frozenset[KeyRole]
    rate_per_second: float | None = None
    scopes: frozenset[KeyScope] = frozenset(OWN)

    @property
    def rates_any_answer(self) -> bool:
        """Whether it may give feedback on answers that other applications asked for."""
        return "admin" in self.roles or "any-answer" in self.scopes

    def require(self, role: KeyRole, scope: KeyScope | None = None) -> None:
        """Refuse a caller without the role, or whose key does not cover the scope.

        Raises:
            ProblemError: 401 without a key, 403 with a key that lacks one of them.
        """
        if "admin" in self.roles:
            return
        if role in self.roles:
            if scope is None or scope in self.scopes:
                return
            raise ProblemError(
                403,
                f"this needs a key with the scope {scope}, got one with "
                f"{', '.join(sorted(self.scopes))}; make one by `ratchet keys create --scope`",
                code="insufficient_scope",
            )
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
    authorization: str | None,
    address: str,
    keys: Mapping[str, ApiKey],
    *,
    is_open: bool,
    now: datetime,
    terms: Mapping[str, ApiKeyTerms],
    wrong: WrongKeys,
) -> Caller:
    """Return who sent a request.

    Args:
        authorization: The header.
        address: Where it came from.
        keys: The keys in place.
        is_open: Whether everybody may do everything.
        now: The time.
        terms: What the keys may do, by their ids; a key of before has none.
        wrong: Counts wrong keys.

    Raises:
        ProblemError: 401, the key is not one of `keys` or its time is over; 429, too many wrong
            keys came from the address.
    """
    if is_open:
        return Caller(f"address:{address}", ANYBODY, EVERYTHING, None, EVERY_SCOPE)
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
        wrong.count(address, None if key is None else key.id)
        raise _refused(
            "a key must be one that `ratchet keys list` shows, got another; it may be revoked"
        )
    found = terms.get(key.id)
    if found is not None and found.expires_at is not None and found.expires_at <= now:
        raise _refused(
            f"this key's time was over on {found.expires_at:%Y-%m-%d %H:%M} UTC; "
            "make one by `ratchet keys create`"
        )
    scopes = frozenset(OWN if found is None else found.scopes)
    roles = frozenset(key.roles)
    return Caller(f"key:{key.id}", key.application, roles, key.rate_per_second, scopes)


def _refused(message: str) -> ProblemError:
    return ProblemError(
        401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"}
    )


@dataclass(slots=True)
class WrongKeys:
    """Counts wrong keys by address, slows down who sends many and says so in the log.

    A right key is never held up: its 256 random bits cannot be found by trying, and whoever shares
    an address with somebody who tries must still get in.

    Attributes:
        clock: Seconds, monotonic.
    """

    clock: Callable[[], float] = time.monotonic
    _limits: RateLimits = field(init=False)
    _logged: OrderedDict[str, tuple[float, int]] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self._limits = RateLimits(WRONG_A_SECOND, most=MOST_WRONG, clock=self.clock)

    def count(self, address: str, known: str | None) -> None:
        """Count a wrong key.

        Args:
            address: Where it came from.
            known: Id of the key that was meant, where there is one.

        Raises:
            ProblemError: 429, too many came from there.
        """
        self._log(address, known)
        self._limits.take(Caller(f"wrong:{address}", ANYBODY, frozenset()), what="wrong keys")

    def _log(self, address: str, known: str | None) -> None:
        now = self.clock()
        at, silent = self._logged.get(address, (-_LOGGED_SECONDS, 0))
        if now - at < _LOGGED_SECONDS:
            self._logged[address] = (at, silent + 1)
            return
        logger.warning(
            "a wrong key came from %r, for %s%s",
            address,
            f"the key {known}" if known else "no key that there is",
            f"; {silent:,} more since the last line" if silent else "",
        )
        self._logged[address] = (now, 0)
        self._logged.move_to_end(address)
        if len(self._logged) > _MOST_CALLERS:
            self._logged.popitem(last=False)


@dataclass(slots=True)
class RateLimits:
    """A bucket of events a caller: `rate` a second, twice that at once.

    A batch is taken whole where one event would be, and leaves a debt behind: its sender waits
    until it is paid, and so keeps to the rate on average.

    Attributes:
        rate: Default a second in this process; 0 is no limit.
        workers: Processes that share a caller's rate.
        most: At once, in place of twice the rate.
        clock: Seconds, monotonic.
    """

    rate: float
    workers: int = 1
    most: float | None = None
    clock: Callable[[], float] = time.monotonic
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def take(self, caller: Caller, *, what: str = "events") -> None:
        """Count one event: a request, with the first event that it brings.

        Raises:
            ProblemError: 429, the caller sends too many.
        """
        rate = (caller.rate_per_second or self.rate) / self.workers
        if rate <= 0.0:
            return
        now, most = self.clock(), max(2.0 * rate, 1.0) if self.most is None else self.most
        left, at = self._buckets.get(caller.id, (most, now))
        left = min(most, left + (now - at) * rate)
        if left < 1.0:
            wait = (1.0 - left) / rate
            raise ProblemError(
                429,
                f"at most {rate * self.workers:g} {what} a second may be sent, got more; "
                f"wait {math.ceil(wait * 10) / 10:g} s",
                code="rate_limit_exceeded",
                headers={"retry-after": str(max(1, round(wait + 0.5)))},
            )
        self._buckets[caller.id] = (left - 1.0, now)
        self._buckets.move_to_end(caller.id)
        if len(self._buckets) > _MOST_CALLERS:
            self._buckets.popitem(last=False)

    def owe(self, caller: Caller, events: int) -> None:
        """Count further events of a request that was taken."""
        if caller.id in self._buckets and events > 0:
            left, at = self._buckets[caller.id]
            self._buckets[caller.id] = (left - events, at)
