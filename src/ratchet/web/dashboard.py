"""The first screen: how the model does, what is alarming, what fails, what goes on, what waits."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from ratchet.errors import InvalidInputError
from ratchet.operate.approving import start_cycle
from ratchet.records import (
    Analysis,
    Candidate,
    Cycle,
    Decision,
    FailureCluster,
    Release,
    Rollout,
)
from ratchet.servers import answering_prefect
from ratchet.views.text.gate import difference
from ratchet.views.words import RELEASES, TRENDS, chart_of, words_of
from ratchet.web.links import mlflow_run, mlflow_version, prefect_runs
from ratchet.web.people import Act, Person, acts, needs
from ratchet.web.rendering import Place, environment, missing, page
from ratchet.web.standing import wins
from ratchet.web.weekly import Span, last_week, week_before, week_named, weekly_report

_LATEST = 200
"""Records of a kind among which those about one version are looked for."""


def add_dashboard(app: FastAPI) -> tuple[Place, ...]:
    """Add the first screen, and the pages of a version and a failure cluster."""
    environment().filters |= {
        "words_of": words_of,
        "wins": wins,
        "difference": difference,
        "chart_of": chart_of,
    }

    @app.get("/")
    def show(request: Request, person: Annotated[Person, needs("viewer")]) -> Response:
        shared = request.app.state.pages
        return page(
            request,
            person,
            "dashboard.html",
            state=shared.standing(),
            now=shared.clock(),
            mlflow_run=lambda run: mlflow_run(shared.settings, run),
            prefect=prefect_runs(shared.settings),
        )

    @app.get("/versions/{version:path}")
    def version(
        request: Request, version: str, person: Annotated[Person, needs("viewer")]
    ) -> Response:
        return _version_page(request, person, version)

    @app.get("/clusters/{key}")
    def cluster(request: Request, key: str, person: Annotated[Person, needs("viewer")]) -> Response:
        found, analysis = _cluster(request, key)
        return page(
            request, person, "cluster.html", cluster=found, analysis=analysis, trends=TRENDS
        )

    @app.get("/cycle/start")
    def ask_for_cycle(request: Request, person: Annotated[Person, needs("engineer")]) -> Response:
        shared = request.app.state.pages
        return page(
            request,
            person,
            "confirm.html",
            title="Start a cycle",
            says="A run of the loop is started in Prefect. It opens a cycle, or goes on with the "
            f"one that is open: {shared.standing().underway.step}.",
            action="/cycle/start",
            button="Start",
            back="/",
        )

    @app.post("/cycle/start")
    def begin_cycle(request: Request, act: Annotated[Act, acts("engineer")]) -> Response:
        settings, reason = request.app.state.pages.settings, act.reason()
        api = answering_prefect(settings)
        if api is None:
            act.note("start cycle", reason=reason, outcome="failed")
            raise InvalidInputError(
                "a cycle is started in Prefect, got no server that answers; run `ratchet up`"
            )
        run = start_cycle(api, by=act.person.name, reason=reason)
        act.note("start cycle", run, reason=reason)
        return RedirectResponse("/", 303)

    _add_weeks(app)
    return (Place("/", "Overview", "o"), Place("/weekly", "Week", "w"))


def _add_weeks(app: FastAPI) -> None:
    @app.get("/weekly")
    def latest(request: Request, person: Annotated[Person, needs("viewer")]) -> Response:
        return _week_page(request, person, last_week(request.app.state.pages.clock()))

    @app.get("/weekly/{name}")
    def week(request: Request, name: str, person: Annotated[Person, needs("viewer")]) -> Response:
        return _week_page(request, person, week_named(name))


def _week_page(request: Request, person: Person, week: Span) -> Response:
    shared = request.app.state.pages
    report = weekly_report(
        shared.store, week, assistant=shared.settings.model_name, now=shared.clock()
    )
    before = week_before(shared.store, week)
    return page(request, person, "weekly.html", report=report, before=before)


def _cluster(request: Request, key: str) -> tuple[FailureCluster, Analysis]:
    analysis = request.app.state.pages.standing().week.now
    found = None
    if analysis is not None:
        found = next((one for one in analysis.clusters if one.id == key), None)
    if analysis is None or found is None:
        raise missing("failure cluster of the latest analysis", key)
    return found, analysis


def _version_page(request: Request, person: Person, version: str) -> Response:
    shared = request.app.state.pages
    store = shared.store
    candidates = shared.kept.records(Candidate, _LATEST)
    candidate = next((one for one in candidates if one.reference == version), None)
    decisions = [
        one
        for one in shared.kept.records(Decision, _LATEST)
        if version in (one.challenger, one.champion)
    ]
    releases = [
        one
        for one in shared.kept.records(Release, _LATEST)
        if version in (one.champion, one.previous)
    ]
    rollouts = [
        one
        for one in shared.kept.records(Rollout, _LATEST)
        if version in (one.challenger.version, one.champion.version)
    ]
    if candidate is None and not (decisions or releases or rollouts):
        raise missing("version", version)
    return page(
        request,
        person,
        "version.html",
        version=version,
        candidate=candidate,
        cycle=None if candidate is None else store.get(Cycle, candidate.cycle_id),
        decisions=decisions[::-1],
        releases=releases[::-1],
        rollouts=rollouts[::-1],
        said=RELEASES,
        run=None if candidate is None else mlflow_run(shared.settings, candidate.run_id),
        registry=mlflow_version(shared.settings, version),
        is_champion=shared.standing().champion == version,
    )
