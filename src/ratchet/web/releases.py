"""The pages of decisions and rollouts, and what a person does about what users get."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import RedirectResponse

from ratchet.deploy.approval import expire, standing, waits_for_person
from ratchet.deploy.refusals import not_acted_on
from ratchet.deploy.rollout.canary import outcome, stop_rollout
from ratchet.deploy.rollout.rollback import roll_back
from ratchet.deploy.routing import looks_of, running_rollout
from ratchet.errors import InvalidInputError, RatchetError
from ratchet.operate.approving import decide, resume_runs
from ratchet.records import (
    Approval,
    Decision,
    Release,
    Rollout,
    RolloutLook,
    RolloutStop,
    Routing,
)
from ratchet.servers import answering_prefect
from ratchet.store import EventStore
from ratchet.views.plots import to_svg
from ratchet.views.plots.rollouts import rollout_chart
from ratchet.views.text.gate import difference, moved, score
from ratchet.views.text.rollouts import rollout_events
from ratchet.views.words import LOOKS, READOUTS, words_of
from ratchet.web.charts import PICTURE_POLICY
from ratchet.web.gate_examples import A_PAGE, Evidence, ExamplesAsked, evidence_of
from ratchet.web.people import Act, Person, acts, needs
from ratchet.web.rendering import Place, missing, page

logger = logging.getLogger(__name__)

_SHOWN = 50
_ROLLOUTS = (Release, Rollout, RolloutLook, RolloutStop, Routing)
"""Records that say how rollouts stand."""


def add_releases(app: FastAPI) -> tuple[Place, ...]:
    """Add the pages of decisions and rollouts, and the actions on them."""
    _add_decisions(app)
    _add_rollouts(app)
    _add_pictures(app)
    return (
        Place("/decisions", "Decisions", "d"),
        Place("/rollouts", "Rollouts", "l"),
    )


def _add_decisions(app: FastAPI) -> None:
    @app.get("/decisions")
    def show_all(request: Request, person: Annotated[Person, needs("viewer")]) -> Response:
        shared = request.app.state.pages
        found = shared.kept.records(Decision, _SHOWN)[::-1]
        waiting = {one.id for one in shared.standing().waiting.decisions}
        return page(
            request,
            person,
            "decisions.html",
            decisions=[(one, difference(one)) for one in found],
            waiting=waiting,
        )

    @app.get("/decisions/{key}")
    def show(request: Request, key: str, person: Annotated[Person, needs("viewer")]) -> Response:
        shared = request.app.state.pages
        found = _decision(shared.store, key)
        return page(
            request,
            person,
            "decision.html",
            decision=found,
            approval=shared.store.get(Approval, key),
            state=standing(shared.store, found) if found.approval else None,
            waits=waits_for_person(shared.store, found),
            not_acted_on=not_acted_on(shared.store, found),
            difference=difference(found),
            scores=(score(found.champion_value, found), score(found.challenger_value, found)),
            clusters=[(one, moved(one)) for one in found.clusters],
            **_examples(request, found, ExamplesAsked()),
        )

    @app.get("/decisions/{key}/examples")
    def examples(
        request: Request,
        key: str,
        person: Annotated[Person, needs("viewer")],
        asked: Annotated[ExamplesAsked, Query()],
    ) -> Response:
        template = "examples_part.html" if "hx-request" in request.headers else "examples.html"
        found = _decision(request.app.state.pages.store, key)
        return page(request, person, template, decision=found, **_examples(request, found, asked))

    @app.post("/decisions/{key}/{word}")
    def answer(
        request: Request, key: str, word: str, act: Annotated[Act, acts("engineer")]
    ) -> Response:
        if word not in ("approve", "reject"):
            raise InvalidInputError(f"a promotion is approved or rejected, got {word[:40]!r}")
        return _answer(request, key, word == "approve", act)


def _examples(request: Request, decision: Decision, asked: ExamplesAsked) -> dict[str, Any]:
    """Return what the templates show of a decision's examples."""
    figure = evidence_of(request, decision)
    evidence: Evidence | None = figure.value
    part = evidence.part(asked.metric, asked.set_name) if evidence else None
    side = () if part is None else part.lost if asked.side == "lost" else part.won
    parts = evidence.parts if evidence else ()
    start = (asked.number - 1) * A_PAGE
    return {
        "figure": figure,
        "asked": asked,
        "part": part,
        "shown": side[start : start + A_PAGE],
        "pages": -(-len(side) // A_PAGE),
        "metrics": list(dict.fromkeys(one.metric for one in parts)),
        "sets": list(dict.fromkeys(one.set_name for one in parts)),
    }


def _answer(request: Request, key: str, approved: bool, act: Act) -> Response:
    shared, reason = request.app.state.pages, act.reason()
    action = "approve" if approved else "reject"
    found = _decision(act.store, key)
    expire(act.store, found, act.now)
    try:
        done = decide(
            act.store,
            shared.tracker(),
            shared.answering(),
            found,
            approved=approved,
            by=act.person.name,
            reason=reason,
            via="page",
            approvers=shared.settings.approvers,
            now=act.now,
        )
    except RatchetError as error:
        act.note(action, key, reason=f"{reason}: {error}", outcome="failed")
        raise
    act.note(action, key, reason=reason)
    api = answering_prefect(shared.settings)
    if api is not None:
        try:
            resume_runs(api, done.approval)
        except RatchetError as error:  # the answer is kept; the run finds it when its time is over
            logger.warning("the run that waits for %s was not resumed: %s", key, error)
    return RedirectResponse(f"/decisions/{key}", 303)


def _decision(store: object, key: str) -> Decision:
    found = store.get(Decision, key)  # type: ignore[attr-defined]
    if not isinstance(found, Decision):
        raise missing("decision", key)
    return found


def _add_rollouts(app: FastAPI) -> None:
    @app.get("/rollouts")
    def show_all(request: Request, person: Annotated[Person, needs("viewer")]) -> Response:
        shared = request.app.state.pages
        return page(
            request,
            person,
            "rollouts.html",
            rollouts=shared.kept.get("rollouts", _ROLLOUTS, lambda: _outcomes(shared.store)),
            champion=shared.standing().champion,
        )

    @app.get("/rollouts/{key}")
    def show(request: Request, key: str, person: Annotated[Person, needs("viewer")]) -> Response:
        store = request.app.state.pages.store
        found = store.get(Rollout, key)
        if found is None:
            raise missing("rollout", key)
        looks = looks_of(store, found)
        stop = store.get(RolloutStop, key)
        releases = store.records(Release, latest=20)
        return page(
            request,
            person,
            "rollout.html",
            rollout=found,
            state=outcome(store, found),
            looks=looks[::-1][:_SHOWN],
            events=rollout_events(found, looks, stop, releases),
            said=LOOKS,
            read=READOUTS,
            words_of=words_of,
        )

    @app.get("/rollback")
    def ask(request: Request, person: Annotated[Person, needs("engineer")]) -> Response:
        return page(
            request,
            person,
            "confirm.html",
            title="Roll back",
            says=_would_undo(request),
            action="/rollback",
            button="Roll back",
            back="/rollouts",
        )

    @app.post("/rollback")
    def undo(request: Request, act: Annotated[Act, acts("engineer")]) -> Response:
        shared, reason = request.app.state.pages, act.reason()
        try:
            done = roll_back(
                act.store,
                shared.tracker(),
                now=act.now,
                by=act.person.name,
                person=True,
                note=reason,
                answering=shared.answering(),
            )
        except RatchetError as error:
            act.note("roll back", reason=f"{reason}: {error}", outcome="failed")
            raise
        act.note("roll back", done.version or "", reason=reason)
        return RedirectResponse("/rollouts", 303)

    @app.post("/rollouts/{key}/stop")
    def stop(key: str, act: Annotated[Act, acts("engineer")]) -> Response:
        reason = act.reason()
        with act.store.atomic():
            running = running_rollout(act.store)
            if running is None or running.id != key:
                raise InvalidInputError("only a running rollout can be stopped; load the page anew")
            stop_rollout(act.store, by=act.person.name, now=act.now, note=reason)
            act.note("stop rollout", running.challenger.version, reason=reason)
        return RedirectResponse(f"/rollouts/{key}", 303)


def _add_pictures(app: FastAPI) -> None:
    @app.get("/rollout-pictures/{key}", dependencies=[needs("viewer")])
    def picture(request: Request, key: str) -> Response:
        shared = request.app.state.pages
        found = shared.store.get(Rollout, key)
        looks = () if found is None else looks_of(shared.store, found)
        if not looks:
            raise missing("look at a rollout", key)
        figure = shared.refreshed.made(
            f"rollout {key} {len(looks)}", lambda: to_svg(bounds_chart(found, looks))
        )
        if figure.value is None:
            return Response(status_code=404)
        headers = {"content-security-policy": PICTURE_POLICY}
        return Response(figure.value, media_type="image/svg+xml", headers=headers)


def bounds_chart(rollout: Rollout, looks: Sequence[RolloutLook]) -> Any:
    """Draw the primary signal's difference over the looks, as its run in MLflow has it."""
    primary = next(signal.name for signal in rollout.signals if signal.primary)
    return rollout_chart(looks, primary, f"Rollout of {rollout.challenger.version}")


def _outcomes(store: EventStore) -> list[tuple[Rollout, str]]:
    """Return the latest rollouts with how each stands, the newest first."""
    return [(one, outcome(store, one)) for one in store.records(Rollout, latest=_SHOWN)[::-1]]


def _would_undo(request: Request) -> str:
    """Return what a rollback would undo, in words."""
    shared = request.app.state.pages
    state = shared.standing()
    if state.underway.rollout is not None:
        rollout = state.underway.rollout
        return (
            f"The rollout of {rollout.challenger.version} ends for good, and everybody has "
            f"{rollout.champion.version}."
        )
    if state.underway.test is not None:
        return f"The test of variants {state.underway.test.name} ends; everybody has the champion."
    before = None if state.release is None else state.release.previous
    if before is None:
        return "There is no version before the champion, so there is nothing to roll back to."
    return f"{state.champion} is withdrawn, and {before} is the champion again."
