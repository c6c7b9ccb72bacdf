"""The page on which an admin keeps accounts."""

from __future__ import annotations

from typing import Annotated, get_args

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from ratchet.errors import InvalidInputError, RatchetError
from ratchet.records.accounts import PAGE_ROLES, Account, PageRole
from ratchet.web.accounts import change_role, disable, invite, new_account
from ratchet.web.people import Act, Person, acts, needs
from ratchet.web.rendering import Place, page


def add_accounts(app: FastAPI) -> tuple[Place, ...]:
    """Add the page of accounts."""

    @app.get("/accounts")
    def show_accounts(request: Request, person: Annotated[Person, needs("admin")]) -> Response:
        return _accounts_page(request, person)

    @app.post("/accounts")
    def add(request: Request, act: Annotated[Act, acts("admin")]) -> Response:
        store, role = act.store, role_of(act.text("role"))
        account = new_account(act.text("name"), role, now=act.now)
        store.add_account(account)
        act.note("add account", account.name, reason=role)
        link = _link(request, invite(store, account, now=act.now))
        return _accounts_page(request, act.person, made=account.name, link=link)

    @app.post("/accounts/{account}/invite")
    def renew(request: Request, account: str, act: Annotated[Act, acts("admin")]) -> Response:
        found = _account(act, account)
        act.note("make one-time link", found.name)
        link = _link(request, invite(act.store, found, now=act.now))
        return _accounts_page(request, act.person, made=found.name, link=link)

    @app.post("/accounts/{account}/role")
    def role(account: str, act: Annotated[Act, acts("admin")]) -> Response:
        found, given = _account(act, account), role_of(act.text("role"))
        _do(act, "change role", found, lambda: change_role(act.store, found, given), given)
        return RedirectResponse("/accounts", 303)

    @app.post("/accounts/{account}/disable")
    def keep_out(account: str, act: Annotated[Act, acts("admin")]) -> Response:
        found = _account(act, account)
        _do(act, "disable account", found, lambda: disable(act.store, found), act.reason())
        return RedirectResponse("/accounts", 303)

    @app.post("/accounts/{account}/enable")
    def let_in(account: str, act: Annotated[Act, acts("admin")]) -> Response:
        found = _account(act, account)
        act.store.change_account(found.id, disabled=False)
        act.note("enable account", found.name)
        return RedirectResponse("/accounts", 303)

    return (Place("/accounts", "Accounts", "c", "admin"),)


def role_of(text: str) -> PageRole:
    """Return the role that a text names.

    Raises:
        InvalidInputError: It names none.
    """
    for role in PAGE_ROLES:
        if role == text:
            return role
    raise InvalidInputError(
        f"a role must be one of {', '.join(get_args(PageRole))}, got {text[:40]!r}"
    )


def _accounts_page(request: Request, person: Person, *, made: str = "", link: str = "") -> Response:
    return page(
        request,
        person,
        "accounts.html",
        accounts=request.app.state.pages.store.accounts(),
        roles=PAGE_ROLES,
        made=made,
        link=link,
    )


def _account(act: Act, account_id: str) -> Account:
    found = act.store.account(account_id)
    if found is None:
        raise InvalidInputError("this account is not there; load the list anew")
    return found


def _link(request: Request, secret: str) -> str:
    base = request.app.state.pages.options.address or str(request.base_url).rstrip("/")
    return f"{base}/welcome/{secret}"


def _do(act: Act, action: str, account: Account, step: object, reason: str) -> None:
    """Take a step and keep in the audit how it went."""
    assert callable(step)
    try:
        step()
    except RatchetError as error:
        act.note(action, account.name, reason=f"{reason}: {error}", outcome="failed")
        raise
    act.note(action, account.name, reason=reason)
