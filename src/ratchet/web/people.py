"""Who sends a request, and what that person may do.

    @app.get("/alerts")
    def alerts(request: Request, person: Annotated[Person, needs("viewer")]) -> Response: ...

    @app.post("/alerts/{alert}/resolve")
    def resolve(alert: str, act: Annotated[Act, acts("engineer")]) -> Response: ...

A person is found by, in this order: the header of a proxy that signs people in, a session's cookie,
and, where nobody has an account, a browser on this machine. Every browser gets a random secret in
a cookie before it signs in; the token against forged requests is derived from it, and signing in
replaces it.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import Headers

from ratchet.errors import InvalidInputError
from ratchet.gateway.hosts import is_loopback, proxy_networks
from ratchet.records.accounts import PAGE_ROLES, Account, Outcome, PageRole
from ratchet.store import EventStore
from ratchet.store.accounts import note_action
from ratchet.web.accounts import account_id, new_account, session_account
from ratchet.web.options import PagesOptions

logger = logging.getLogger(__name__)

COOKIE = "ratchet_session"
TOKEN_FIELD, TOKEN_HEADER = "token", "x-ratchet-token"
LOCAL = "local"
"""Name of whoever uses pages without accounts on their own machine."""
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
_MOST_FIELDS = 200
_SECRET_CHARACTERS = range(20, 200)


class SignInNeededError(Exception):
    """A page that only people who signed in may see."""


class RefusedError(Exception):
    """Something that this person may not do, or that did not come from a page of ours."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who sent a request.

    Attributes:
        name: Name that is kept with what they do.
        role: The most that they may do.
        way: How they were found: a session, a proxy, or nothing but this machine.
        token: Stands in each form, against forged requests.
    """

    name: str
    role: PageRole
    way: str
    token: str

    def may(self, role: PageRole) -> bool:
        """Tell whether this person may do what needs a role."""
        return PAGE_ROLES.index(self.role) >= PAGE_ROLES.index(role)


@dataclass(frozen=True, slots=True)
class Act:
    """A form that somebody sent who may do what it asks.

    Attributes:
        person: Who.
        form: Its fields; of one that comes several times the last.
        every: The same, with all values of a field.
        address: Network address of the browser.
        now: When it came.
        store: Where it is noted.
    """

    person: Person
    form: Mapping[str, str]
    every: Mapping[str, tuple[str, ...]]
    address: str
    now: datetime
    store: EventStore

    def text(self, name: str, *, most: int = 2_000) -> str:
        """Return a field without space around it, empty where it is missing.

        Raises:
            InvalidInputError: It is too long.
        """
        found = self.form.get(name, "").strip()
        if len(found) > most:
            raise InvalidInputError(
                f"{name} must have at most {most:,} characters, got {len(found):,}; shorten it"
            )
        return found

    def reason(self) -> str:
        """Return the reason that was given.

        Raises:
            InvalidInputError: There is none.
        """
        found = self.text("reason")
        if not found:
            raise InvalidInputError("an action must have a reason, got none; write one")
        return found

    def note(
        self, action: str, about: str = "", *, reason: str = "", outcome: Outcome = "done"
    ) -> None:
        """Keep in the audit what was done, or failed."""
        note_action(
            self.store,
            self.person.name,
            action,
            now=self.now,
            about=about,
            outcome=outcome,
            reason=reason,
            address=self.address,
        )


@dataclass(slots=True)
class Doorkeeper:
    """Finds out who sends a request.

    Attributes:
        store: Holds accounts and sessions.
        options: Say which proxies are believed, and who is new.
    """

    store: EventStore
    options: PagesOptions
    _networks: list[Any] = field(init=False)

    def __post_init__(self) -> None:
        named = self.options.proxy.addresses if self.options.proxy else ()
        self._networks = [ipaddress.ip_network(text) for text in proxy_networks(named)]

    def person(self, headers: Headers, address: str, secret: str, now: datetime) -> Person | None:
        """Return who sends a request; None where that is not known.

        Args:
            headers: Of the request.
            address: Of the other end of the connection.
            secret: Of the browser's cookie.
            now: The time.

        Raises:
            RefusedError: The proxy names somebody who may not come in.
        """
        token = form_token(secret)
        named = self._named_by_proxy(headers, address)
        if named:
            account = self._of_proxy(named, now, address)
            return Person(account.name, account.role, "proxy", token)
        found = session_account(self.store, secret, now=now) if secret else None
        if found is not None:
            return Person(found.name, found.role, "session", token)
        if self.is_open(headers, address):
            return Person(LOCAL, "admin", "this machine", token)
        return None

    def is_open(self, headers: Headers, address: str) -> bool:
        """Tell whether a browser needs no account: on this machine, while nobody has one.

        A request that a proxy passed on came from elsewhere.
        """
        if not self.options.is_loopback or self.options.proxy or self.options.openid:
            return False
        here = is_loopback(address) and not any(name in headers for name in _FORWARDED)
        return here and not self.store.has_accounts()

    def _named_by_proxy(self, headers: Headers, address: str) -> str | None:
        proxy = self.options.proxy
        if proxy is None:
            return None
        given = headers.getlist(proxy.header)
        try:
            sender = ipaddress.ip_address(address)
        except ValueError:
            return None
        if not given or not any(sender in network for network in self._networks):
            return None
        if len(given) > 1:
            raise RefusedError(
                f"the header {proxy.header} must come once, got {len(given)}; have the proxy "
                "remove those that browsers send"
            )
        return given[0].strip() or None

    def _of_proxy(self, name: str, now: datetime, address: str) -> Account:
        account = self.store.account(account_id(name))
        if account is None:
            account = self.newcomer(new_account_of(name, self.options, now), now, address)
        if account.disabled:
            raise RefusedError(f"the account {account.name!r} is disabled; ask an admin")
        return account

    def newcomer(self, account: Account, now: datetime, address: str) -> Account:
        """Store the account of somebody who came in for the first time, and return it."""
        self.store.add_account(account)
        note_action(
            self.store,
            account.name,
            "first sign-in",
            now=now,
            about=account.role,
            address=address,
        )
        return account


def new_account_of(
    name: str, options: PagesOptions, now: datetime, *, subject: str | None = None
) -> Account:
    """Return an account for somebody who was signed in elsewhere.

    Raises:
        RefusedError: Nobody new is let in, or the name is not fit for an account.
    """
    if options.newcomers is None:
        raise RefusedError(
            f"{name[:120]!r} has no account here; have an admin add one by `ratchet accounts add`, "
            "or say `newcomers` in the file of RATCHET_PAGES"
        )
    try:
        return new_account(name, options.newcomers, now=now, subject=subject)
    except InvalidInputError as error:
        raise RefusedError(str(error)) from error


# Cookies and tokens -------------------------------------------------------------------------------


def browser_secret(request: Request) -> str:
    """Return the secret of a browser's cookie, empty where it has none."""
    found = request.cookies.get(COOKIE, "")
    return found if found.isascii() and len(found) in _SECRET_CHARACTERS else ""


def new_secret() -> str:
    """Return a secret for a browser that has none."""
    return secrets.token_urlsafe(32)


def form_token(secret: str) -> str:
    """Return the token that stands in forms for the browser with this secret."""
    return derived(secret, "form")


def derived(secret: str, purpose: str) -> str:
    """Return a value that only who knows a browser's secret can tell."""
    return hmac.new(secret.encode(), purpose.encode(), hashlib.sha256).hexdigest()


def caller(request: Request) -> str:
    """Return the address of the other end of a connection."""
    return request.client.host if request.client else ""


async def read_form(request: Request) -> dict[str, tuple[str, ...]]:
    """Return all values of each field of a form.

    Raises:
        RefusedError: It is no form, or has too many fields.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise RefusedError("a form must be sent as application/x-www-form-urlencoded")
    text = (await request.body()).decode("utf-8", "replace")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise RefusedError(f"a form must have at most {_MOST_FIELDS} fields, got more") from error
    found: dict[str, tuple[str, ...]] = {}
    for name, value in pairs:
        found[name] = (*found.get(name, ()), value.replace("\r\n", "\n"))
    return found


def check_token(request: Request, form: Mapping[str, tuple[str, ...]]) -> None:
    """See that a form came from a page that this browser was shown.

    Raises:
        RefusedError: It did not.
    """
    secret = browser_secret(request)
    given = request.headers.get(TOKEN_HEADER) or next(iter(form.get(TOKEN_FIELD, ())), "")
    same = hmac.compare_digest(given.encode("utf-8", "replace"), form_token(secret).encode())
    if not secret or not same:
        raise RefusedError(
            "this form is of another session, perhaps since you signed in again; go back, load "
            "the page anew and send it once more"
        )


# What routes ask for ------------------------------------------------------------------------------


def needs(role: PageRole) -> Any:
    """Return what a route declares to be reached by people with a role, and to know who it is."""

    def person(request: Request) -> Person:
        found = who(request)
        if found is None:
            raise SignInNeededError
        if not found.may(role):
            raise RefusedError(too_little(found, role))
        return found

    return Depends(person)


def acts(role: PageRole) -> Any:
    """Return what a route declares that changes something: who does it, and the form's fields."""

    async def act(request: Request) -> Act:
        form = await read_form(request)
        found = await run_in_threadpool(who, request)
        if found is None:
            raise SignInNeededError
        check_token(request, form)
        shared = request.app.state.pages
        made = Act(
            person=found,
            form={name: values[-1] for name, values in form.items()},
            every=form,
            address=caller(request),
            now=shared.clock(),
            store=shared.store,
        )
        if not found.may(role):
            path = request.url.path
            await run_in_threadpool(made.note, "refused", path, reason=role, outcome="refused")
            raise RefusedError(too_little(found, role))
        return made

    return Depends(act)


def who(request: Request) -> Person | None:
    """Return who sends a request; None where that is not known."""
    shared = request.app.state.pages
    keeper: Doorkeeper = shared.doorkeeper
    secret = request.state.secret
    return keeper.person(request.headers, caller(request), secret, shared.clock())


def too_little(person: Person, role: PageRole) -> str:
    """Return why somebody may not do what needs a role."""
    return (
        f"this needs the role {role}, and {person.name} has the role {person.role}; ask an admin "
        "for another one"
    )
