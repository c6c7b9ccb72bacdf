"""The application: routes, what they share, and its description.

app = create_app(GatewayOptions(settings=settings, backend="http://127.0.0.1:8001"))
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException

from ratchet.gateway.access import Caller, RateLimits, identify, load_secret
from ratchet.gateway.backends import Backend, HttpBackend, LocalBackend
from ratchet.gateway.chat import Answerer
from ratchet.gateway.feedback import FeedbackDesk
from ratchet.gateway.log import WriteAheadLog
from ratchet.gateway.options import GatewayOptions
from ratchet.gateway.problems import ProblemError, documented, on_http, on_problem
from ratchet.gateway.routing import Router, State
from ratchet.gateway.schemas import (
    ChatCompletion,
    ChatRequest,
    FeedbackReceipt,
    Health,
    ModelEntry,
    ModelList,
    feedback_schema,
)
from ratchet.gateway.shield import Shield
from ratchet.models import prepare_base_model
from ratchet.models.serving import AdapterModel
from ratchet.store import EventStore

logger = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
EXPOSED = ["x-ratchet-interaction", "x-ratchet-token", "x-ratchet-version", "x-ratchet-recorded"]
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_DESCRIPTION = (
    "OpenAI's chat completions in front of a model that improves from feedback. "
    "The id of a completion is the id of its interaction."
)


@dataclass(slots=True)
class Gateway:
    """What the routes of one process share."""

    options: GatewayOptions
    router: Router
    answerer: Answerer
    desk: FeedbackDesk
    limits: RateLimits

    def caller(self, request: Request) -> Caller:
        """Return who sent a request, within its limit of rate.

        Raises:
            ProblemError: The key is wrong, or too many requests were sent.
        """
        address = request.client.host if request.client else "?"
        state = self.router.state
        reachable = self.options.open or self.options.is_loopback
        found = identify(
            request.headers.get("authorization"),
            address,
            state.keys,
            is_open=reachable and not state.needs_key,
        )
        self.limits.take(found)
        return found

    def health(self) -> Health:
        """Return whether this process works."""
        backends = self.answerer.health()
        fine = self.answerer.recording and any(backends.values())
        aliases = self.router.state.aliases
        return Health(
            status="ok" if fine else "degraded",
            version=self.options.version,
            champion=aliases.get("champion"),
            backends=backends,
            recording=self.answerer.recording,
        )


def create_app(options: GatewayOptions, backends: list[Backend] | None = None) -> FastAPI:
    """Return the application.

    Args:
        options: What it is told.
        backends: What answers, in order; by default what the options name.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _running(options, backends) as gateway:
            app.state.gateway = gateway
            yield

    app = FastAPI(
        title="Ratchet gateway",
        version=options.version,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        exception_handlers={ProblemError: on_problem, HTTPException: on_http},
    )
    _add_api(app)
    _add_pages(app)
    _describe(app)
    if options.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=options.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=EXPOSED,
        )
    app.add_middleware(
        Shield,
        most_bytes=options.most_bytes,
        origins=options.origins,
        loopback_only=options.is_loopback and not options.open,
    )
    return app


@asynccontextmanager
async def _running(
    options: GatewayOptions, backends: list[Backend] | None
) -> AsyncIterator[Gateway]:
    store = EventStore.open(options.settings.store_url)
    answering = _backends(options) if backends is None else backends
    loop = asyncio.get_running_loop()
    default = None if options.backend or backends else Path(options.settings.base_model).name
    router = Router(
        store,
        home=options.settings.home,
        default=default,
        on_change=_preloader(answering[0], options, loop),
    )
    router.refresh()
    log = WriteAheadLog.create(options.folder / "wal")
    secret = load_secret(options.folder)
    gateway = Gateway(
        options=options,
        router=router,
        answerer=Answerer(router, answering, log, secret, sync=options.sync),
        desk=FeedbackDesk(secret, log, sync=options.sync),
        limits=RateLimits(options.rate_per_second, workers=options.workers),
    )
    following = asyncio.create_task(router.follow())
    try:
        yield gateway
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        for backend in answering:
            await backend.close()
        log.close()
        store.close()


def _backends(options: GatewayOptions) -> list[Backend]:
    found: list[Backend] = []
    if options.backend is None:
        base = prepare_base_model(options.settings.base_model, options.settings.cache)
        found.append(LocalBackend(AdapterModel.load(base), max_tokens=options.max_tokens))
    else:
        found.append(
            HttpBackend(
                options.backend,
                key=options.backend_key,
                model=options.backend_model,
                stall_seconds=options.stall_seconds,
            )
        )
    if options.fallback is not None:
        found.append(
            HttpBackend(
                options.fallback,
                name="fallback",
                key=options.fallback_key,
                model=options.fallback_model,
                stall_seconds=options.stall_seconds,
            )
        )
    return found


def _preloader(
    backend: Backend, options: GatewayOptions, loop: asyncio.AbstractEventLoop
) -> Callable[[State], None]:
    """Return what loads the adapters of a new routing before anybody waits for them."""
    wanted = isinstance(backend, LocalBackend) or options.load_adapters

    tasks: set[asyncio.Task[None]] = set()

    async def load(version: str, adapter: Path) -> None:
        try:
            await backend.load_adapter(version, adapter)
        except Exception as error:
            logger.warning("%s cannot be loaded ahead: %s", version, error)

    def begin(version: str, adapter: Path) -> None:
        task = loop.create_task(load(version, adapter))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def on_change(state: State) -> None:
        if not wanted or state.routing is None:
            return
        for version in {variant.version for variant in state.routing.variants}:
            adapter = state.adapters.get(version)
            if adapter is not None:
                loop.call_soon_threadsafe(begin, version, adapter)

    return on_change


# Routes -----------------------------------------------------------------------------------------


def _gateway(request: Request) -> Gateway:
    found: Gateway = request.app.state.gateway
    return found


def _add_api(app: FastAPI) -> None:
    @app.post(
        "/v1/chat/completions",
        responses={
            200: {"model": ChatCompletion, "content": {"text/event-stream": {}}},
            **documented(400, 401, 403, 413, 429, 503),
        },
    )
    async def chat_completions(request: Request) -> Response:
        """Answer a conversation, whole or as a stream of chunks."""
        gateway = _gateway(request)
        caller = gateway.caller(request)
        caller.require("ingest")
        return await gateway.answerer.answer(request, caller)

    @app.post(
        "/v1/feedback",
        responses={200: {"model": FeedbackReceipt}, **documented(400, 401, 403, 413, 429, 503)},
    )
    async def feedback(request: Request) -> Response:
        """Take one event, or up to 10,000 as `events`; sending them again changes nothing."""
        gateway = _gateway(request)
        return await gateway.desk.take(request, gateway.caller(request))

    @app.get("/v1/models", responses=documented(401, 403, 429))
    async def models(request: Request) -> ModelList:
        """List the names that a request may give as its model."""
        gateway = _gateway(request)
        caller = gateway.caller(request)
        if not caller.roles & {"ingest", "read"}:
            caller.require("read")
        names = gateway.router.names() or [gateway.options.settings.model_name]
        return ModelList(data=[ModelEntry(id=name) for name in names])

    @app.get("/healthz", responses={503: {"model": Health}})
    async def healthz(request: Request, response: Response) -> Health:
        """Tell whether answers are given and recorded."""
        found = _gateway(request).health()
        response.status_code = 200 if found.status == "ok" else 503
        return found


def _add_pages(app: FastAPI) -> None:
    def page(path: str, name: str, media_type: str) -> None:
        @app.get(path, include_in_schema=False)
        async def _page() -> Response:
            return FileResponse(STATIC / name, media_type=media_type, headers=_PAGE_HEADERS)

    page("/", "chat.html", "text/html")
    page("/chat.js", "chat.js", "text/javascript")
    page("/chat.css", "chat.css", "text/css")

    @app.get("/feedback.js", include_in_schema=False)
    async def script() -> Response:
        """The script for pages of any origin."""
        headers = {"cross-origin-resource-policy": "cross-origin", "cache-control": "max-age=300"}
        return FileResponse(
            STATIC / "feedback.js", media_type="text/javascript", headers=_PAGE_HEADERS | headers
        )


def _describe(app: FastAPI) -> None:
    """Add the bodies, which are read by hand, to the description."""
    generate = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        schema = generate()
        components = schema["components"]["schemas"]
        chat = ChatRequest.model_json_schema(ref_template="#/components/schemas/{model}")
        taken = feedback_schema()
        components |= chat.pop("$defs") | taken.pop("$defs") | {"ChatRequest": chat}
        components["FeedbackRequest"] = taken
        for path, name in (
            ("/v1/chat/completions", "ChatRequest"),
            ("/v1/feedback", "FeedbackRequest"),
        ):
            body = {"schema": {"$ref": f"#/components/schemas/{name}"}}
            operation = schema["paths"][path]["post"]
            operation["requestBody"] = {"required": True, "content": {"application/json": body}}
            operation["security"] = [{}, {"key": []}]
        schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        app.openapi_schema = schema
        return schema

    app.openapi = described  # type: ignore[method-assign]
