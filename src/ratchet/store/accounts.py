"""Accounts of people, and the tokens that prove who a browser belongs to.

Unlike events, accounts change and tokens end, so both are rows that are updated and deleted. Every
change is in the journal as an `AuditEntry`. Of a token only the hash is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import uuid4

import sqlalchemy as sa

from ratchet.errors import ConflictError
from ratchet.records.accounts import Account, AuditEntry, Outcome, PageRole
from ratchet.store.journal import Journal
from ratchet.store.rows import microseconds, moment_of
from ratchet.store.tables import ACCOUNT_TOKENS, ACCOUNTS
from ratchet.store.transactions import Transactions

Purpose = Literal["session", "invitation"]


@dataclass(frozen=True, slots=True)
class AccountToken:
    """A secret that somebody holds, by its hash.

    Attributes:
        hash: SHA-256 (hex) of the secret.
        purpose: A session of a browser, or a one-time link that sets a password.
        account_id: Whose; empty for the link that makes the first admin.
        expires_at: From then on it proves nothing.
    """

    hash: str
    purpose: Purpose
    account_id: str
    expires_at: datetime


class Accounts(Transactions):
    """Accounts by id, and tokens by hash."""

    def accounts(self) -> tuple[Account, ...]:
        """Return all accounts, those made first in front."""
        query = sa.select(ACCOUNTS).order_by(ACCOUNTS.c.position)
        with self.reading() as connection:
            return tuple(_account(row) for row in connection.execute(query).mappings())

    def has_accounts(self) -> bool:
        """Tell whether there is any account."""
        with self.reading() as connection:
            return connection.execute(sa.select(ACCOUNTS.c.id).limit(1)).first() is not None

    def account(self, account_id: str) -> Account | None:
        """Return the account with this id, or None."""
        return self._one(ACCOUNTS.c.id == account_id)

    def account_of_subject(self, subject: str) -> Account | None:
        """Return the account of a subject of OpenID Connect, or None."""
        return self._one(ACCOUNTS.c.subject == subject)

    def add_account(self, account: Account) -> None:
        """Store a new account.

        Raises:
            ConflictError: The name is taken.
        """
        row = account.model_dump() | {
            "created_at": microseconds(account.created_at),
            "disabled": int(account.disabled),
        }
        with self.atomic() as connection:
            if self.account(account.id) is not None:
                raise ConflictError(
                    f"an account's name is given once, got {account.name!r} again; choose another, "
                    "or change the account that has it"
                )
            connection.execute(sa.insert(ACCOUNTS), row)

    def change_account(
        self,
        account_id: str,
        *,
        role: PageRole | None = None,
        password_hash: str | None = None,
        subject: str | None = None,
        disabled: bool | None = None,
    ) -> None:
        """Change what is given of an account; None leaves a value as it is."""
        given = {"role": role, "password_hash": password_hash, "subject": subject}
        values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if disabled is not None:
            values["disabled"] = int(disabled)
        if values:
            change = sa.update(ACCOUNTS).where(ACCOUNTS.c.id == account_id).values(values)
            with self.atomic() as connection:
                connection.execute(change)

    def add_token(self, token: AccountToken, *, now: datetime) -> None:
        """Keep a token, and delete those whose time is over."""
        row = {
            "hash": token.hash,
            "purpose": token.purpose,
            "account_id": token.account_id,
            "expires_at": microseconds(token.expires_at),
        }
        over = ACCOUNT_TOKENS.c.expires_at <= microseconds(now)
        with self.atomic() as connection:
            connection.execute(sa.delete(ACCOUNT_TOKENS).where(over))
            connection.execute(sa.insert(ACCOUNT_TOKENS), row)

    def token(self, token_hash: str, purpose: Purpose, *, now: datetime) -> AccountToken | None:
        """Return the token with this hash; None where there is none, or its time is over."""
        columns = ACCOUNT_TOKENS.c
        query = sa.select(ACCOUNT_TOKENS).where(
            columns.hash == token_hash,
            columns.purpose == purpose,
            columns.expires_at > microseconds(now),
        )
        with self.reading() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            return None
        expires_at = moment_of(row["expires_at"])
        return AccountToken(row["hash"], row["purpose"], row["account_id"], expires_at)

    def take_token(
        self, token_hash: str, purpose: Purpose, *, now: datetime
    ) -> AccountToken | None:
        """Return a token and delete it, so that it is used once; None where it proves nothing."""
        with self.atomic() as connection:
            found = self.token(token_hash, purpose, now=now)
            gone = sa.delete(ACCOUNT_TOKENS).where(ACCOUNT_TOKENS.c.hash == token_hash)
            taken = connection.execute(gone).rowcount
        return found if taken else None

    def end_tokens(self, account_id: str, purpose: Purpose) -> int:
        """Delete the tokens of an account for one purpose; return how many there were."""
        columns = ACCOUNT_TOKENS.c
        mine = sa.and_(columns.account_id == account_id, columns.purpose == purpose)
        with self.atomic() as connection:
            return connection.execute(sa.delete(ACCOUNT_TOKENS).where(mine)).rowcount

    def _one(self, where: sa.ColumnElement[bool]) -> Account | None:
        with self.reading() as connection:
            row = connection.execute(sa.select(ACCOUNTS).where(where)).mappings().first()
        return None if row is None else _account(row)


def _account(row: sa.RowMapping) -> Account:
    values = {name: row[name] for name in Account.model_fields}
    values["created_at"] = moment_of(row["created_at"])
    values["disabled"] = bool(row["disabled"])
    return Account.model_validate(values)


def note_action(
    store: Journal,
    by: str,
    action: str,
    *,
    now: datetime,
    about: str = "",
    outcome: Outcome = "done",
    reason: str = "",
    address: str = "",
) -> None:
    """Keep what somebody did in the audit; see `AuditEntry`.

    A record that the same action writes carries the same time, by which the two are known as one.
    """
    store.append(
        AuditEntry(
            id=str(uuid4()),
            created_at=now,
            by=_kept(by, 200),
            action=action,
            about=_kept(about, 200),
            outcome=outcome,
            reason=_kept(reason, 2_000),
            address=_kept(address, 100),
        )
    )


def _kept(text: str, most: int) -> str:
    """Return the beginning of a text in the characters that a store can hold."""
    return text[:most].replace("\x00", "\u2400").encode("utf-8", "replace").decode("utf-8")
