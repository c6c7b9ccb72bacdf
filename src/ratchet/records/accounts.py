"""Records of the pages for people: accounts, and the audit of what their holders did."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ratchet.records.base import Identifier, Record, Text, UtcTime

PageRole = Literal["viewer", "reviewer", "engineer", "admin"]
"""What a person may do: see; also label; also release and look after alerts; also keep accounts."""
Outcome = Literal["done", "refused", "failed"]
"""How an action went: it was done, refused to this person, or failed."""
PAGE_ROLES: tuple[PageRole, ...] = ("viewer", "reviewer", "engineer", "admin")
"""The roles from the least to the most; each may do all that those before it may."""


class Account(Record):
    """Somebody who may use the pages.

    Attributes:
        id: Derived from the name without regard to case, so that a name is taken once.
        name: Name that others see, and that approvals carry.
        password_hash: Argon2 hash; None for an account without a password.
        subject: Issuer and subject of OpenID Connect; None for others.
        disabled: Whether it may not sign in.
    """

    id: Identifier
    created_at: UtcTime
    name: Identifier
    role: PageRole
    password_hash: str | None = Field(default=None, repr=False)
    subject: str | None = None
    disabled: bool = False


class AuditEntry(Record):
    """One thing that a person did, or tried to do, on the pages or by a command.

    Attributes:
        by: Name of the person; the name that was typed where nobody signed in.
        action: The action, in a few words, e.g. `log-in` or `approve`.
        about: Id or name of what it was done to.
        outcome: Whether it was done, refused to this person, or failed.
        reason: The person's reason, or the reason of the refusal.
        address: Network address of the browser; empty for a command.
    """

    id: Identifier
    created_at: UtcTime
    by: str = Field(max_length=200)
    action: Identifier
    about: str = Field(default="", max_length=200)
    outcome: Outcome = "done"
    reason: Text = ""
    address: str = Field(default="", max_length=100)
