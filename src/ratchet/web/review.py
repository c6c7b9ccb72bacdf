"""The pages of review: one item at a time, by keyboard, and how far reviewers agree.

A decision answers with the next item, so that a reviewer waits for one request. Nothing on a page
names a model, a judge or another reviewer's label, but for whoever decides between people who
disagreed, who sees the labels without names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from ratchet.records import ReviewDecision, ReviewUndo
from ratchet.review.agreement import agreement_on
from ratchet.review.deciding import decide, skip, undo
from ratchet.review.policy import ReviewDimension, ReviewPolicy
from ratchet.review.working import mine, next_work
from ratchet.store.review_seats import waiting_counts
from ratchet.web.people import Act, Person, acts, needs
from ratchet.web.refreshing import Figure
from ratchet.web.rendering import Place, page

MOST_COUNTED = 10_000
"""Waiting items are counted up to here."""
MOST_LABELS = 5_000
"""The latest labels that the page of agreement looks at."""


def add_review(app: FastAPI) -> tuple[Place, ...]:
    """Add the pages of review."""

    @app.get("/review")
    def work(
        request: Request,
        person: Annotated[Person, needs("reviewer")],
        queue: str = "",
        dimension: str = "",
        adjudicate: bool = False,
    ) -> Response:
        chosen = {"queue": queue, "dimension": dimension, "adjudicate": "1" if adjudicate else ""}
        return _next(request, person, chosen)

    @app.post("/review/decide")
    def label(request: Request, act: Annotated[Act, acts("reviewer")]) -> Response:
        decide(
            act.store,
            act.text("item"),
            act.text("label"),
            reviewer=act.person.name,
            now=act.now,
            note=_field(act, "note") or None,
            answer=_field(act, "answer") or None,
            adjudicates=bool(_field(act, "adjudicate")),
            policy=_policy(request),
        )
        return _after(request, act)

    @app.post("/review/skip")
    def pass_on(request: Request, act: Annotated[Act, acts("reviewer")]) -> Response:
        reason = act.text("reason")
        skip(act.store, act.text("item"), reviewer=act.person.name, reason=reason, now=act.now)
        return _after(request, act)

    @app.post("/review/undo")
    def take_back(request: Request, act: Annotated[Act, acts("reviewer")]) -> Response:
        until = act.now + _policy(request).held_for
        undo(act.store, reviewer=act.person.name, now=act.now, held_until=until)
        return _after(request, act)

    @app.get("/review/agreement")
    def agreement(
        request: Request,
        person: Annotated[Person, needs("reviewer")],
        dimension: str = "helpfulness",
    ) -> Response:
        policy = _policy(request)
        template = "agreement_figure.html" if "hx-request" in request.headers else "agreement.html"
        return page(
            request,
            person,
            template,
            dimension=dimension,
            figure=_agreement(request, dimension, policy.dimensions.get(dimension)),
            dimensions=tuple(policy.dimensions),
        )

    return (Place("/review", "Review", "r", "reviewer"),)


def _policy(request: Request) -> ReviewPolicy:
    """Return the policy as its files are when the request is answered."""
    if not hasattr(request.state, "review_policy"):
        request.state.review_policy = request.app.state.pages.review_policy.read()
    policy: ReviewPolicy = request.state.review_policy
    return policy


def _agreement(request: Request, dimension: str, known: ReviewDimension | None) -> Figure:
    """Return the figures of agreement, which take a second: made anew once somebody labelled."""
    shared = request.app.state.pages
    menu = known.names if known is not None else ()
    found: Figure = shared.refreshed.get(
        f"agreement {dimension} {menu}",
        lambda: agreement_on(
            shared.store,
            dimension,
            categories=menu,
            ordered=known is not None and known.ordered,
            most=MOST_LABELS,
        ),
        of=shared.store.last_positions((ReviewDecision, ReviewUndo)),
    )
    return found


def _field(act: Act, name: str) -> str:
    """Return a field that may be left out, without spaces around it."""
    return act.form.get(name, "").strip()


def _after(request: Request, act: Act) -> Response:
    """Answer with the next item; a browser without scripts is led to it."""
    chosen = {name: _field(act, name) for name in ("queue", "dimension", "adjudicate")}
    if "hx-request" not in request.headers:
        query = urlencode({name: value for name, value in chosen.items() if value})
        return RedirectResponse(f"/review?{query}" if query else "/review", 303)
    return _next(request, act.person, chosen)


def _next(request: Request, person: Person, chosen: Mapping[str, str]) -> Response:
    shared, policy = request.app.state.pages, _policy(request)
    found = next_work(
        shared.store,
        policy,
        reviewer=person.name,
        now=shared.clock(),
        queue=chosen["queue"] or None,
        dimension=chosen["dimension"] or None,
        adjudicates=bool(chosen["adjudicate"]),
    )
    waiting, disputed = waiting_counts(shared.store, MOST_COUNTED)
    shown: dict[str, Any] = {
        "work": found,
        "chosen": chosen,
        "waiting": waiting,
        "disputed": disputed,
        "most": MOST_COUNTED,
        "mine": mine(shared.store, person.name),
    }
    template = "review_work.html" if "hx-request" in request.headers else "review.html"
    return page(request, person, template, **shown)
