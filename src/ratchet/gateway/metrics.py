"""What `/metrics` tells Prometheus of a gateway: its requests, its answers and its log.

    metrics = Metrics(knows=router.is_version)
    metrics.answer(version, outcome, seconds, metadata)
    metrics.text(gauges)                    # what a scrape gets

Several processes of a gateway add up. Each keeps its counts in memory and writes them to a file of
its own in a folder that they share, every second and before each answer to a scrape; a scrape is
answered from the files alone, so that a count never goes back, whichever process answers. A
process that takes a dead one's place goes on from its file. Where the disk takes nothing, counts
stand still, gauges do not, and nobody's answer waits.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any, Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ratchet.files.whole import write_whole
from ratchet.records.asking import FIRST_TOKEN_SECONDS

logger = logging.getLogger(__name__)

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
WRITE_SECONDS = 1.0
OTHER = "other"
"""In the place of a version or a path that is none of ours: who sends requests names no series."""
PREFIX = "ratchet_gateway_"
PATHS = (
    "/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/embeddings", "/v1/feedback",
    "/v1/models", "/v1/traces", "/v1/logs", "/healthz", "/metrics",
)  # fmt: skip
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_TOKENS = {"prompt_tokens": "prompt", "completion_tokens": "completion"}

Outcome = Literal["answered", "failed", "left", "refused"]
Gauges = Iterable[tuple[str, str, Mapping[tuple[tuple[str, str], ...], float]]]
"""Names, texts and values by their labels, of what is read when a scrape comes."""
_Key = tuple[str, tuple[tuple[str, str], ...]]
_Counts = dict[_Key, float]
_M = TypeVar("_M", Counter, Histogram)


@dataclass(slots=True)
class Metrics:
    """See the module's text.

    Attributes:
        knows: Tells whether a name is a version that is served.
        folder: Where the processes of a gateway write what they counted; None where it has one.
        number: That of this process.
    """

    knows: Callable[[str], bool] = lambda _version: True
    folder: Path | None = None
    number: int = 0
    _registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    _before: _Counts = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)
    _series: dict[tuple[object, tuple[str, ...]], Any] = field(default_factory=dict)
    requests: Counter = field(init=False)
    seconds: Histogram = field(init=False)
    in_progress: Gauge = field(init=False)
    answers: Counter = field(init=False)
    answer_seconds: Histogram = field(init=False)
    first_token: Histogram = field(init=False)
    tokens: Counter = field(init=False)
    unrecorded: Counter = field(init=False)
    feedback: Counter = field(init=False)

    def __post_init__(self) -> None:
        """Make the metrics, and go on from the counts of the process whose place this one takes."""

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(PREFIX + name, text, labels, registry=self._registry)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(PREFIX + name, text, labels, buckets=_SECONDS, registry=self._registry)

        self.requests = counter("requests", "Requests that were answered.", "path", "status")
        self.seconds = histogram(
            "request_duration_seconds", "From a request to the last byte of its answer.", "path"
        )
        self.in_progress = Gauge(
            PREFIX + "requests_in_progress", "Requests that are being answered.",
            registry=self._registry,
        )  # fmt: skip
        self.answers = counter(
            "answers",
            "What came of asking a version: answered, failed (each attempt), left by its client, "
            "or refused for what was in the request.",
            "version", "outcome",
        )  # fmt: skip
        self.answer_seconds = histogram(
            "answer_duration_seconds", "From a request to its whole answer.", "version"
        )
        self.first_token = histogram(
            "first_token_seconds", "From a request to the first word of a stream.", "version"
        )
        self.tokens = counter("tokens", "Tokens as the backend counts them.", "version", "kind")
        self.unrecorded = counter("unrecorded_answers", "Answers sent without a record.")
        self.feedback = counter("feedback_events", "Events of feedback.", "outcome")
        for outcome in ("accepted", "rejected"):
            self.feedback.labels(outcome)
        if self.folder is not None:
            before = _read(self._file(self.number))
            self._before = {key: value for key, value in before.items() if key[0] != _IN_PROGRESS}

    # Counting ---------------------------------------------------------------------------------

    def answer(
        self, version: str, outcome: Outcome, seconds: float, metadata: Mapping[str, str]
    ) -> None:
        """Count what came of asking a version.

        Args:
            version: Who was asked.
            outcome: What came of it.
            seconds: Since the request.
            metadata: Of the interaction.
        """
        name = version if self.knows(version) else OTHER
        self._of(self.answers, name, outcome).inc()
        if outcome != "answered":
            return
        self._of(self.answer_seconds, name).observe(seconds)
        if (first := _number(metadata.get(FIRST_TOKEN_SECONDS))) is not None:
            self._of(self.first_token, name).observe(first)
        for key, kind in _TOKENS.items():
            if (count := _number(metadata.get(key))) is not None:
                self._of(self.tokens, name, kind).inc(count)

    def request(self, path: str, status: str, seconds: float) -> None:
        """Count a request, by one of few paths."""
        self._of(self.requests, path, status).inc()
        self._of(self.seconds, path).observe(seconds)

    def _of(self, metric: _M, *labels: str) -> _M:
        """Return one series of a metric, kept since a look-up costs as much as a count."""
        found = self._series.get((metric, labels))
        if found is None:
            found = self._series[metric, labels] = metric.labels(*labels)
        return found

    # Telling ----------------------------------------------------------------------------------

    def text(self, gauges: Gauges) -> bytes:
        """Return what a scrape gets.

        Args:
            gauges: What is read just now.
        """
        if self.folder is None:
            counts = _counted(self._registry)
        else:
            self.write()
            counts = _sum(_read(path) for path in self.folder.glob("worker-*.json"))
        families = [*self._families(counts), *_gauge_families(gauges)]
        return told(families)

    def write(self) -> None:
        """Write what this process counted, for the others; a full disk stops nobody's answer."""
        if self.folder is None:
            return
        with self._lock, suppress(OSError):  # what was counted first must not be written last
            counts = _sum([_counted(self._registry), self._before])
            rows = [[name, labels, value] for (name, labels), value in counts.items()]
            write_whole(self._file(self.number), json.dumps(rows).encode(), sync=False)

    async def follow(self) -> None:
        """Write every second."""
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            self.write()

    def _file(self, number: int) -> Path:
        assert self.folder is not None
        return self.folder / f"worker-{number}.json"

    def _families(self, counts: _Counts) -> Iterator[Metric]:
        """Yield the metrics with the counts of all processes."""
        values: dict[str, list[tuple[tuple[tuple[str, str], ...], float]]] = {}
        for (name, labels), value in counts.items():
            values.setdefault(name, []).append((labels, value))
        for made in self._registry.collect():
            family = Metric(made.name, made.documentation, made.type)
            for name in (made.name, *(f"{made.name}_{end}" for end in _ENDS[made.type])):
                for labels, value in values.get(name, ()):
                    family.add_sample(name, dict(labels), value)
            family.samples.sort(key=_order)
            yield family


_ENDS: Mapping[str, Sequence[str]] = {
    "counter": ("total",), "gauge": (), "histogram": ("bucket", "count", "sum")
}  # fmt: skip
_IN_PROGRESS = PREFIX + "requests_in_progress"


def told(families: Iterable[Metric]) -> bytes:
    """Return metrics that are read already as Prometheus takes them."""
    return generate_latest(_Told(tuple(families)))


@dataclass(frozen=True, slots=True)
class _Told:
    """Metrics that are there already."""

    families: Sequence[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.families


def _order(sample: object) -> tuple[object, ...]:
    """Sort the samples of a series together, buckets by their size."""
    labels = dict(sample.labels)  # type: ignore[attr-defined]
    bound = float(labels.pop("le", "nan"))
    name: str = sample.name  # type: ignore[attr-defined]
    return (sorted(labels.items()), name, 0.0 if math.isnan(bound) else bound)


def _counted(registry: CollectorRegistry) -> _Counts:
    """Return what a process counted since it began."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): float(sample.value)
        for metric in registry.collect()
        for sample in metric.samples
        if not sample.name.endswith("_created")
    }


def _sum(parts: Iterable[_Counts]) -> _Counts:
    found: _Counts = {}
    for part in parts:
        for key, value in part.items():
            found[key] = found.get(key, 0.0) + value
    return found


def _read(path: Path) -> _Counts:
    """Return what a process wrote; nothing where it wrote nothing that can be read."""
    try:
        rows = json.loads(path.read_bytes())
        return {(n, tuple((k, v) for k, v in labels)): float(value) for n, labels, value in rows}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        logger.warning("what a process counted cannot be read: %s", error)
        return {}


def _number(text: str | None) -> float | None:
    """Return a number that a backend told as text; None where it is none that can be added."""
    try:
        found = float(text or "nan")
    except ValueError:
        return None
    return found if 0.0 <= found < math.inf else None


def _gauge_families(gauges: Gauges) -> Iterator[Metric]:
    for name, text, values in gauges:
        family = Metric(name, text, "gauge")
        for labels, value in values.items():
            family.add_sample(name, dict(labels), value)
        yield family


class Counted:
    """Counts requests, whatever answers or refuses them; it stands before everything else."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count it once its answer is sent, or its client has left."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, status, began = path_of(scope["path"]), "500", monotonic()
        metrics = self._metrics
        headers: Iterable[tuple[bytes, bytes]] = ()

        async def noted(message: Message) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = str(message["status"]), message.get("headers", ())
            await send(message)

        metrics.in_progress.inc()
        try:
            await self._app(scope, receive, noted)
        finally:
            metrics.in_progress.dec()
            seconds = monotonic() - began
            metrics.request(path, status, seconds)
            if logger.isEnabledFor(logging.INFO):
                _log(scope, status, seconds, headers)


def _log(scope: Scope, status: str, seconds: float, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Log a request: what, how it ended, how long it took, and the answer's id and version."""
    sent = dict(headers)
    fields = {"method": scope["method"], "path": scope["path"][:200], "status": int(status)}
    fields |= {"seconds": round(seconds, 6)}
    for name in ("interaction", "version", "recorded"):
        value = sent.get(f"x-ratchet-{name}".encode())
        if value is not None:
            fields[name] = value.decode("latin-1")
    logger.info(
        "%s %s %s %.3f s", fields["method"], fields["path"], status, seconds,
        extra={"fields": fields},
    )  # fmt: skip


def path_of(path: str) -> str:
    """Return the label of a path, of which there are few whatever is asked for."""
    if path in PATHS:
        return path
    return "/v1/models" if path.startswith("/v1/models/") else OTHER
