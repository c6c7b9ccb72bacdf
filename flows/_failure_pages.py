"""Failure clusters for people: the page, the map and the table, in MLflow and Prefect."""

from __future__ import annotations

import numpy as np
from prefect import task
from prefect.cache_policies import NO_CACHE

from ratchet.analyze.failures.analysis import FailureAnalysis
from ratchet.analyze.failures.projection import project
from ratchet.flows._runtime import cycle_run, now, publish_figure, publish_text
from ratchet.records import Cycle
from ratchet.views import plots
from ratchet.views.pages.failures import MapPoints, Searched, failures_page
from ratchet.views.text.cycle import failures_markdown

PAGE = "failures.html"


@task(name="publish-failures", cache_policy=NO_CACHE)
def publish_failures(cycle: Cycle, analysis: FailureAnalysis) -> None:
    """Log the page, the map and the table, and say in Prefect where the page is."""
    points = _points(cycle, analysis)
    page = failures_page(
        analysis.clusters,
        Searched(
            model_version=cycle.champion,
            interactions=len(analysis.outcomes),
            failed=int(analysis.flags.sum()),
            window=(cycle.window_start, cycle.window_end),
            untold=analysis.failed.untold,
            left_out=analysis.left_out,
        ),
        now=now(),
        points=points,
        earlier=analysis.earlier,
        reason=analysis.result.reason,
    )
    with cycle_run(cycle, "analyze") as run:
        run.text(page, PAGE)
        run.metrics({"failure_clusters": float(len(analysis.clusters))})
        if analysis.clusters and points is not None:
            figure = plots.failure_map(
                analysis.clusters, points.xy, points.labels, points.failures > 0
            )
            publish_figure(run, "failure-map", figure, "Where failures pile up")
    table = failures_markdown(
        analysis.clusters,
        model_version=cycle.champion,
        earlier=analysis.earlier,
        reason=analysis.result.reason,
        part=analysis.part,
    )
    where = f"The page with map and examples: `{PAGE}` of the MLflow run `{run.run_id}`."
    publish_text("failures", f"{table}\n\n{where}", "Where failures pile up")


def _points(cycle: Cycle, analysis: FailureAnalysis) -> MapPoints | None:
    if not analysis.texts:
        return None
    rng = np.random.default_rng([cycle.seed, 3])
    placed = project(analysis.result, analysis.texts, analysis.flags, analysis.vectors, rng=rng)
    return MapPoints(
        xy=placed.xy,
        labels=placed.labels,
        failures=placed.failures,
        seen=placed.seen,
        texts=[analysis.texts[row] for row in placed.rows],
        of=placed.texts,
    )
