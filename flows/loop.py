"""The loop: one cycle of collect, analyze, improve and deploy, with a report at the end.

Run as a module (`python -m ratchet.flows.loop OPTIONS`, JSON) it runs one cycle in this process and
prints the report; the command `ratchet demo` does that.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from typing import Annotated, TypeVar

from prefect import State, flow, task
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict, Field

from ratchet.errors import InsufficientDataError, WaitingError
from ratchet.flows._alone import end_orphans
from ratchet.flows._command import options_of, told
from ratchet.flows._elsewhere import follow_champion
from ratchet.flows._golden import refresh_golden
from ratchet.flows._handover import cancel_handed_over, improve_for
from ratchet.flows._judges import run_judges
from ratchet.flows._recorded import refuse_incomplete
from ratchet.flows._runtime import EXPERIMENT, now, publish_text, run_tags, workspace
from ratchet.flows._sources import bring_in
from ratchet.flows._waiting import or_waiting, result_of
from ratchet.flows.analyze import AnalyzeOptions, analyze
from ratchet.flows.collect import CollectOptions, collect
from ratchet.flows.deploy import DeployOptions, deploy
from ratchet.flows.improve import ImproveOptions
from ratchet.operate.readiness import NextCycle
from ratchet.records import (
    Analysis,
    Candidate,
    CycleWait,
    Decision,
    Record,
    ReferenceScore,
    Release,
    TrainingSet,
    derive_id,
)
from ratchet.store.cycles import end_cycle, latest_cycle, sole_loop
from ratchet.store.leases import ANALYSIS, hold
from ratchet.store.waits import goes_on
from ratchet.views.text.cycle import CycleReport, render_markdown, render_text


class LoopOptions(BaseModel):
    """One options object per stage.

    Attributes:
        worker_minutes: Where training is handed to a deployment: how long it may wait for a worker
            while none of its pool is there.
        anew: Whether a cycle that still waits for labels is given up and the next one begins; else
            nothing else happens until they are there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    collect: CollectOptions = CollectOptions()
    analyze: AnalyzeOptions = AnalyzeOptions()
    improve: ImproveOptions = ImproveOptions()
    deploy: DeployOptions = DeployOptions()
    worker_minutes: Annotated[float, Field(ge=0.0)] = 10.0
    anew: bool = False


DEFAULTS = LoopOptions()


R = TypeVar("R", bound=Record)


def _stored(kind: type[R], key: str) -> R:
    stored = workspace().store.get(kind, key)
    if stored is None:
        raise InsufficientDataError(
            f"a report needs the {kind.__name__} {key!r}, got none in the store; run the loop again"
        )
    return stored


@task(name="report", cache_policy=NO_CACHE)
def write_report(
    analysis_id: str, candidate_id: str, decision_id: str, started: datetime
) -> CycleReport:
    """Gather what the cycle left behind, and publish it."""
    work = workspace()
    cycle = latest_cycle(work.store)
    candidate = _stored(Candidate, candidate_id)
    report = CycleReport(
        cycle=cycle,
        counts=work.store.counts(),
        set_aside=work.store.set_aside_reasons(),
        analysis=_stored(Analysis, analysis_id),
        training_set=_stored(TrainingSet, candidate.training_set_id),
        candidate=candidate,
        decision=_stored(Decision, decision_id),
        release=work.store.get(Release, derive_id("release", decision_id)),
        started=started,
        ended=now(),
        references=tuple(
            one
            for one in work.store.records(ReferenceScore)
            if one.example_set_id == cycle.example_set_id
        ),
    )
    with work.tracker.run(
        EXPERIMENT,
        key=f"{cycle.id}:loop",
        name=f"cycle {cycle.number} report",
        tags=run_tags(cycle.number, "loop") | {"ratchet.verdict": report.decision.verdict},
    ) as run:
        run.text(render_markdown(report), "report.md")
    publish_text("report", render_markdown(report), f"Cycle {cycle.number}")
    return report


@flow(name="loop", flow_run_name="one whole cycle", on_cancellation=[cancel_handed_over])
def loop(options: LoopOptions = DEFAULTS) -> str | State[str]:
    """Run one cycle, or go on with the one that was interrupted; return the report as text.

    A cycle that waited for labels goes on at its gate: nothing is collected, trained or asked
    again. Where they are still missing the run ends waiting.
    """
    with sole_loop(workspace().store):
        end_orphans("loop")
        wait = goes_on(workspace().store)
        return or_waiting(lambda: render_text(_cycle(options, wait)))


def _cycle(options: LoopOptions, wait: CycleWait | None) -> CycleReport:
    store, started = workspace().store, now()
    analysis_id, candidate_id = _prepare(options) if wait is None else _prepared(options, wait)
    gated = options.deploy.model_copy(update={"end_cycle": False})
    try:
        decision_id = result_of(deploy(gated, return_state=True))
    except WaitingError:
        if wait is None or not options.anew:
            raise
        end_cycle(store, latest_cycle(store), "abandoned", now())
        return _cycle(options, None)
    report = write_report(analysis_id, candidate_id, decision_id, started)
    end_cycle(store, latest_cycle(store), "finished", now())
    return report


def _prepare(options: LoopOptions) -> tuple[str, str]:
    """Collect, analyze and improve; return the ids of the analysis and of the candidate."""
    given, gated = options.collect, options.deploy
    bring_in(given.sources)  # what they bring may be what the cycle lacks
    given = given.model_copy(update={"sources": ()})
    judge, by, golden = gated.win_rate.judge, gated.answers.by, given.golden
    follow_champion()
    if given.examples is None:
        refresh_golden(golden)
    wanted = NextCycle(given.examples, given.sample, gated.policy, judge, by, golden)
    refuse_incomplete(wanted)
    result_of(collect(given, return_state=True))
    analysis_id = str(result_of(analyze(options.analyze, return_state=True)))
    return analysis_id, _improve_or_end(options)


def _prepared(options: LoopOptions, wait: CycleWait) -> tuple[str, str]:
    """Return the ids of what the open cycle has; a judge whose labels it waits for is validated."""
    store = workspace().store
    if wait.judge is not None:
        with hold(store, ANALYSIS, wait=None):
            run_judges(latest_cycle(store), options.analyze.judges)
    analyses = [one.id for one in store.records(Analysis) if one.cycle_id == wait.cycle_id]
    candidate = store.latest(Candidate)
    analysis_id = analyses[-1] if analyses else analyze(options.analyze)
    return str(analysis_id), candidate.id if candidate else ""


def _improve_or_end(options: LoopOptions) -> str:
    """Improve; where there is too little to train on the cycle ends, so that the next collects."""
    patience = timedelta(minutes=options.worker_minutes)
    try:
        return improve_for(latest_cycle(workspace().store), options.improve, patience)
    except InsufficientDataError:
        store = workspace().store
        end_cycle(store, latest_cycle(store), "abandoned", now())
        raise


def main(arguments: list[str]) -> int:
    """Run one cycle in this process and print its report."""

    def report() -> str:
        options = options_of(LoopOptions, arguments[0] if arguments else "{}")
        return str(result_of(loop(options, return_state=True)))

    return told(report, waits="waiting")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
