"""Log-in, log-out and the one-time link that makes the first admin or sets a password."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from ratchet.errors import ConflictError, InvalidInputError
from ratchet.gateway.access import ANYBODY, Caller
from ratchet.gateway.hosts import caller_address
from ratchet.gateway.problems import ProblemError
from ratchet.records.accounts import Account
from ratchet.store.accounts import note_action
from ratchet.web.accounts import (
    FEWEST_CHARACTERS,
    accept,
    account_id,
    check_password,
    digest_of,
    invited,
    link_is_over,
    open_session,
)
from ratchet.web.people import (
    Act,
    Person,
    acts,
    browser_secret,
    caller,
    check_token,
    needs,
    read_form,
    who,
)
from ratchet.web.rendering import Place, page
from ratchet.web.visitors import cookie

_WRONG = "Name and password do not belong together, or the account is disabled."


def add_signing_in(app: FastAPI) -> tuple[Place, ...]:
    """Add the pages of log-in, log-out and one-time links."""

    @app.get("/log-in")
    def show_log_in(request: Request) -> Response:
        return _log_in_page(request, local_path(_next_of(request)))

    @app.post("/log-in")
    async def log_in(request: Request) -> Response:
        form = await read_form(request)
        check_token(request, form)
        fields = {name: values[-1] for name, values in form.items()}
        return await run_in_threadpool(_log_in, request, fields)

    @app.post("/log-out")
    def log_out(request: Request, act: Annotated[Act, acts("viewer")]) -> Response:
        shared = request.app.state.pages
        shared.store.take_token(digest_of(request.state.secret), "session", now=act.now)
        act.note("log-out")
        answer = RedirectResponse("/log-in", 303)
        answer.headers.append(
            "set-cookie", cookie("", encrypted=shared.options.is_encrypted, seconds=0)
        )
        return answer

    @app.get("/welcome/{secret}")
    def show_welcome(request: Request, secret: str) -> Response:
        return _welcome_page(request, secret)

    @app.post("/welcome/{secret}")
    async def welcome(request: Request, secret: str) -> Response:
        form = await read_form(request)
        check_token(request, form)
        fields = {name: values[-1] for name, values in form.items()}
        return await run_in_threadpool(_welcome, request, secret, fields)

    @app.get("/you")
    def show_you(request: Request, person: Annotated[Person, needs("viewer")]) -> Response:
        return page(request, person, "you.html")

    return ()


def local_path(target: str) -> str:
    """Return a path of these pages to go on to, `/` for anything else."""
    parts = urlsplit(target.replace("\\", "/"))
    is_ours = target.startswith("/") and not target.startswith("//") and not parts.netloc
    return target if is_ours and not parts.scheme and target.isprintable() else "/"


def signed_in(request: Request, account: Account, target: str) -> Response:
    """Return the answer that gives a browser a new session."""
    shared = request.app.state.pages
    hours, now = shared.options.session_hours, shared.clock()
    before = browser_secret(request)
    if before:  # whoever signs in again leaves the session of before
        shared.store.take_token(digest_of(before), "session", now=now)
    secret = open_session(shared.store, account, hours=hours, now=now)
    answer = RedirectResponse(target, 303)
    header = cookie(
        secret, encrypted=shared.options.is_encrypted, seconds=max(1, int(hours * 3_600))
    )
    answer.headers.append("set-cookie", header)
    return answer


def _log_in_page(request: Request, target: str, *, problem: str = "", name: str = "") -> Response:
    shared = request.app.state.pages
    openid, known = shared.options.openid, who(request)
    return page(
        request,
        None,
        "log_in.html",
        status=401 if problem else 200,
        target=target,
        problem=problem,
        name=name,
        openid=None if openid is None else openid.says,
        is_new=not shared.store.has_accounts(),
        known=known,
    )


def _log_in(request: Request, fields: dict[str, str]) -> Response:
    shared = request.app.state.pages
    name, password = fields.get("name", "").strip()[:200], fields.get("password", "")
    target, now = local_path(fields.get("next", "/")), shared.clock()
    address = caller(request)
    _count_try(request, name)
    account = check_password(shared.store, name, password, shared.hasher)
    if account is None:
        note_action(
            shared.store, name, "log-in", now=now, outcome="refused", reason="password",
            address=address,
        )  # fmt: skip
        return _log_in_page(request, target, problem=_WRONG, name=name)
    note_action(shared.store, account.name, "log-in", now=now, address=address)
    return signed_in(request, account, target)


def _count_try(request: Request, name: str) -> None:
    """Count an attempt to sign in.

    Raises:
        ProblemError: Too many came from this address, or for this name.
    """
    shared = request.app.state.pages
    tries = (
        (shared.tries, f"from:{caller_address(caller(request))}"),
        (shared.named_tries, f"for:{account_id(name)}"),
    )
    for limits, key in tries:
        try:
            limits.take(Caller(key, ANYBODY, frozenset()), what="log-ins")
        except ProblemError as error:
            wait = error.headers.get("retry-after", "60")
            raise ProblemError(
                429,
                f"There were too many attempts to sign in; try again in {wait} seconds.",
                headers=error.headers,
            ) from error


def _next_of(request: Request) -> str:
    return parse_qs(request.url.query).get("next", ["/"])[0]


# One-time links -----------------------------------------------------------------------------------


def _welcome_page(request: Request, secret: str, *, problem: str = "", name: str = "") -> Response:
    shared = request.app.state.pages
    is_good, account = invited(shared.store, secret, now=shared.clock())
    if not is_good:
        raise link_is_over()
    return page(
        request,
        None,
        "welcome.html",
        status=422 if problem else 200,
        secret=secret,
        account=account,
        name=name,
        problem=problem,
        fewest=FEWEST_CHARACTERS,
    )


def _welcome(request: Request, secret: str, fields: dict[str, str]) -> Response:
    shared = request.app.state.pages
    name, password = fields.get("name", "").strip(), fields.get("password", "")
    now, address = shared.clock(), caller(request)
    _count_try(request, digest_of(secret))
    try:
        if password != fields.get("again", ""):
            raise InvalidInputError("the password must be typed twice alike, got two; type again")
        account = accept(shared.store, secret, name, password, now=now, hasher=shared.hasher)
    except ConflictError:
        note_action(
            shared.store, name, "one-time link", now=now, outcome="refused", address=address
        )
        raise
    except InvalidInputError as error:
        return _welcome_page(request, secret, problem=str(error), name=name)
    note_action(
        shared.store, account.name, "one-time link", now=now, about=account.role, address=address
    )
    return signed_in(request, account, "/")
