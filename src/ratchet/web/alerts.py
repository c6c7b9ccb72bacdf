"""The pages of alerts: open ones, the life of one, who looks after it, what to do about each."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from ratchet.analyze.alert_steps import by_hand, known_alerts, open_alerts, standing
from ratchet.errors import InvalidInputError
from ratchet.files.text import printable
from ratchet.notify.muting import mute, muted_at, mutes, unmute
from ratchet.notify.runbooks import RUNBOOKS
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
        muted, now = mutes(shared.store), shared.clock()
        return page(
            request,
            person,
            "alerts.html",
            open=[one for one in latest if one.alert_id in is_open],
            over=[one for one in latest if one.alert_id not in is_open][:50],
            muted={one.alert_id: muted_at(muted, one, now) for one in latest},
            now=now,
        )

    @app.get("/alerts/{alert}")
    def show(request: Request, alert: str, person: Annotated[Person, needs("viewer")]) -> Response:
        shared = request.app.state.pages
        steps = [one for one in _known(shared) if one.alert_id == alert]
        if not steps:
            raise missing("alert", alert)
        now = shared.clock()
        return page(
            request,
            person,
            "alert.html",
            alert=steps[-1],
            steps=steps[::-1],
            muted=muted_at(mutes(shared.store), steps[-1], now),
            runbook=RUNBOOKS[steps[-1].kind],
            now=now,
            chart=chart_of(steps[-1].signal),
        )

    @app.post("/alerts/{alert}/acknowledge")
    def acknowledge(alert: str, act: Annotated[Act, acts("engineer")]) -> Response:
        return _step(act, alert, "acknowledged")

    @app.post("/alerts/{alert}/resolve")
    def resolve(alert: str, act: Annotated[Act, acts("engineer")]) -> Response:
        return _step(act, alert, "resolved")

    @app.post("/alerts/{alert}/mute")
    def silence(alert: str, act: Annotated[Act, acts("engineer")]) -> Response:
        reason, hours = act.reason(), _hours(act.text("hours", most=20))
        with act.store.atomic():
            made = mute(
                act.store, alert, hours=hours, by=act.person.name, reason=reason, now=act.now
            )
            act.note("mute", made.about, reason=reason)
        return RedirectResponse(f"/alerts/{alert}", 303)

    @app.post("/alerts/{alert}/unmute")
    def tell_again(alert: str, act: Annotated[Act, acts("engineer")]) -> Response:
        reason = act.reason()
        with act.store.atomic():
            made = unmute(act.store, alert, by=act.person.name, reason=reason, now=act.now)
            act.note("unmute", made.about, reason=reason)
        return RedirectResponse(f"/alerts/{alert}", 303)

    _add_runbooks(app)
    return (Place("/alerts", "Alerts", "a"),)


def _add_runbooks(app: FastAPI) -> None:
    @app.get("/runbooks")
    def show_runbooks(request: Request, person: Annotated[Person, needs("viewer")]) -> Response:
        return page(request, person, "runbooks.html", runbooks=RUNBOOKS)

    @app.get("/runbooks/{kind}")
    def show_runbook(
        request: Request, kind: str, person: Annotated[Person, needs("viewer")]
    ) -> Response:
        found = RUNBOOKS.get(kind)
        if found is None:
            raise missing("runbook", kind)
        known = open_alerts(_known(request.app.state.pages))
        standing_now = [one for one in known if one.kind == kind]
        return page(request, person, "runbook.html", runbook=found, alerts=standing_now)


def _hours(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InvalidInputError(
            f"hours must be a number, got {printable(text)!r}; write for how long, such as 4"
        ) from error


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
