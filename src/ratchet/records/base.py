"""What all records share: strict frozen models, text that can be stored, times in UTC."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import NAMESPACE_URL, UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MAX_TEXT_CHARACTERS = 100_000


def _to_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"time must carry a time zone, got {moment.isoformat()}; add 'Z' for UTC")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(
            f"time must lie in the years 1 to 9999 in UTC, got {moment.isoformat()}"
        ) from error


def no_surrogates(text: str) -> str:
    """Refuse text that UTF-8 or PostgreSQL cannot hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text must be valid Unicode, got an unpaired surrogate at {error.start}"
        ) from error
    if "\x00" in text:
        raise ValueError(
            "text must hold no NUL characters, which PostgreSQL cannot store, "
            f"got {text[:40]!r}; remove them"
        )
    return text


UtcTime = Annotated[datetime, AfterValidator(_to_utc)]
Identifier = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(no_surrogates)]
Text = Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS), AfterValidator(no_surrogates)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


def derive_id(*parts: object) -> str:
    """Return the same UUID for the same parts, so that work done twice is stored once."""
    named = NAMESPACE_URL.bytes + "\x1f".join(map(str, parts)).encode()
    return str(UUID(bytes=hashlib.sha1(named, usedforsecurity=False).digest()[:16], version=5))


def digest(value: Any) -> str:
    """Return the SHA-256 (hex, 64 characters) of a JSON-able value in canonical form."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def draw_of(*words: str | int) -> float:
    """Return a number in [0, 1), drawn at random, always the same one for the same words."""
    return int(digest(list(words))[:13], 16) / 16**13


def user_digest(user: str) -> str:
    """Return what stands for a user in a frozen set of examples."""
    return digest(["user", user])[:16]


class Record(BaseModel):
    """Configuration shared by all records; each builds its validator when it is first used."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    def canonical(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        return self.model_dump(mode="json")
