"""The page that leads to what MLflow and Prefect hold of a figure: the run that wrote it.

    /runs/CYCLE:analyze        # of an analysis; see `ratchet.tracking.stage_key`

A run is found by its key, which needs MLflow: it is looked for in the background, and only where
somebody asks.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Request, Response

from ratchet.errors import InvalidInputError
from ratchet.web.links import RunLinks, run_links
from ratchet.web.people import Person, needs
from ratchet.web.rendering import Place, page

_MOST_KEY = 500


def add_runs(app: FastAPI) -> tuple[Place, ...]:
    """Add the page of a run."""

    @app.get("/runs/{key:path}")
    def show(request: Request, key: str, person: Annotated[Person, needs("viewer")]) -> Response:
        shared, key = request.app.state.pages, key[:_MOST_KEY]
        found = shared.refreshed.get(f"run {key}", lambda: _links(shared, key))
        template = "run_links.html" if "hx-request" in request.headers else "run.html"
        return page(request, person, template, key=key, figure=found)

    return ()


def _links(shared: Any, key: str) -> RunLinks:
    run = shared.tracker().find_run(key)
    if run is None:
        raise InvalidInputError(
            "there is no such run in MLflow: it was deleted by age, or its stage did not come to "
            "write it"
        )
    return run_links(shared.settings, run)
