"""What ties feedback to an answer: tokens for whoever saw it, and ids that name their application.

A token is `2.TIME.USER.MAC`: when the answer was given, a digest of its user and an HMAC of both
and the interaction's id. The id itself ends with an HMAC of the application whose key asked. So
neither check reads anything, and both hold while the database is down.

The secret is `secret` in the gateway's folder. `rotate` puts another in its place and keeps the one
before as `secret-until-TIME`, until which what it signed is still accepted. Running gateways notice
within a second. Gateways on several hosts are given one secret (`share_secret`).
"""

from __future__ import annotations

import base64
import hmac
import os
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from filelock import FileLock

from ratchet.errors import InvalidInputError

DAY = 86_400.0
TOKEN_DAYS = 30.0
"""Days for which the token of an answer is accepted, unless the gateway is given a number."""
_FORM = "2"
_TOKEN_BYTES = 18
_USER_BYTES = 9
_TAG = 12  # hex digits
_SHORTEST_SECRET = 32
_RANDOM = 32
_LOOKED_SECONDS = 1.0
_EARLY_SECONDS = 300.0
"""So far ahead the clock of another gateway may be."""
_TICK_NS = 2_000_000_000
_OUR_ID = re.compile(rf"chatcmpl-([0-9a-f]{{{_RANDOM}}})([0-9a-f]{{{_TAG}}})?")
_UNTIL = re.compile(r"(secret|unsigned)-until-([0-9]{1,12})")


class TokenError(Exception):
    """A token is not accepted; the message says which one would be."""


class Tokens:
    """See the module's text. Times are seconds since 1970."""

    def __init__(
        self, folder: Path, *, days: float = TOKEN_DAYS, clock: Callable[[], float] = time.time
    ) -> None:
        self._folder, self._seconds, self._clock = folder, days * DAY, clock
        load_secret(folder, now=clock())
        self._looked, self._seen = time.monotonic(), -1
        self._secrets: list[tuple[bytes, float]] = []
        self._unsigned_until = 0.0
        self._read()

    def issue(self, interaction_id: str, user: str) -> str:
        """Return the token of an answer given now to a user."""
        secret = self._current()
        issued = f"{int(self._clock()):x}"
        whose = _user(secret, user)
        return f"{_FORM}.{issued}.{whose}.{_mac(secret, interaction_id, issued, whose)}"

    def check(self, interaction_id: str, token: str, user: str | None) -> bool:
        """Refuse a token that does not allow feedback on an interaction as a user.

        Returns:
            Whether the token says who the user is; one of the form before does not.

        Args:
            interaction_id: What the feedback is on.
            token: What was sent with it.
            user: Whom the feedback says that it is from; None where it does not say.

        Raises:
            TokenError: It is another interaction's, too old, or the user is another.
        """
        now, parts = self._clock(), token.split(".")
        accepted = self._accepted(now)
        if len(parts) != 4 or parts[0] != _FORM:
            self._check_unsigned(interaction_id, token, now, accepted)
            return False
        _, issued, whose, mac = parts
        secret = next(
            (s for s in accepted if _same(_mac(s, interaction_id, issued, whose), mac)), None
        )
        if secret is None:
            raise TokenError("must be the one that came with the answer, got another")
        age = now - int(issued, 16)
        if not -_EARLY_SECONDS <= age <= self._seconds:
            raise TokenError(f"must be at most {self._seconds / DAY:g} days old, got an older one")
        if user is not None and not _same(_user(secret, user), whose):
            raise TokenError("gives feedback of the user of its answer alone, got another user_id")
        return True

    def new_id(self, application: str) -> str:
        """Return the id of a new interaction that an application's key asked for."""
        random = uuid4().hex
        return f"chatcmpl-{random}{_tag(self._current(), random, application)}"

    def is_of(self, interaction_id: str, application: str) -> bool:
        """Tell whether an id proves that an application asked for its answer.

        Ids of earlier versions, of another gateway, and of a secret that is no longer accepted
        prove nothing, so that False may also mean that it is not known.
        """
        match = _OUR_ID.fullmatch(interaction_id)
        if match is None or match[2] is None:
            return False
        accepted = self._accepted(self._clock())
        return any(_same(_tag(secret, match[1], application), match[2]) for secret in accepted)

    def _check_unsigned(
        self, interaction_id: str, token: str, now: float, accepted: list[bytes]
    ) -> None:
        """Accept a token of the form before, which has neither user nor time, for a while.

        Raises:
            TokenError: It is not one, or its time is over.
        """
        if now > self._unsigned_until:
            raise TokenError("must be the one that came with the answer, got another")
        if not any(_same(unsigned_token(secret, interaction_id), token) for secret in accepted):
            raise TokenError("must be the one that came with the answer, got another")

    def _current(self) -> bytes:
        self._refresh()
        return self._secrets[0][0]

    def _accepted(self, now: float) -> list[bytes]:
        self._refresh()
        return [secret for secret, until in self._secrets if now <= until]

    def _refresh(self) -> None:
        at = time.monotonic()
        if at - self._looked > _LOOKED_SECONDS:
            self._looked = at
            self._read()

    def _read(self) -> None:
        """Read the folder where it has changed; what was read last holds while it cannot be."""
        try:
            seen = self._folder.stat().st_mtime_ns
            if seen == self._seen:
                return
            found = [((self._folder / "secret").read_bytes(), float("inf"))]
            unsigned = 0.0
            for path in self._folder.glob("*-until-*"):
                if (match := _UNTIL.fullmatch(path.name)) is None:
                    continue
                if match[1] == "secret":
                    found.append((path.read_bytes(), float(match[2])))
                else:
                    unsigned = max(unsigned, float(match[2]))
        except OSError:
            if not self._secrets:
                raise
            return
        self._secrets, self._unsigned_until = found, unsigned
        # two changes within one tick of the file system's clock bear one time
        self._seen = seen if time.time_ns() - seen > _TICK_NS else -1


def load_secret(folder: Path, *, now: float | None = None) -> bytes:
    """Return the home's secret for tokens, made once; only its owner may read the file.

    A secret that was made before tokens had a time has signed some without: these are accepted for
    `TOKEN_DAYS` from now on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "secret"
    if not path.exists():
        (folder / "signed").touch(mode=0o600)  # what this secret signs has a time
        draft = _draft(folder)
        try:
            os.link(draft, path)  # the first process wins, whole
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    elif not (folder / "signed").exists():
        until = int((time.time() if now is None else now) + TOKEN_DAYS * DAY)
        (folder / f"unsigned-until-{until}").touch(mode=0o600)
        (folder / "signed").touch(mode=0o600)
    return path.read_bytes()


def share_secret(folder: Path, secret: str, *, accept_seconds: float, now: float) -> None:
    """Sign with the secret that gateways on other hosts are given too.

    Where another one signed until now, what it signed is accepted for `accept_seconds`.

    Raises:
        InvalidInputError: It is too short to be one.
    """
    given = secret.encode("utf-8", "surrogateescape")
    if len(given) < _SHORTEST_SECRET:
        raise InvalidInputError(
            f"RATCHET_GATEWAY_SECRET must have at least {_SHORTEST_SECRET} characters, got "
            f"{len(given)}; make one with `openssl rand -hex 32`"
        )
    if not (folder / "secret").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "signed").touch(mode=0o600)
        with FileLock(folder / "secret.lock"):
            _draft(folder, given).replace(folder / "secret")
    elif load_secret(folder, now=now) != given:
        rotate(folder, accept_seconds=accept_seconds, now=now, secret=given)


def rotate(folder: Path, *, accept_seconds: float, now: float, secret: bytes | None = None) -> None:
    """Put a secret in place, a new one by default; what the one before signed counts for so long.

    Secrets whose time is over are deleted.
    """
    load_secret(folder, now=now)
    with FileLock(folder / "secret.lock"):
        for path in folder.glob("*-until-*"):
            match = _UNTIL.fullmatch(path.name)
            if match and float(match[2]) < now:
                path.unlink(missing_ok=True)
        current = folder / "secret"
        until = int(now + accept_seconds)
        if accept_seconds > 0:
            kept = folder / f"secret-until-{until}"
            while kept.exists():  # rotated twice within a second
                until += 1
                kept = folder / f"secret-until-{until}"
            os.link(current, kept)
        _draft(folder, secret).replace(current)


def unsigned_token(secret: bytes, interaction_id: str) -> str:
    """Return a token of the form that had neither user nor time."""
    mac = hmac.digest(secret, interaction_id.encode("utf-8", "surrogatepass"), "sha256")
    return base64.urlsafe_b64encode(mac[:_TOKEN_BYTES]).decode()


def is_of_a_gateway(interaction_id: str) -> bool:
    """Tell whether an id has the form of those that gateways make."""
    return _OUR_ID.fullmatch(interaction_id) is not None


def _draft(folder: Path, secret: bytes | None = None) -> Path:
    draft = folder / f"secret.{os.getpid()}.{secrets.token_hex(4)}"
    draft.touch(mode=0o600)
    draft.write_bytes(secret or secrets.token_bytes(32))
    return draft


def _mac(secret: bytes, *words: str) -> str:
    content = "\x1f".join(("token", *words)).encode("utf-8", "surrogatepass")
    mac = hmac.digest(secret, content, "sha256")
    return base64.urlsafe_b64encode(mac[:_TOKEN_BYTES]).decode()


def _user(secret: bytes, user: str) -> str:
    content = b"user\x1f" + user.encode("utf-8", "surrogatepass")
    digest = hmac.digest(secret, content, "sha256")
    return base64.urlsafe_b64encode(digest[:_USER_BYTES]).decode()


def _tag(secret: bytes, random: str, application: str) -> str:
    content = f"application\x1f{random}\x1f{application}".encode("utf-8", "surrogatepass")
    return hmac.digest(secret, content, "sha256").hex()[:_TAG]


def _same(one: str, other: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(one.encode(), other.encode("utf-8", "replace"))
