"""Langfuse's public API, as its SDKs of version 5 read it: whose keys, observations, scores.

    GET /api/public/projects
    GET /api/public/v2/observations     type GENERATION, by start, the newest first
    GET /api/public/v3/scores           by time, the newest first

A list is read in passes: each goes from now back to where the last one began, and a while further,
for what arrived late or was changed. Since the newest comes first, the time up to which all was
read moves on only at the end of a pass; until then its cursor is kept, by which a pass that was
stopped goes on. Quirks of the API are obeyed: a page has a most number of rows and of bytes, fields
come by groups that have to be asked for, a cursor needs the same filters again, and after a 429
nothing is asked for as long as `Retry-After` says.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx

from ratchet.doors.pages import Listing, Page, Reached
from ratchet.errors import InvalidInputError, SourceError
from ratchet.files.moments import retry_after_seconds
from ratchet.files.text import printable
from ratchet.settings import value_of

PREFIX = "langfuse:"
CLOUD = "https://cloud.langfuse.com"
PUBLIC_KEY, SECRET_KEY = "LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY"
ADDRESS = ("LANGFUSE_BASE_URL", "LANGFUSE_HOST")
LATE = timedelta(hours=1)
"""What arrives so long after its time is found by the next pass."""
CHANGED = timedelta(days=7)
"""A score that is changed keeps its time: so far back they are read again, once an hour."""

_PROJECT = "/project/"
_API = "/api/public"
_SMALLEST_PAGE = 10
_ATTEMPTS = 6
_TIMEOUT_SECONDS = 60.0
_NO_RETRY_AFTER_SECONDS = 60.0
_LONGEST_WAIT_SECONDS = 300.0
_MOST_WAITS = 30
_SHOWN = 200
_TOO_MUCH = (413, 422)
_SERVER_FAILED = 500


class Keys(NamedTuple):
    """The keys of a project."""

    public: str
    secret: str


class Project(NamedTuple):
    """Whose the keys are."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class _List:
    """How one of the lists is asked for.

    Attributes:
        path: Where it is.
        asked: Filters and groups of fields.
        bounds: Names of the filters by time: from (inclusive), to (exclusive).
        page: Rows of a page at most.
        back: What may have changed since, before the end of the last pass.
    """

    path: str
    asked: Mapping[str, str]
    bounds: tuple[str, str]
    page: int
    back: timedelta


_OBSERVATIONS = _List(
    "/v2/observations",
    {
        "type": "GENERATION",
        "fields": "core,basic,time,io,metadata,model,usage,metrics,trace_context",
    },
    ("fromStartTime", "toStartTime"),
    200,  # of at most 1,000: an answer of the server has at most 5 MB
    LATE,
)
_SCORES = _List(
    "/v3/scores", {"fields": "details,subject"}, ("fromTimestamp", "toTimestamp"), 100, CHANGED
)


@dataclass(frozen=True, slots=True)
class _Pass:
    """A pass over a list: from, to, and the cursor of where it is."""

    begin: str | None
    end: str
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class _State:
    """What is kept of a list.

    Attributes:
        reached: Up to when it was read.
        back_at: When it was last read as far back as things change.
        going: The pass that was not read to its end.
    """

    reached: Reached
    back_at: str | None = None
    going: _Pass | None = None

    @classmethod
    def of(cls, kept: str | None) -> _State:
        told = json.loads(kept) if kept else {}
        going = told.get("going")
        return cls(Reached.of(kept), told.get("back_at"), _Pass(**going) if going else None)

    def text(self) -> str:
        going = asdict(self.going) if self.going else None
        return self.reached.text(back_at=self.back_at, going=going)

    def ended(self, one: _Pass) -> _State:
        """Return what is kept after a pass."""
        begin = datetime.fromisoformat(one.begin) if one.begin else None
        until = datetime.fromisoformat(one.end)
        return replace(self, reached=Reached(until, self.reached.ever_since(begin)), going=None)


class _RefusedError(Exception):
    """A request that the server calls wrong (400); the text is what it said."""


class _FailedError(Exception):
    """A request that failed on the server's side; the text is why."""

    def __init__(self, why: str, *, waits: bool) -> None:
        super().__init__(why)
        self.waits = waits


@dataclass(frozen=True, slots=True)
class LangfuseApi:
    """Reads a project.

    Attributes:
        address: Of the server, without `/api/public`.
        keys: Of the project.
        wait: Called with seconds.
        send: How requests are sent.
    """

    address: str
    keys: Keys
    wait: Callable[[float], object] = time.sleep
    send: Callable[..., httpx.Response] = httpx.get

    def project(self, named: str | None) -> Project:
        """Return the project of the keys.

        Args:
            named: Its id as the source names it; None where it does not.

        Raises:
            InvalidInputError: The keys are refused, or of another project.
            SourceError: The server does not answer.
        """
        held = self._retried(partial(self._get, "/projects", {}))
        data = held.get("data")
        if not (isinstance(data, list) and data and isinstance(data[0], Mapping)):
            raise InvalidInputError(
                f"the keys of a project are needed, got those of none; set {PUBLIC_KEY} and "
                f"{SECRET_KEY} to keys from the project's settings"
            )
        found = Project(str(data[0].get("id")), str(data[0].get("name")))
        if named is not None and named != found.id:
            raise InvalidInputError(
                f"keys must be of the project {printable(named)!r} that the address names, got "
                f"those of {printable(found.name)!r} ({printable(found.id)}); set {PUBLIC_KEY} and "
                f"{SECRET_KEY}, or correct the address"
            )
        return found

    def listings(self, project: str) -> tuple[Listing, ...]:
        """Return what is read of a project: answers, then scores."""
        return tuple(
            Listing(
                f"{self.address} {project} {what.path}",
                partial(self._pages, what),
                partial(_place, of),
            )
            for what, of in ((_OBSERVATIONS, "observation"), (_SCORES, "score"))
        )

    def _pages(
        self, what: _List, kept: str | None, since: datetime | None, now: datetime
    ) -> Iterator[Page]:
        """Yield the pages of the pass that was stopped, if one was, and of the next pass."""
        state = _State.of(kept)
        if state.going is not None:
            state = yield from self._pass(what, state, state.going)
        back_at = state.back_at and datetime.fromisoformat(state.back_at)
        is_far = not back_at or now - back_at >= LATE
        begin = state.reached.next_begin(since, what.back if is_far else LATE)
        if is_far:
            state = replace(state, back_at=now.isoformat())
        end = now.isoformat()
        yield from self._pass(what, state, _Pass(begin.isoformat() if begin else None, end))

    def _pass(self, what: _List, state: _State, one: _Pass) -> Generator[Page, None, _State]:
        """Yield the pages of a pass from its cursor on; return what is kept after its end."""
        size = what.page
        while True:
            try:
                body, size = self._page(what, one, size)
            except _RefusedError as error:
                if one.cursor is None or "cursor" not in str(error).lower():
                    raise InvalidInputError(
                        f"{self.address} must know what it is asked for, got {error}; it has to be "
                        "Langfuse 4 or later"
                    ) from error
                one = replace(one, cursor=None)  # of a version before: the pass begins again
                continue
            rows = [row for row in body.get("data") or () if isinstance(row, Mapping)]
            cursor = (body.get("meta") or {}).get("cursor")
            if not cursor:
                state = state.ended(one)
                yield Page(rows, state.text())
                return state
            one = replace(one, cursor=cursor)
            yield Page(rows, replace(state, going=one).text())

    def _page(self, what: _List, one: _Pass, size: int) -> tuple[Mapping[str, Any], int]:
        """Return a page, and how many rows the next one may have: fewer where it was too much."""
        asked = dict(what.asked)
        for name, moment in zip(what.bounds, (one.begin, one.end), strict=True):
            if moment is not None:
                asked[name] = _written(moment)
        if one.cursor is not None:
            asked["cursor"] = one.cursor
        for attempt in range(_ATTEMPTS):
            try:
                return self._get(what.path, asked | {"limit": str(size)}), size
            except _FailedError as error:
                if attempt == _ATTEMPTS - 1:
                    raise self._gone(str(error)) from error
                size = max(size // 2, _SMALLEST_PAGE)
                self.wait(2.0**attempt if error.waits else 0.0)
        raise AssertionError  # the last attempt returns or raises

    def _retried(self, ask: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        for attempt in range(_ATTEMPTS):
            try:
                return ask()
            except _RefusedError as error:
                raise InvalidInputError(
                    f"{self.address} must be Langfuse, got {error}; check the address"
                ) from error
            except _FailedError as error:
                if attempt == _ATTEMPTS - 1:
                    raise self._gone(str(error)) from error
                self.wait(2.0**attempt)
        raise AssertionError  # the last attempt returns or raises

    def _get(self, path: str, asked: Mapping[str, str]) -> Mapping[str, Any]:
        """Ask, wait where the server says so, and return what it answers."""
        for _ in range(_MOST_WAITS):
            try:
                reply = self.send(
                    f"{self.address}{_API}{path}",
                    params=asked,
                    auth=(self.keys.public, self.keys.secret),
                    timeout=_TIMEOUT_SECONDS,
                )
            except httpx.TransportError as error:
                raise _FailedError(type(error).__name__, waits=True) from error
            if reply.status_code != httpx.codes.TOO_MANY_REQUESTS:
                return self._read(reply)
            seconds = retry_after_seconds(reply.headers.get("Retry-After"), datetime.now(UTC))
            seconds = _NO_RETRY_AFTER_SECONDS if seconds is None else seconds
            if seconds > _LONGEST_WAIT_SECONDS:
                raise SourceError(
                    f"{self.address} must answer within {_LONGEST_WAIT_SECONDS:.0f} seconds, got "
                    f"429 and the word to wait {seconds:,.0f} seconds; start again then, and it "
                    "goes on from here"
                )
            self.wait(seconds)
        raise self._gone(f"429 after {_MOST_WAITS} waits")

    def _read(self, reply: httpx.Response) -> Mapping[str, Any]:
        """Return the object that an answer holds.

        Raises:
            InvalidInputError: The address or the keys are wrong.
        """
        code, told = reply.status_code, self._told(reply)
        if code in (401, 403):
            raise InvalidInputError(
                f"{self.address} must accept the keys in {PUBLIC_KEY} and {SECRET_KEY}, got "
                f"{told}; set both to those of the project, and the address to that of its region"
            )
        if code in (404, 405) or 300 <= code < 400:
            raise InvalidInputError(
                f"{self.address} must have Langfuse's API of version 5, got {told} for "
                f"{reply.request.url.path}; check the address; before Langfuse 4 import its blob "
                "export"
            )
        if code in _TOO_MUCH or code >= _SERVER_FAILED:
            raise _FailedError(told, waits=code not in _TOO_MUCH)
        if code >= 400:
            raise _RefusedError(told)
        try:
            found = reply.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise InvalidInputError(
                f"{self.address} must answer in JSON, got {told}; check the address"
            )
        return found

    def _told(self, reply: httpx.Response) -> str:
        said = " ".join(reply.text.split()).replace(self.keys.secret, "***")
        return f"{reply.status_code} {printable(said, _SHOWN)!r}"

    def _gone(self, why: str) -> SourceError:
        return SourceError(
            f"{self.address} must answer, got {printable(why)}; start again when it does, and it "
            "goes on from here"
        )


def address_of(source: str, environ: Mapping[str, str]) -> str:
    """Return the address that a source names, else the environment, else Langfuse's cloud.

    Raises:
        InvalidInputError: It is no address of a server.
    """
    given = source.removeprefix(PREFIX)
    given = given or next((environ[name] for name in ADDRESS if environ.get(name)), CLOUD)
    parts = urlsplit(given)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise InvalidInputError(
            "a source of Langfuse is langfuse: and the address of its server or project, as "
            f"langfuse:{CLOUD}, got {printable(given)!r}; keys stand in {PUBLIC_KEY} and "
            f"{SECRET_KEY}"
        )
    path = parts.path.partition(_PROJECT)[0].rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path.removesuffix(_API)}"


def project_of(source: str) -> str | None:
    """Return the id of the project that the address of one of Langfuse's pages names."""
    named = urlsplit(source.removeprefix(PREFIX)).path.partition(_PROJECT)[2]
    return named.partition("/")[0] or None


def keys_of(environ: Mapping[str, str]) -> Keys:
    """Return the keys that the environment holds, or files that it names.

    Raises:
        InvalidInputError: One is missing.
    """
    found = {name: value_of(environ, name) for name in (PUBLIC_KEY, SECRET_KEY)}
    if missing := [name for name, value in found.items() if not value]:
        raise InvalidInputError(
            f"Langfuse asks for the keys of a project, got none in {' and '.join(missing)}; export "
            "them, or name files that hold them with _FILE at the variable's end"
        )
    return Keys(str(found[PUBLIC_KEY]), str(found[SECRET_KEY]))


def _written(moment: str) -> str:
    at = datetime.fromisoformat(moment).astimezone(UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _place(of: str, fields: Mapping[str, Any]) -> str:
    return f"{of} {printable(str(fields.get('id')), 60)}"
