"""The page of signals that are derived from the traffic, which of them are off, and what that does.

A switch does what `ratchet signals switch` does: from the next pass on a kind is derived no longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from ratchet.errors import InvalidInputError
from ratchet.records import TRAFFIC_KINDS, SignalSwitch
from ratchet.records.signals import BY_NAME
from ratchet.store.following import switch, switched_off
from ratchet.views.words import COUNTED, in_quality
from ratchet.web.people import Act, Person, acts, needs
from ratchet.web.rendering import Place, page


@dataclass(frozen=True, slots=True)
class Shown:
    """A derived signal.

    Attributes:
        kind: Its name.
        says: Several of it, in words.
        events: How many are stored.
        effect: What quality and other figures take from it.
        by_setting: Whether a setting leaves it out.
        off: The switch by which a person did; None where it is derived.
        chart: Its chart; None without one.
    """

    kind: str
    says: str
    events: int
    effect: str
    by_setting: bool
    off: SignalSwitch | None
    chart: str | None


def add_signals(app: FastAPI) -> tuple[Place, ...]:
    """Add the page of derived signals, and the switch of each."""

    @app.get("/signals")
    def show(request: Request, person: Annotated[Person, needs("viewer")]) -> Response:
        return page(request, person, "signals.html", signals=_shown(request))

    @app.post("/signals/{kind}/{state}")
    def turn(
        request: Request, kind: str, state: str, act: Annotated[Act, acts("engineer")]
    ) -> Response:
        if state not in ("on", "off"):
            raise InvalidInputError(f"a signal is switched on or off, got {state[:40]!r}")
        reason, setting = act.reason(), request.app.state.pages.settings.not_derived
        with act.store.atomic():
            made = switch(
                act.store,
                kind,
                off=state == "off",
                by=act.person.name,
                note=reason,
                now=act.now,
                by_setting=setting,
            )
            if made is None:
                raise InvalidInputError(f"{kind} is {state} already; load the page anew")
            act.note(f"switch signal {state}", kind, reason=reason)
        return RedirectResponse("/signals", 303)

    return (Place("/signals", "Signals", "s"),)


def _shown(request: Request) -> tuple[Shown, ...]:
    shared = request.app.state.pages
    counts, off = shared.store.counts(), switched_off(shared.store)
    setting = shared.settings.not_derived
    return tuple(
        Shown(
            kind=kind,
            says=COUNTED[kind],
            events=counts[kind],
            effect=in_quality(kind),
            by_setting=kind in setting or "all" in setting,
            off=off.get(kind),
            chart=_chart(kind),
        )
        for kind in TRAFFIC_KINDS
    )


def _chart(kind: str) -> str | None:
    signal = BY_NAME[kind]
    read_as = BY_NAME[signal.stands_for] if signal.stands_for else signal
    metrics = [read_as.rate.metric] if read_as.rate else [one.metric for one in read_as.charts]
    return next(iter(metrics), None)
