"""The pages of control charts: any signal, by version or segment, drawn in the background.

The charts are those of `ratchet chart`: its catalogue, its limits, its picture. A picture is drawn
by the server and shown as an image, with the points in a table beside it, so that it needs no
script and reads without being seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlencode

import numpy as np
from fastapi import FastAPI, Request, Response

from ratchet.analyze.monitoring.chart_lines import report_lines
from ratchet.analyze.monitoring.charts import (
    KIND_SAYS,
    ChartedSignal,
    ChartReport,
    SignalChart,
    chart_signal,
    charted_signals,
    find_signal,
    read_window,
)
from ratchet.errors import InvalidInputError
from ratchet.records import AlertEvent
from ratchet.stats.charts.designed_charts import Kind
from ratchet.store import EventStore, Window
from ratchet.views.plots import signal_chart, to_svg
from ratchet.web.people import Person, needs
from ratchet.web.refreshing import REFRESHED_AFTER, Figure
from ratchet.web.rendering import Place, page

Group = Literal["version", "segment", "application", "prompt_version"]
GROUPS = get_args(Group)
KINDS = get_args(Kind)
DAYS = 30
RUN_LENGTH = 370.0
"""Mean number of points between false alarms, that of three standard deviations."""
_MOST_ROWS = 60
PICTURE_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""A picture holds styles of its own, and runs nothing."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A chart that somebody asked for.

    Attributes:
        signal: What is charted.
        by: What gets a chart for each of its values; None for one chart of all.
        kind: Which chart; None for the one that suits the signal.
    """

    signal: ChartedSignal
    by: Group | None
    kind: Kind | None

    @property
    def name(self) -> str:
        """Its name among figures, and its address."""
        told = {"by": self.by, "kind": self.kind}
        return f"{self.signal.name}?{urlencode({k: v for k, v in told.items() if v})}"


@dataclass(frozen=True, slots=True)
class Row:
    """A point of a chart; `signals` says what it signals, empty where it signals nothing."""

    at: datetime
    observations: int
    value: float
    signals: str


@dataclass(frozen=True, slots=True)
class Drawn:
    """A chart as it was drawn.

    Attributes:
        svg: The picture.
        lines: What it shows, in words.
        tables: The latest points of each of its charts.
        alerts: Alerts on the signal that opened in these days.
    """

    svg: str
    lines: tuple[str, ...]
    tables: tuple[tuple[str, tuple[Row, ...]], ...]
    alerts: tuple[AlertEvent, ...]


def add_charts(app: FastAPI) -> tuple[Place, ...]:
    """Add the pages of control charts."""

    @app.get("/charts")
    def choose(request: Request, person: Annotated[Person, needs("viewer")]) -> Response:
        return page(request, person, "charts.html", signals=charted_signals())

    @app.get("/charts/{signal}")
    def show(
        request: Request,
        signal: str,
        person: Annotated[Person, needs("viewer")],
        by: str = "",
        kind: str = "",
    ) -> Response:
        asked = _asked(signal, by, kind)
        template = "chart_figure.html" if "hx-request" in request.headers else "chart.html"
        return page(
            request,
            person,
            template,
            asked=asked,
            figure=_figure(request, asked),
            groups=GROUPS,
            kinds=KIND_SAYS,
            days=DAYS,
            minutes=int(REFRESHED_AFTER.total_seconds() // 60),
        )

    @app.get("/chart-pictures/{signal}", dependencies=[needs("viewer")])
    def picture(request: Request, signal: str, by: str = "", kind: str = "") -> Response:
        drawn = _figure(request, _asked(signal, by, kind)).value
        if drawn is None:
            return Response(status_code=404)
        headers = {"content-security-policy": PICTURE_POLICY}
        return Response(drawn.svg, media_type="image/svg+xml", headers=headers)

    return (Place("/charts", "Charts", "h"),)


def _asked(signal: str, by: str, kind: str) -> Asked:
    """Return the chart that an address names.

    Raises:
        InvalidInputError: There is no such signal, group or kind.
    """
    for what, given, known in (("by", by, GROUPS), ("kind", kind, KINDS)):
        if given and given not in known:
            raise InvalidInputError(f"{what} must be one of {', '.join(known)}, got {given[:40]!r}")
    group: Group | None = next((one for one in GROUPS if one == by), None)
    chosen: Kind | None = next((one for one in KINDS if one == kind), None)
    return Asked(find_signal(signal), group, chosen)


def _figure(request: Request, asked: Asked) -> Figure:
    shared = request.app.state.pages
    found: Figure = shared.refreshed.get(
        f"chart {asked.name}", lambda: draw(shared.store, asked, shared.clock())
    )
    return found


def draw(store: EventStore, asked: Asked, now: datetime) -> Drawn:
    """Read the last days and draw a chart.

    Raises:
        InsufficientDataError: There is too little for a chart.
        InvalidInputError: The kind does not suit the signal.
    """
    readings = read_window(store, Window(now - timedelta(days=DAYS), now), by=asked.by)
    report = chart_signal(
        readings, asked.signal, kind=asked.kind, by=asked.by, run_length=RUN_LENGTH
    )
    return Drawn(
        svg=to_svg(_picture(report)),
        lines=tuple(report_lines(report, RUN_LENGTH)),
        tables=tuple((item.value, _rows(item)) for item in report.charts),
        alerts=report.alerts[::-1],
    )


def _picture(report: ChartReport) -> Any:
    return signal_chart(
        {item.value: (item.starts, item.design) for item in report.charts},
        report.signal.says.capitalize(),
        report.kinds,
        unit=report.signal.unit,
        releases=report.releases,
        alerts=report.alert_marks,
    )


def _rows(item: SignalChart) -> tuple[Row, ...]:
    """Return the latest points, the newest first."""
    signalled = dict.fromkeys((alarm.index for alarm in item.design.patterns), "run rule")
    signalled |= dict.fromkeys((alarm.index for alarm in item.design.alarms), "outside")
    places = range(len(item.starts))[-_MOST_ROWS:]
    moments = item.starts.astype("datetime64[us]").astype(datetime)
    return tuple(
        Row(
            at=moments[place].replace(tzinfo=UTC),
            observations=int(item.sizes[place]),
            value=float(np.asarray(item.design.values)[place]),
            signals=signalled.get(place, ""),
        )
        for place in reversed(places)
    )
