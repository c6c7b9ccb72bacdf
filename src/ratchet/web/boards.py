"""The page of a version's board: its evidence over time, from the states that monitoring stores."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from urllib.parse import quote

from fastapi import FastAPI, Request, Response

from ratchet.analyze.alert_steps import known_alerts
from ratchet.analyze.monitoring.board import change_point, evidence_of, in_alarm
from ratchet.errors import InsufficientDataError
from ratchet.records import AlertEvent, Baseline, BoardState
from ratchet.store import EventStore
from ratchet.views.plots import evidence_chart, to_svg
from ratchet.web.charts import PICTURE_POLICY
from ratchet.web.people import Person, needs
from ratchet.web.refreshing import Figure
from ratchet.web.rendering import Place, page

_LATEST = 1_000


@dataclass(frozen=True, slots=True)
class Board:
    """A version's board as it was read.

    Attributes:
        svg: The picture of its evidence.
        rows: End of the charted time, log evidence and log threshold then, the newest first.
        baseline: What it compares with.
        alerts: The first step of each of its alerts, the newest first.
    """

    svg: str
    rows: tuple[tuple[datetime, float, float], ...]
    baseline: Baseline
    alerts: tuple[AlertEvent, ...]


def add_boards(app: FastAPI) -> tuple[Place, ...]:
    """Add the page of a board."""

    @app.get("/boards/{version:path}")
    def show(
        request: Request, version: str, person: Annotated[Person, needs("viewer")]
    ) -> Response:
        template = "board_figure.html" if "hx-request" in request.headers else "board.html"
        found = _figure(request, version)
        return page(
            request, person, template, version=version, figure=found, address=quote(version)
        )

    @app.get("/board-pictures/{version:path}", dependencies=[needs("viewer")])
    def picture(request: Request, version: str) -> Response:
        drawn: Board | None = _figure(request, version).value
        if drawn is None:
            return Response(status_code=404)
        headers = {"content-security-policy": PICTURE_POLICY}
        return Response(drawn.svg, media_type="image/svg+xml", headers=headers)

    return ()


def _figure(request: Request, version: str) -> Figure:
    shared = request.app.state.pages
    found: Figure = shared.refreshed.get(
        f"board {version[:200]}", lambda: read_board(shared.store, version)
    )
    return found


def read_board(store: EventStore, version: str) -> Board:
    """Return a board with its evidence over time.

    Raises:
        InsufficientDataError: Monitoring has charted nothing of the version.
    """
    states = [
        one for one in store.records(BoardState, subject=version, latest=_LATEST) if one.batches
    ]
    baselines = {key: store.get(Baseline, key) for key in {one.baseline_id for one in states}}
    known = [(one, found) for one in states if (found := baselines[one.baseline_id])]
    if not known:
        raise InsufficientDataError(
            "a board shows what monitoring charted, got no batch of this version yet; "
            "`ratchet analyze --watch-only` makes a pass"
        )
    last, baseline = known[-1]
    rows = tuple(
        (one.charted_until, evidence_of(one, found), one.log_threshold) for one, found in known
    )
    alarm = in_alarm(last, baseline)
    figure = evidence_chart(
        [until for until, _, _ in rows],
        [evidence for _, evidence, _ in rows],
        [threshold for _, _, threshold in rows],
        f"{version}: evidence that it is worse",
        "log evidence of the board; red: at the threshold or above, which is an alarm",
        change=change_point(last, baseline) if alarm else None,
    )
    alerts = [
        one
        for one in known_alerts(store)
        if one.model_version == version and one.change == "opened"
    ]
    return Board(to_svg(figure), rows[::-1], baseline, tuple(alerts[::-1]))
