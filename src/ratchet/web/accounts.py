"""Accounts: made by an invitation, opened by a password, ended by an admin.

    link = invite(store, account, now=now)          # a secret, shown once
    account = accept(store, secret, "ada", "a long password", now=now)
    secret = open_session(store, account, hours=12.0, now=now)

Passwords are hashed with Argon2id by the parameters of RFC 9106 for little memory (64 MiB, three
passes), which `argon2-cffi` has as its default. A hash with other parameters is renewed at log-in.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta
from functools import cache
from threading import BoundedSemaphore

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from ratchet.errors import ConflictError, InvalidInputError
from ratchet.records import derive_id
from ratchet.records.accounts import Account, PageRole
from ratchet.store import EventStore
from ratchet.store.accounts import AccountToken

FEWEST_CHARACTERS, MOST_CHARACTERS = 12, 1_000
INVITATION = timedelta(hours=72)
FIRST_INVITATION = timedelta(hours=24)
NOBODY = ""
"""Whose invitation it is that makes the first admin."""
HASHER = PasswordHasher()
_AT_A_TIME = BoundedSemaphore(2)  # each takes 64 MiB and a core
_MOST_NAME = 120


def account_id(name: str) -> str:
    """Return the id of the account with a name, whatever the case of its letters."""
    return derive_id("account", name.strip().casefold())


def new_account(
    name: str,
    role: PageRole,
    *,
    now: datetime,
    password_hash: str | None = None,
    subject: str | None = None,
) -> Account:
    """Return an account that is not stored yet.

    Raises:
        InvalidInputError: The name is not fit for one.
    """
    shown = name.strip()
    if not shown or len(shown) > _MOST_NAME or not shown.isprintable():
        raise InvalidInputError(
            f"a name must be one line of 1 to {_MOST_NAME} printable characters, got "
            f"{len(shown)}: {shown[:40]!r}; choose another"
        )
    return Account(
        id=account_id(shown),
        created_at=now,
        name=shown,
        role=role,
        password_hash=password_hash,
        subject=subject,
    )


def hash_password(password: str, hasher: PasswordHasher = HASHER) -> str:
    """Return the Argon2 hash of a password.

    Raises:
        InvalidInputError: It is too short or too long.
    """
    if not FEWEST_CHARACTERS <= len(password) <= MOST_CHARACTERS:
        raise InvalidInputError(
            f"a password must have {FEWEST_CHARACTERS} to {MOST_CHARACTERS:,} characters, got "
            f"{len(password):,}; some words in a row will do"
        )
    with _AT_A_TIME:
        return hasher.hash(password.encode("utf-8", "surrogatepass"))


def check_password(
    store: EventStore, name: str, password: str, hasher: PasswordHasher = HASHER
) -> Account | None:
    """Return the account that a name and a password open; None where they open none.

    It takes as long for a name that nobody has, so that time tells no names.
    """
    account = store.account(account_id(name))
    known = None if account is None else account.password_hash
    stored = known or _unknown_hash(hasher)
    given = password[:MOST_CHARACTERS].encode("utf-8", "surrogatepass")
    try:
        with _AT_A_TIME:
            hasher.verify(stored, given)
    except (VerificationError, InvalidHashError):
        return None
    if account is None or known is None or account.disabled:
        return None
    if hasher.check_needs_rehash(known):
        store.change_account(account.id, password_hash=hash_password(password, hasher))
    return account


@cache
def _unknown_hash(hasher: PasswordHasher) -> str:
    return hasher.hash(secrets.token_bytes(32))


# Tokens -------------------------------------------------------------------------------------------


def digest_of(secret: str) -> str:
    """Return what is stored of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def open_session(store: EventStore, account: Account, *, hours: float, now: datetime) -> str:
    """Return the secret of a new session, which is kept nowhere."""
    secret = secrets.token_urlsafe(32)
    until = now + timedelta(hours=hours)
    store.add_token(AccountToken(digest_of(secret), "session", account.id, until), now=now)
    return secret


def session_account(store: EventStore, secret: str, *, now: datetime) -> Account | None:
    """Return whose session a secret is; None where it is over or the account is disabled."""
    token = store.token(digest_of(secret), "session", now=now)
    account = None if token is None else store.account(token.account_id)
    return None if account is None or account.disabled else account


def invite(store: EventStore, account: Account | None, *, now: datetime) -> str:
    """Return the secret of a one-time link; links of before for the same account end.

    Args:
        store: The store.
        account: Whose password it sets; None for the first admin.
        now: The time.
    """
    owner = NOBODY if account is None else account.id
    lasts = FIRST_INVITATION if account is None else INVITATION
    secret = secrets.token_urlsafe(24)
    with store.atomic():
        store.end_tokens(owner, "invitation")
        token = AccountToken(digest_of(secret), "invitation", owner, now + lasts)
        store.add_token(token, now=now)
    return secret


def invited(store: EventStore, secret: str, *, now: datetime) -> tuple[bool, Account | None]:
    """Tell whether a link is good, and whose it is; None for the first admin."""
    token = store.token(digest_of(secret), "invitation", now=now)
    if token is None or (token.account_id == NOBODY and store.has_accounts()):
        return False, None
    account = None if token.account_id == NOBODY else store.account(token.account_id)
    is_good = token.account_id == NOBODY or (account is not None and not account.disabled)
    return is_good, account


def accept(
    store: EventStore,
    secret: str,
    name: str,
    password: str,
    *,
    now: datetime,
    hasher: PasswordHasher = HASHER,
) -> Account:
    """Use a one-time link: make the first admin, or set the password of the account invited.

    Sessions that the account had end.

    Args:
        store: The store.
        secret: Of the link.
        name: Of the first admin; not read for any other.
        password: The new one.
        now: The time.
        hasher: Hashes it.

    Raises:
        InvalidInputError: Name or password is not fit; the link stays good.
        ConflictError: The link was used, or its time is over.
    """
    is_good, account = invited(store, secret, now=now)
    if not is_good:
        raise link_is_over()
    hashed = hash_password(password, hasher)
    if account is None:
        made = new_account(name, "admin", now=now, password_hash=hashed)
    else:
        made = account.model_copy(update={"password_hash": hashed})
    with store.atomic():
        if store.take_token(digest_of(secret), "invitation", now=now) is None:
            raise link_is_over()
        if account is None:
            if store.has_accounts():
                raise link_is_over()
            store.add_account(made)
        else:
            store.change_account(made.id, password_hash=made.password_hash)
            store.end_tokens(made.id, "session")
    return made


def link_is_over() -> ConflictError:
    """Return the refusal of a link that proves nothing."""
    return ConflictError(
        "a link must be one that was not used and whose time is not over, got another; have an "
        "admin make a new one by `ratchet accounts invite NAME`"
    )


def find_account(store: EventStore, name: str) -> Account:
    """Return the account with a name.

    Raises:
        InvalidInputError: There is none.
    """
    found = store.account(account_id(name))
    if found is None:
        raise InvalidInputError(
            f"an account must be one that `ratchet accounts list` shows, got {name[:80]!r}"
        )
    return found


def disable(store: EventStore, account: Account) -> None:
    """Keep somebody out from now on; open sessions and links end.

    Raises:
        InvalidInputError: Nobody would be left who keeps accounts.
    """
    with store.atomic():
        _keep_an_admin(store, account)
        store.change_account(account.id, disabled=True)
        store.end_tokens(account.id, "session")
        store.end_tokens(account.id, "invitation")


def change_role(store: EventStore, account: Account, role: PageRole) -> None:
    """Give somebody another role.

    Raises:
        InvalidInputError: Nobody would be left who keeps accounts.
    """
    with store.atomic():
        if role != "admin":
            _keep_an_admin(store, account)
        store.change_account(account.id, role=role)


def _keep_an_admin(store: EventStore, leaving: Account) -> None:
    if leaving.role != "admin" or leaving.disabled:
        return
    others = (one for one in store.accounts() if one.id != leaving.id)
    if not any(one.role == "admin" and not one.disabled for one in others):
        raise InvalidInputError(
            f"somebody must keep the accounts, got {leaving.name!r}, the last admin; make another "
            "one first"
        )
