"""A server that reads as Langfuse's public API does, for its SDKs of version 5.

What it obeys is documented: Basic auth; lists that are sorted by time, the newest first; cursors
that hold a place and no filter; most rows of a page (400 beyond); groups of fields, which are
absent where they are not asked for; metadata cut at 200 characters; input and output as texts;
answers of at most 5 MB; 429 with `Retry-After` where requests of a minute are used up.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit

PUBLIC, SECRET, PROJECT = "pk-lf-1", "sk-lf-secret-1", "p-1"
OBSERVATION_FIELDS = {
    "core": ("id", "traceId", "startTime", "endTime", "projectId", "parentObservationId", "type"),
    "basic": ("name", "level", "statusMessage", "version", "environment", "userId", "sessionId"),
    "time": ("completionStartTime", "createdAt", "updatedAt"),
    "io": ("input", "output"),
    "metadata": ("metadata",),
    "model": ("providedModelName", "internalModelId", "modelParameters"),
    "usage": ("usageDetails", "costDetails", "totalCost"),
    "prompt": ("promptId", "promptName", "promptVersion"),
    "metrics": ("latency", "timeToFirstToken"),
    "trace_context": ("tags", "release", "traceName"),
}
SCORE_FIELDS = {
    "core": ("id", "projectId", "name", "value", "dataType", "source", "timestamp",
             "environment", "createdAt", "updatedAt"),
    "details": ("comment", "configId", "metadata"),
    "subject": ("subject",),
    "annotation": ("authorUserId", "queueId"),
}  # fmt: skip
_CUT = 200


class _WrongError(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Langfuse:
    """What the server holds and how it behaves.

    Attributes:
        observations: Rows with all fields.
        scores: The same.
        allowed: Requests before the next one is refused with 429; None for all.
        retry_after: What it then says.
        most_bytes: Of an answer.
        asked: Path and parameters of each request that was answered.
        failing: Status codes of the next answers.
        forgets_cursors: Whether a cursor of before is refused, once.
    """

    observations: list[dict[str, Any]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    allowed: int | None = None
    retry_after: str = "7"
    most_bytes: int = 5_000_000
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    failing: list[int] = field(default_factory=list)
    forgets_cursors: bool = False

    def answer(self, path: str, given: Mapping[str, str]) -> Any:
        if self.failing:
            raise _WrongError(self.failing.pop(0), "upstream failed")
        if path == "/api/public/projects":
            return {"data": [{"id": PROJECT, "name": "helpdesk", "metadata": {}}]}
        if path == "/api/public/v2/observations":
            return self._observations(given)
        if path == "/api/public/v3/scores":
            return self._scores(given)
        raise _WrongError(404, "Not Found")

    def _observations(self, given: Mapping[str, str]) -> Any:
        if given.get("parseIoAsJson") == "true":
            raise _WrongError(400, "parseIoAsJson is no longer supported")
        rows = [one for one in self.observations if one["type"] == given.get("type", one["type"])]
        bounds = ("fromStartTime", "toStartTime", "startTime")
        return self._page(rows, given, bounds, OBSERVATION_FIELDS, ["core", "basic"], 1_000)

    def _scores(self, given: Mapping[str, str]) -> Any:
        bounds = ("fromTimestamp", "toTimestamp", "timestamp")
        found = self._page(self.scores, given, bounds, SCORE_FIELDS, [], 100)
        return found | {"meta": {"limit": int(given.get("limit", 50)), **found["meta"]}}

    def _page(
        self,
        rows: list[dict[str, Any]],
        given: Mapping[str, str],
        bounds: tuple[str, str, str],
        groups: Mapping[str, tuple[str, ...]],
        default: list[str],
        most: int,
    ) -> dict[str, Any]:
        limit, (since, until, at) = int(given.get("limit", 50)), bounds
        if not 1 <= limit <= most:
            raise _WrongError(400, f"limit must be at most {most}")
        asked = given["fields"].split(",") if "fields" in given else default
        if unknown := set(asked) - groups.keys():
            raise _WrongError(400, f"unknown field groups {sorted(unknown)}")
        names = {name for group in ("core", *asked) for name in groups[group]}
        place = self._place(given.get("cursor"))
        chosen = [
            row
            for row in sorted(rows, key=lambda one: (_at(one[at]), one["id"]), reverse=True)
            if (since not in given or _at(row[at]) >= _at(given[since]))
            and (until not in given or _at(row[at]) < _at(given[until]))
            and (place is None or (_at(row[at]), row["id"]) < place)
        ]
        data = [{name: _shown(name, one[name]) for name in names & one.keys()}
                for one in chosen[:limit]]  # fmt: skip
        if len(json.dumps(data)) > self.most_bytes:
            raise _WrongError(413, "response too large")
        meta = {}
        if len(chosen) > limit:
            last = chosen[limit - 1]
            told = json.dumps({"v": 1, "at": last[at], "id": last["id"]})
            meta["cursor"] = base64.urlsafe_b64encode(told.encode()).decode()
        return {"data": data, "meta": meta}

    def _place(self, cursor: str | None) -> tuple[datetime, str] | None:
        if cursor is None:
            return None
        if self.forgets_cursors:
            self.forgets_cursors = False
            raise _WrongError(400, "Invalid cursor format")
        told = json.loads(base64.urlsafe_b64decode(cursor))
        return _at(told["at"]), told["id"]


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _shown(name: str, value: Any) -> Any:
    if name != "metadata":
        return value
    return {key: str(inner)[:_CUT] for key, inner in value.items()}


@contextmanager
def running_langfuse(langfuse: Langfuse) -> Iterator[str]:
    """Serve on a free port of this machine; yield the address."""
    right = base64.b64encode(f"{PUBLIC}:{SECRET}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if self.headers.get("Authorization") != f"Basic {right}":
                self._send(401, {"message": "Invalid credentials. Confirm your keys."})
                return
            if langfuse.allowed is not None:
                if langfuse.allowed < 1:
                    self._send(
                        429, {"message": "rate limit"}, {"Retry-After": langfuse.retry_after}
                    )
                    return
                langfuse.allowed -= 1
            given = dict(parse_qsl(parts.query))
            try:
                body = langfuse.answer(parts.path, given)
            except _WrongError as error:
                self._send(error.code, {"message": str(error)})
                return
            langfuse.asked.append((parts.path, given))
            self._send(200, body)

        def _send(self, code: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
            content = json.dumps(body).encode()
            self.send_response(code)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
