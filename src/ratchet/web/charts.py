"""The pages of control charts: any signal, by version or segment, drawn in the background.

The charts are those of `ratchet chart`: its catalogue, its limits, its picture. A picture is drawn
by the server and shown as an image, with the points in a table beside it, so that it needs no
script and reads without being seen.
"""

from __future__ import annotations

from typing import Annotated, get_args

from fastapi import FastAPI, Request, Response

from ratchet.analyze.monitoring.charts import KIND_SAYS, charted_signals, find_signal
from ratchet.errors import InvalidInputError
from ratchet.stats.charts.designed_charts import Kind
from ratchet.web.drawing import DAYS, GROUPS, Asked, Group
from ratchet.web.people import Person, needs
from ratchet.web.refreshing import REFRESHED_AFTER, Figure
from ratchet.web.rendering import Place, page

KINDS = get_args(Kind)
PICTURE_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""A picture holds styles of its own, and runs nothing."""


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
        f"chart {asked.name}",
        lambda: shared.drawer.draw(asked, shared.clock()),
    )
    return found
