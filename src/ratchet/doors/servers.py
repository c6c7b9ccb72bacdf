"""Which sources are servers: `mlflow:EXPERIMENT` and `langfuse:ADDRESS`.

    server = server_of("langfuse:https://cloud.langfuse.com", access)
    for report in look(server, given, store, since=None, known=known, now=now): ...

Keys come from the environment and are never part of a source, which runs and set-aside rows name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from ratchet.doors.door import Given
from ratchet.doors.known import door_named
from ratchet.doors.langfuse_api import PREFIX as LANGFUSE
from ratchet.doors.langfuse_api import LangfuseApi, address_of, keys_of, project_of
from ratchet.doors.mapping import ImportMap
from ratchet.doors.pages import Listing, Page, Reached, Server
from ratchet.errors import InvalidInputError
from ratchet.files.text import printable
from ratchet.tracking.traces import PAGE, trace_pages

MLFLOW = "mlflow:"
LOOKED_BACK = timedelta(days=7)
"""Something may be said about a trace so long after it: such traces are read again."""


@dataclass(frozen=True, slots=True)
class Access:
    """What it takes to reach servers.

    Attributes:
        tracking_uri: MLflow's.
        environ: Holds the keys of others.
    """

    tracking_uri: str
    environ: Mapping[str, str]


def is_server(source: str) -> bool:
    """Tell whether a source is a server that is asked page by page."""
    return source.startswith((MLFLOW, LANGFUSE))


def server_of(source: str, access: Access, *, as_format: str | None = None) -> Server:
    """Return the server that a source names; Langfuse is asked which project its keys are of.

    Raises:
        InvalidInputError: It is written in no such form, its format is another one, or the keys
            are missing or refused.
    """
    door = door_named("mlflow" if source.startswith(MLFLOW) else "langfuse")
    if as_format is not None and door_named(as_format) is not door:
        raise InvalidInputError(
            f"{printable(source)} is of the format {door.name}, got --as {printable(as_format)}; "
            "leave it out"
        )
    if door.name == "mlflow":
        name, uri = source.removeprefix(MLFLOW), access.tracking_uri
        return Server(source, door, (traces(uri, name),), f"the experiment {printable(name)!r}")
    api = LangfuseApi(address_of(source, access.environ), keys_of(access.environ))
    project = api.project(project_of(source))
    return Server(source, door, api.listings(project.id), f"the project {project.name!r}")


def given_of(server: Server, mapping: ImportMap | None, now: datetime) -> Given:
    """Return what the translator is told."""
    return Given(at=now, source=server.source, scores=mapping.scores if mapping else {})


def traces(uri: str, experiment: str, page: int = PAGE) -> Listing:
    """Return the traces of an experiment of MLflow."""
    pages = partial(_traces, uri, experiment, page)
    return Listing(f"{uri} {experiment}", pages, _trace_place)


def _traces(
    uri: str, name: str, page: int, kept: str | None, since: datetime | None, _now: datetime
) -> Iterator[Page]:
    """Yield the traces of an experiment in the order of their times."""
    before = Reached.of(kept)
    begin, last = before.next_begin(since, LOOKED_BACK), before.until
    ever = before.ever_since(begin)
    for some in trace_pages(uri, name, begin, page=page):
        last = max(last, some.last) if last else some.last
        yield Page(some.traces, Reached(last, ever).text())


def _trace_place(fields: Mapping[str, Any]) -> str:
    info = fields.get("info")
    name = info.get("trace_id") if isinstance(info, Mapping) else None
    return f"trace {name}"
