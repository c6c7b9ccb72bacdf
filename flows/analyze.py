"""Analyze: every five minutes what is new; for a cycle metrics, charts and failure clusters."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from prefect import State, flow
from pydantic import BaseModel, ConfigDict, Field

from ratchet.analyze.failure_rule import FailureRule
from ratchet.analyze.monitoring.watch import WatchConfig
from ratchet.flows._alone import sole_pass
from ratchet.flows._derived import derive_new
from ratchet.flows._judge_options import JudgeOptions
from ratchet.flows._runtime import workspace
from ratchet.flows._safety import screen_new
from ratchet.flows._waiting import or_waiting
from ratchet.flows._watch import run_watch
from ratchet.outcomes.quality import QualityWeights
from ratchet.store.leases import ANALYSIS, PASS, hold


class AnalyzeOptions(BaseModel):
    """How interactions are judged.

    Attributes:
        weights: What the quality of an interaction is made of.
        failures: From when on an interaction counts as failed.
        latency_baseline_seconds: p99 latency that counts as normal; none leaves latency unchecked.
        cycle: Whether the latest cycle is analyzed too; the five-minute schedule only watches.
        traffic_sample: Examples of its traffic that the gate asks and nothing is trained on.
        watch: How versions are watched.
        judges: How the judges of the settings are validated and asked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: QualityWeights = QualityWeights()
    failures: FailureRule = FailureRule()
    latency_baseline_seconds: Annotated[float, Field(gt=0.0)] | None = None
    cycle: bool = True
    traffic_sample: Annotated[int, Field(ge=0)] = 0
    watch: WatchConfig = WatchConfig()
    judges: JudgeOptions = JudgeOptions()

    @property
    def does(self) -> str:
        """What a run does, for its name."""
        return "every board and the latest cycle" if self.cycle else "every board"


DEFAULTS = AnalyzeOptions()


@flow(name="analyze", flow_run_name="analyze: {options.does}", validate_parameters=True)
def analyze(options: AnalyzeOptions = DEFAULTS) -> str | State[str]:
    """Watch every version; analyze the latest cycle's interactions and return the analysis' id.

    A pass that only watches is one flow run without tasks, and imports no more than it needs: it
    runs every five minutes, each time in a new process. It leaves the work to another one that is
    at it; for a cycle that one is waited for.
    """
    with sole_pass(PASS, wait=None if options.cycle else 0.0) as is_mine:
        if is_mine:
            screen_new()
            derive_new()
            run_watch(options.watch)
    if not options.cycle:
        return ""
    from ratchet.flows._cycle_analysis import analyze_cycle

    with hold(workspace().store, ANALYSIS, wait=None):
        return or_waiting(
            partial(
                analyze_cycle,
                weights=options.weights,
                rule=options.failures,
                judges=options.judges,
                latency_baseline=options.latency_baseline_seconds,
                traffic_sample=options.traffic_sample,
            )
        )
