"""The application: routes, what they share, and its description.

app = create_app(GatewayOptions(settings=settings, backend="http://127.0.0.1:8001"))
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ratchet.gateway.access import Caller, RateLimits, WrongKeys, identify
from ratchet.gateway.adapters import PREPARE_SECONDS, AdapterKeeper
from ratchet.gateway.backends import Backend
from ratchet.gateway.backlog import read_backlog
from ratchet.gateway.blobs import BlobFolder, note_folder
from ratchet.gateway.chat import Answerer
from ratchet.gateway.circuits import Circuits, Counts
from ratchet.gateway.feedback import FeedbackDesk
from ratchet.gateway.gauges import gauges
from ratchet.gateway.hosts import caller_address
from ratchet.gateway.http_backend import HttpBackend
from ratchet.gateway.known import LastKnown, StoreLink
from ratchet.gateway.last_resort import LAST_RESORT, LastResort
from ratchet.gateway.leaving import ClientLeftError
from ratchet.gateway.listing import Listing
from ratchet.gateway.local_backend import LocalBackend
from ratchet.gateway.log import WriteAheadLog
from ratchet.gateway.metrics import CONTENT_TYPE, Counted, Metrics
from ratchet.gateway.options import NO_CHAMPION, GatewayOptions
from ratchet.gateway.passthrough import PASSED_ON, Passthrough
from ratchet.gateway.problems import ProblemError, documented, on_http, on_leaving, on_problem
from ratchet.gateway.queueing import BoundedQueue
from ratchet.gateway.recording import Recorder, Records
from ratchet.gateway.responses import Responses
from ratchet.gateway.rights import Rights
from ratchet.gateway.routing import Router, State, wanted_adapters
from ratchet.gateway.schemas import (
    Attempts,
    ChatCompletion,
    ChatRequest,
    FeedbackReceipt,
    Health,
    ModelEntry,
    ModelList,
    feedback_schema,
)
from ratchet.gateway.sessions import Conversations
from ratchet.gateway.shield import Shield
from ratchet.gateway.telemetry import Telemetry
from ratchet.gateway.tokens import Tokens
from ratchet.gateway.tracing import KEY, Tracing
from ratchet.models import prepare_base_model
from ratchet.models.serving import AdapterModel
from ratchet.settings import value_of

logger = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
EXPOSED = [
    "x-ratchet-interaction",
    "x-ratchet-token",
    "x-ratchet-version",
    "x-ratchet-recorded",
    "retry-after",
]
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
    telemetry: Telemetry
    responses: Responses
    passthrough: Passthrough
    limits: RateLimits
    wrong_keys: WrongKeys
    listing: Listing
    records: Records
    metrics: Metrics

    def caller(self, request: Request) -> Caller:
        """Return who sent a request, within its limit of rate.

        Raises:
            ProblemError: The key is wrong, or too many requests were sent.
        """
        address = caller_address(request.client.host) if request.client else "?"
        state = self.router.state
        reachable = self.options.open or self.options.is_loopback
        found = identify(
            request.headers.get("authorization"),
            address,
            state.keys,
            is_open=reachable and not state.needs_key,
            now=datetime.now(UTC),
            terms=state.terms,
            wrong=self.wrong_keys,
        )
        self.limits.take(found)
        return found

    def knows(self, version: str) -> bool:
        """Tell whether a name is of a version that may answer, and not what somebody sent."""
        return (
            version in (LAST_RESORT, self.options.fallback_model)
            or self.router.is_version(version)
            or version in self.router.state.adopted
            or any(version in server.listed for server in self.listing.servers)
        )

    def scrape(self) -> bytes:
        """Return what Prometheus is told."""
        read = gauges(
            version=self.options.version,
            workers=self.options.workers,
            recording=self.records.problem is None,
            store_away=self.router.unread() is not None,
            backlog=read_backlog(self.options.folder / "wal", datetime.now(UTC)),
            state=self.router.state,
        )
        return self.metrics.text(read)

    def health(self) -> tuple[Health, int]:
        """Return how this process fares, and the status to say it with.

        The status is 503 only where users get no answer or answers are not recorded: a canary that
        fails while the version before it answers is no reason to take the gateway out of service.
        """
        circuits, state = self.answerer.circuits, self.router.state
        backends, versions = circuits.backends(), circuits.versions()
        served = {name: versions.get(name, Counts()) for name in state.served}
        problem, away = self.records.problem, self.router.unread()
        backlog = read_backlog(self.options.folder / "wal", datetime.now(UTC))
        works = problem is None and not circuits.requests().mostly_failed
        lacking = self.listing.lacking(state)
        unserved = {v for lacks in lacking.values() for v in lacks if not served[v].answered}
        fine = works and not any(counts.mostly_failed for counts in served.values())
        fine = fine and unserved.isdisjoint(state.chosen) and self.router.held is None
        fine = fine and away is None and backlog.is_well
        found = Health(
            status="ok" if fine else "degraded",
            version=self.options.version,
            champion=state.aliases.get("champion"),
            backends={
                backend.name: not backends.get(backend.name, Counts()).mostly_failed
                for backend in self.answerer.backends
            },
            versions={
                name: Attempts(answered=counts.answered, failed=counts.failed)
                for name, counts in served.items()
            },
            lacking=lacking,
            recording=problem is None,
            not_recording=problem,
            store_away=away,
            backlog=backlog,
            saved_segments=self.records.log.saved,
            telemetry=dict(self.telemetry.counts),
            advice=self._advice(lacking),
        )
        return found, 200 if works else 503

    def _advice(self, lacking: Mapping[str, Sequence[str]]) -> list[str]:
        if self.listing.servers and self.router.state.routing is None:
            return [NO_CHAMPION]
        held = [] if self.router.held is None else [self.router.held]
        return held + [
            f"{name} does not list {', '.join(versions)}: load what is missing, or say what it "
            "calls it by `ratchet adopt --as VERSION --model NAME`"
            for name, versions in lacking.items()
        ]


def create_app(options: GatewayOptions, backends: list[Backend] | None = None) -> FastAPI:
    """Return the application.

    Args:
        options: What it is told.
        backends: What answers, in order; by default what the options name.
    """
    metrics = Metrics(folder=options.counts, number=options.worker)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _running(options, backends, metrics) as gateway:
            app.state.gateway = gateway
            yield

    app = FastAPI(
        title="Ratchet gateway",
        version=options.version,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        exception_handlers={
            ProblemError: on_problem,
            HTTPException: on_http,
            ClientLeftError: on_leaving,  # before it was answered
            ClientDisconnect: on_leaving,  # before it had sent its request
        },
    )
    _add_api(app)
    _add_pages(app)
    _describe(app)
    app.add_middleware(BoundedQueue, most=-(-options.most_waiting // options.workers))
    app.add_middleware(
        Shield,
        most_bytes=options.most_bytes,
        origins=options.origins,
        loopback_only=lambda: (
            options.is_loopback
            and not options.open
            and not app.state.gateway.router.state.needs_key
        ),
    )
    if options.origins:  # around the shield, so that a page can read what it refuses
        app.add_middleware(
            CORSMiddleware,
            allow_origins=options.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=EXPOSED,
        )
    app.add_middleware(Counted, metrics=metrics)
    return app


@asynccontextmanager
async def _running(
    options: GatewayOptions, backends: list[Backend] | None, metrics: Metrics
) -> AsyncIterator[Gateway]:
    # one connection: up to 64 workers leave room below the 100 of PostgreSQL's default
    last_known = LastKnown(options.folder, options.settings)
    store = StoreLink(options.settings, last_known, connections=1, expected=options.store_file)
    answering = _backends(options) if backends is None else backends
    default = None if options.backend or backends else Path(options.settings.base_model).name
    circuits = Circuits()
    keeper = _keeper(answering, options, circuits)
    replicas = answering[: 1 + len(options.replicas)]
    listing = Listing([server for server in replicas if isinstance(server, HttpBackend)])
    router = Router(
        store.get,
        home=options.settings.home,
        default=default,
        has=listing.has if listing.servers else _lies_here,
        on_change=_preloader(answering[0], keeper, asyncio.get_running_loop()),
        shelf=options.shelf,
        asks_for=options.backend_model if options.backend else None,
        known=last_known.state,
        remember=last_known.write,
    )
    log = WriteAheadLog.create(options.folder / "wal")
    records = Records(log, options.sync, refusal=store.problem)
    tokens = Tokens(options.folder, days=options.token_days)
    rights = Rights(tokens, lambda ids: store.get().stored_interactions(ids))
    limits = RateLimits(options.rate_per_second, workers=options.workers * options.gateways)
    passed = None if options.passed_fields is None else frozenset(options.passed_fields)
    conversations = Conversations(options.folder / "conversations.db")
    blobs = None if options.blobs is None else BlobFolder(options.blobs)
    if options.blobs is not None:
        note_folder(options.folder, options.blobs)
    tracing = _tracing(options)
    answerer = Answerer(
        router,
        answering,
        Recorder(records, blobs, metrics, tracing),
        tokens,
        conversations,
        replicas=1 + len(options.replicas),
        circuits=circuits,
        fallback_version=options.fallback_model,
        last_resort=None if options.last_resort is None else LastResort(options.last_resort),
        passed_fields=passed,
    )
    servers = [server for server in answering if isinstance(server, HttpBackend)]
    gateway = Gateway(
        options=options,
        router=router,
        answerer=answerer,
        responses=Responses(answerer, servers),
        desk=FeedbackDesk(rights, records, limits, metrics),
        telemetry=Telemetry(rights, records, limits, options.most_bytes),
        passthrough=Passthrough(router, answering, passed_fields=passed),
        limits=limits,
        wrong_keys=WrongKeys(),
        listing=listing,
        records=records,
        metrics=metrics,
    )
    metrics.knows = gateway.knows
    await asyncio.to_thread(router.begin)
    await listing.look()
    tasks = [asyncio.create_task(one) for one in _following(gateway, keeper)]
    try:
        yield gateway
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for backend in answering:
            await backend.close()
        conversations.close()
        metrics.write()
        if tracing is not None:
            await asyncio.to_thread(tracing.close)
        log.close()
        store.close()


def _following(
    gateway: Gateway, keeper: AdapterKeeper | None
) -> Iterator[Coroutine[Any, Any, None]]:
    """Yield what goes on beside the requests."""
    yield gateway.router.follow()
    if gateway.metrics.folder is not None:
        yield gateway.metrics.follow()
    if keeper is not None:
        yield keeper.follow(lambda: gateway.router.state)
    elif gateway.listing.servers:
        yield gateway.listing.follow()


def _tracing(options: GatewayOptions) -> Tracing | None:
    """Return where spans go; None unless a setting names it."""
    settings = options.settings
    if settings.traces is None:
        return None
    key = value_of(os.environ, KEY)
    return Tracing.to(
        settings.traces, version=options.version, key=key, content=settings.traces_content
    )


def _backends(options: GatewayOptions) -> list[Backend]:
    found: list[Backend] = []
    if options.backend is None:
        base = prepare_base_model(
            options.settings.base_model, options.settings.cache, options.settings.chat_template
        )
        found.append(LocalBackend(AdapterModel.load(base), max_tokens=options.max_tokens))
    else:
        for number, url in enumerate((options.backend, *options.replicas), start=1):
            name = "backend" if number == 1 else f"backend-{number}"
            found.append(_server(options, url, name, options.backend_key, options.backend_model))
    if options.fallback is not None:
        key, model = options.fallback_key, options.fallback_model
        found.append(_server(options, options.fallback, "fallback", key, model))
    return found


def _server(
    options: GatewayOptions, url: str, name: str, key: str | None, model: str | None
) -> HttpBackend:
    return HttpBackend(
        url,
        name=name,
        key=key,
        model=model,
        stall_seconds=options.stall_seconds,
        answer_seconds=options.answer_seconds,
        most_bytes=options.most_answer_bytes,
    )


def _lies_here(state: State, version: str) -> bool:
    """Tell whether the local model can load a version's adapter."""
    folder = state.adapters.get(version)
    return folder is not None and folder.exists()


def _keeper(
    backends: Sequence[Backend], options: GatewayOptions, circuits: Circuits
) -> AdapterKeeper | None:
    """Return what holds the backend's adapters to the routing, where that is asked for."""
    if not options.load_adapters:
        return None
    replicas = backends[: 1 + len(options.replicas)]
    servers = [backend for backend in replicas if isinstance(backend, HttpBackend)]
    return AdapterKeeper(
        servers, lambda server, version: circuits.close((server, version)), shelf=options.shelf
    )


def _preloader(
    backend: Backend, keeper: AdapterKeeper | None, loop: asyncio.AbstractEventLoop
) -> Callable[[State], None]:
    """Return what loads the adapters of a new routing before anybody is sent to them.

    It is called in a thread beside the event loop.
    """

    async def load(state: State) -> None:
        for version, folder in wanted_adapters(state).items():
            try:
                await backend.load_adapter(version, folder)
            except Exception as error:
                logger.warning("%s cannot be loaded ahead: %s", version, error)

    def on_change(state: State) -> None:
        if keeper is not None:
            work = keeper.prepare(state)
        elif isinstance(backend, LocalBackend):
            work = load(state)
        else:
            return
        try:
            asyncio.run_coroutine_threadsafe(work, loop).result(PREPARE_SECONDS)
        except Exception as error:
            logger.warning("a routing takes effect before its adapters are loaded: %r", error)

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
            **documented(400, 401, 403, 404, 413, 422, 429, 502, 503),
        },
    )
    async def chat_completions(request: Request) -> Response:
        """Answer a conversation, whole or as a stream of chunks."""
        gateway = _gateway(request)
        caller = gateway.caller(request)
        caller.require("ingest", "ask")
        return await gateway.answerer.answer(request, caller)

    @app.post(
        "/v1/feedback",
        responses={200: {"model": FeedbackReceipt}, **documented(400, 401, 403, 413, 429, 503)},
    )
    async def feedback(request: Request) -> Response:
        """Take one event, or up to 10,000 as `events`; sending them again changes nothing."""
        gateway = _gateway(request)
        return await gateway.desk.take(request, gateway.caller(request))

    @app.post("/v1/traces", include_in_schema=False)
    async def traces(request: Request) -> Response:
        """Take spans of OpenTelemetry, as its own description has it."""
        gateway = _gateway(request)
        return await gateway.telemetry.take(request, gateway.caller(request), "traces")

    @app.post("/v1/logs", include_in_schema=False)
    async def logs(request: Request) -> Response:
        """Take log records of OpenTelemetry: evaluations, and answers that are told in them."""
        gateway = _gateway(request)
        return await gateway.telemetry.take(request, gateway.caller(request), "logs")

    @app.get("/v1/models", responses=documented(401, 403, 429))
    async def models(request: Request) -> ModelList:
        """List the names that a request may give as its model."""
        gateway = _gateway(request)
        caller = gateway.caller(request)
        if not caller.roles & {"ingest", "read"}:
            caller.require("read")
        listed = {name for server in gateway.listing.servers for name in server.listed}
        names = gateway.router.names() or sorted(listed) or [gateway.options.settings.model_name]
        return ModelList(data=[ModelEntry(id=name) for name in names])

    @app.get("/v1/models/{name:path}", include_in_schema=False)
    async def model(request: Request, name: str) -> Response:
        """Tell of one name: the gateway's own, or one of the backend's."""
        gateway = _gateway(request)
        caller = gateway.caller(request)
        if not caller.roles & {"ingest", "read"}:
            caller.require("read")
        return await gateway.passthrough.model(name)

    @app.post("/v1/responses", include_in_schema=False)
    async def responses(request: Request) -> Response:
        """Answer a request of the Responses API, as the backend does."""
        gateway = _gateway(request)
        caller = gateway.caller(request)
        caller.require("ingest", "ask")
        return await gateway.responses.post(request, caller)

    for path in PASSED_ON:
        # what is sent and answered there is the backend's to describe
        app.add_api_route(f"/v1/{path}", _pass_on, methods=["POST"], include_in_schema=False)

    @app.get("/healthz", responses={503: {"model": Health}})
    async def healthz(request: Request, response: Response) -> Health:
        """Tell whether answers are given and recorded."""
        found, response.status_code = _gateway(request).health()
        return found

    @app.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        """Tell Prometheus what all processes of this gateway counted."""
        gateway = _gateway(request)
        gateway.caller(request).require("read")
        return Response(await asyncio.to_thread(gateway.scrape), media_type=CONTENT_TYPE)


async def _pass_on(request: Request) -> Response:
    """Pass a request on to the backend; nothing of it is recorded."""
    gateway = _gateway(request)
    caller = gateway.caller(request)
    caller.require("ingest", "ask")
    return await gateway.passthrough.post(request)


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
