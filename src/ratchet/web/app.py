"""The application of the pages: what its routes share, and what answers when something goes wrong.

app = create_pages(settings, store, PagesOptions())
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

from argon2 import PasswordHasher
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from ratchet.deploy.answering import Answering
from ratchet.errors import ConflictError, RatchetError
from ratchet.gateway.access import RateLimits
from ratchet.gateway.problems import ProblemError
from ratchet.gateway.shield import Shield
from ratchet.operate.answering import answering_of
from ratchet.review.policy import PolicyReader
from ratchet.settings import Settings
from ratchet.store import EventStore
from ratchet.tracking import Tracker
from ratchet.web.accounts import HASHER
from ratchet.web.alerts import add_alerts
from ratchet.web.audit import add_audit
from ratchet.web.boards import add_boards
from ratchet.web.charts import add_charts
from ratchet.web.dashboard import add_dashboard
from ratchet.web.drawing import Drawer
from ratchet.web.keeping_accounts import add_accounts
from ratchet.web.metrics import add_metrics
from ratchet.web.openid import add_openid
from ratchet.web.options import PagesOptions
from ratchet.web.people import Doorkeeper, RefusedError, SignInNeededError
from ratchet.web.refreshing import Kept, Refreshed
from ratchet.web.releases import add_releases
from ratchet.web.rendering import Place, page
from ratchet.web.review import add_review
from ratchet.web.runs import add_runs
from ratchet.web.signals import add_signals
from ratchet.web.signing_in import add_signing_in
from ratchet.web.standing import Standing, standing
from ratchet.web.training_sets import add_training_sets
from ratchet.web.users import add_users
from ratchet.web.visitors import Visitors

logger = logging.getLogger(__name__)

MOST_BYTES = 2_000_000
_TRIES_A_SECOND, _MOST_TRIES = 0.1, 10.0
_NAMED_A_SECOND, _MOST_NAMED = 1 / 30, 50.0


@dataclass(slots=True)
class Pages:
    """What the routes share.

    Attributes:
        settings: Of the home.
        store: Of the home.
        options: How the pages are served.
        clock: Tells the time.
        doorkeeper: Finds out who sends a request.
        hasher: Hashes passwords.
        places: What the navigation leads to; each module of pages adds its own.
        refreshed: Figures that are made in the background.
        drawer: Draws charts.
        kept: What is made of records, and kept until another one is written.
        review_policy: By what people review.
        tries: Attempts to sign in, by address.
        named_tries: The same by the name that was typed.
    """

    settings: Settings
    store: EventStore
    options: PagesOptions
    clock: Callable[[], datetime]
    doorkeeper: Doorkeeper
    hasher: PasswordHasher = HASHER
    places: tuple[Place, ...] = ()
    tries: RateLimits = field(default_factory=lambda: RateLimits(_TRIES_A_SECOND, most=_MOST_TRIES))
    named_tries: RateLimits = field(
        default_factory=lambda: RateLimits(_NAMED_A_SECOND, most=_MOST_NAMED)
    )
    refreshed: Refreshed = field(init=False)
    drawer: Drawer = field(init=False)
    kept: Kept = field(init=False)
    review_policy: PolicyReader = field(init=False)
    _tracker: Tracker | None = None

    def __post_init__(self) -> None:
        self.refreshed = Refreshed(self.clock)
        self.drawer = Drawer(self.settings.store_url)
        self.kept = Kept(self.store, self.clock)
        self.review_policy = PolicyReader(self.settings.review)

    def tracker(self) -> Tracker:
        """Return the home's MLflow, which takes seconds to open the first time."""
        if self._tracker is None:
            settings = self.settings
            self._tracker = Tracker(
                settings.tracking_uri,
                artifacts=settings.artifacts,
                model_name=settings.model_name,
            )
        return self._tracker

    def answering(self) -> Answering:
        """Return by what versions have to answer before users are sent to them."""
        return answering_of(self.settings, self.store, self.tracker, os.environ)

    def standing(self) -> Standing:
        """Return the state of the home; what another record changes of it is gathered anew."""
        return standing(self.store, self.clock(), self.kept)


def create_pages(
    settings: Settings,
    store: EventStore,
    options: PagesOptions,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    hasher: PasswordHasher = HASHER,
) -> FastAPI:
    """Return the application.

    Args:
        settings: Of the home.
        store: Of the home; the application does not close it.
        options: How the pages are served.
        clock: Tells the time.
        hasher: Hashes passwords.
    """
    pages = Pages(settings, store, options, clock, Doorkeeper(store, options), hasher)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        pages.drawer.close()
        pages.refreshed.close()

    app = FastAPI(
        title="Ratchet", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan
    )
    app.state.pages = pages
    for add in _PAGES:
        app.state.pages.places += add(app)
    _add_shared(app)
    for error, answer in _ANSWERS:
        app.add_exception_handler(error, answer)
    app.add_middleware(
        Shield,
        most_bytes=MOST_BYTES,
        origins=[options.address] if options.address else [],
        loopback_only=lambda: options.is_loopback and options.address is None,
    )
    app.add_middleware(Visitors, encrypted=options.is_encrypted)
    return app


_PAGES = (
    add_dashboard, add_alerts, add_charts, add_boards, add_signals, add_review, add_releases,
    add_training_sets, add_users, add_runs, add_signing_in, add_openid, add_audit, add_accounts,
    add_metrics,
)  # fmt: skip
"""In the order of the navigation."""


def _add_shared(app: FastAPI) -> None:
    @app.get("/health")
    def health() -> Response:
        return PlainTextResponse("ratchet pages")

    app.mount("/static", StaticFiles(packages=[("ratchet.web", "static")]))


# What answers an error ----------------------------------------------------------------------------


def _sign_in(request: Request, _error: Exception) -> Response:
    path = request.url.path
    query = f"?{request.url.query}" if request.url.query else ""
    back = quote(path + query, safe="") if request.method == "GET" and path != "/" else ""
    target = f"/log-in?next={back}" if back else "/log-in"
    if "hx-request" in request.headers:
        return Response(status_code=204, headers={"hx-redirect": "/log-in"})
    return RedirectResponse(target, 303)


def _refused(request: Request, error: Exception) -> Response:
    return explain(request, 403, "Not for you", str(error))


def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return explain(request, error.status, "Too much at once", error.message, error.headers)


def _invalid(request: Request, error: Exception) -> Response:
    status = 409 if isinstance(error, ConflictError) else 422
    return explain(request, status, "This was not done", str(error))


def _unknown(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    said = "There is no such page." if status == 404 else "This page does not take that."
    if isinstance(error, HTTPException) and error.detail.startswith("There is no "):
        said = error.detail
    return explain(request, status, "Nothing here", said)


def _failed(request: Request, error: Exception) -> Response:
    logger.error("a page failed: %s %s", request.method, request.url.path, exc_info=error)
    said = "The page failed. The log of the pages says why."
    return explain(request, 500, "This failed", said)


def explain(
    request: Request,
    status: int,
    title: str,
    message: str,
    headers: dict[str, str] | None = None,
) -> Response:
    """Return a page that says why something was not done; for htmx the message alone."""
    template = "message.html" if "hx-request" in request.headers else "explained.html"
    return page(
        request, None, template, status=status, headers=headers, title=title, message=message
    )


_ANSWERS = (
    (SignInNeededError, _sign_in),
    (RefusedError, _refused),
    (ProblemError, _problem),
    (RatchetError, _invalid),
    (RequestValidationError, _unknown),
    (HTTPException, _unknown),
    (Exception, _failed),
)
