"""The page of a user: what is held about them, and forgetting them.

An id is typed into a box and sent in a form, so that it stands in no address, no log and no
history of a browser. The audit names users by the digest that records of erasures have.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Request, Response

from ratchet.errors import InvalidInputError
from ratchet.operate.forgetting import DIGEST_SHOWN, Everywhere
from ratchet.records import Erasure, Release
from ratchet.servers import answering_prefect
from ratchet.store.forgotten import digest_of
from ratchet.store.held import held
from ratchet.store.history import History
from ratchet.web.people import Act, Person, acts, needs
from ratchet.web.rendering import Place, page

_LATEST = 50
_MOST_ID = 1_000


def add_users(app: FastAPI) -> tuple[Place, ...]:
    """Add the page that finds a user, what is held about them, and the action that forgets them."""

    @app.get("/users")
    def ask(request: Request, person: Annotated[Person, needs("engineer")]) -> Response:
        erasures = request.app.state.pages.store.records(Erasure, latest=_LATEST)[::-1]
        return page(request, person, "users.html", erasures=erasures)

    @app.post("/users")
    def show(request: Request, act: Annotated[Act, acts("engineer")]) -> Response:
        user = _user(act)
        act.note("look up user", digest_of(user)[:DIGEST_SHOWN])
        return _user_page(request, act.person, user)

    @app.post("/users/forget")
    def forget(request: Request, act: Annotated[Act, acts("admin")]) -> Response:
        user, reason = _user(act), act.reason()
        if act.text("again", most=_MOST_ID) != user:
            raise InvalidInputError(
                "a user is forgotten for good, so the id must be typed once more as it is, got "
                "another text; go back and type it again"
            )
        shared = request.app.state.pages
        everywhere = Everywhere(
            act.store,
            shared.settings,
            now=act.now,
            prefect=answering_prefect(shared.settings),
            tracker=shared.tracker,
        )
        history = History.open(shared.settings.history, of=act.store)
        done = everywhere.forget(
            user, history, by=act.person.name, reason=reason, address=act.address
        )
        return page(
            request,
            act.person,
            "forgotten.html",
            done=done,
            elsewhere=everywhere,
            champion=_champion(act.store),
        )

    return (Place("/users", "Users", "e", "engineer"),)


def _user(act: Act) -> str:
    """Return the id that was typed, with the spaces that it may have inside.

    Raises:
        InvalidInputError: There is none.
    """
    user = act.text("user", most=_MOST_ID)
    if not user:
        raise InvalidInputError("a user is found by their id, got none; type it as it was sent")
    return user


def _user_page(request: Request, person: Person, user: str) -> Response:
    shared = request.app.state.pages
    history = History.open(shared.settings.history, of=shared.store)
    found = held(shared.store, shared.settings.home, user, in_history=history.user_data(user))
    return page(
        request,
        person,
        "user.html",
        user=user,
        digest=digest_of(user)[:DIGEST_SHOWN],
        held=found,
        champion=_champion(shared.store),
    )


def _champion(store: Any) -> str | None:
    release: Release | None = store.latest(Release)
    return None if release is None else release.champion
