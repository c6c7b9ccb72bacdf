"""The pages of alerts: open ones, the life of one, and who looks after it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from ratchet.analyze.alert_steps import by_hand, known_alerts, open_alerts, standing
from ratchet.records import AlertEvent
from ratchet.views.words import chart_of
from ratchet.web.people import Act, Person, acts, needs
from ratchet.web.rendering import Place, missing, page
from ratchet.web.standing import ALERTS


def add_alerts(app: FastAPI) -> tuple[Place, ...]:
    """Add the list of alerts, the page of each, and what a person does to one."""

    @app.get("/alerts")
    def show_all(request: Request, person: Annotated[Person, needs("viewer")]) -> Response:
        shared = request.app.state.pages
        known = _known(shared)
        is_open = {one.alert_id for one in open_alerts(known)}
        latest = list(standing(known).values())[::-1]
        return page(
            request,
            person,
            "alerts.html",
            open=[one for one in latest if one.alert_id in is_open],
            over=[one for one in latest if one.alert_id not in is_open][:50],
            now=shared.clock(),
        )

    @app.get("/alerts/{alert}")
    def show(request: Request, alert: str, person: Annotated[Person, needs("viewer")]) -> Response:
        shared = request.app.state.pages
        steps = [one for one in _known(shared) if one.alert_id == alert]
        if not steps:
            raise missing("alert", alert)
        return page(
            request,
            person,
            "alert.html",
            alert=steps[-1],
            steps=steps[::-1],
            now=shared.clock(),
            chart=chart_of(steps[-1].signal),
        )

    @app.post("/alerts/{alert}/acknowledge")
    def acknowledge(alert: str, act: Annotated[Act, acts("engineer")]) -> Response:
        return _step(act, alert, "acknowledged")

    @app.post("/alerts/{alert}/resolve")
    def resolve(alert: str, act: Annotated[Act, acts("engineer")]) -> Response:
        return _step(act, alert, "resolved")

    return (Place("/alerts", "Alerts", "a"),)


def _known(shared: Any) -> tuple[AlertEvent, ...]:
    found: tuple[AlertEvent, ...] = shared.kept.get(
        "alerts", ALERTS, lambda: known_alerts(shared.store)
    )
    return found


def _step(act: Act, alert: str, change: Literal["acknowledged", "resolved"]) -> Response:
    reason, store = act.reason(), act.store
    with store.atomic():
        event = by_hand(
            known_alerts(store), alert, change, by=act.person.name, note=reason, now=act.now
        )
        store.append(event)
        act.note("acknowledge" if change == "acknowledged" else "resolve", alert, reason=reason)
    return RedirectResponse(f"/alerts/{event.alert_id}", 303)
