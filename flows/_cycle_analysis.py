"""The part of analyze about a whole cycle: metrics, charts, failure clusters, their pages."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from ratchet.analyze.answers import read_answer_facts, read_answer_metrics
from ratchet.analyze.failure_rule import FailureRule
from ratchet.analyze.failures.analysis import FailureAnalysis
from ratchet.analyze.monitoring import check_thresholds
from ratchet.analyze.monitoring.charts import ChartReport, chart_every_signal, read_window
from ratchet.analyze.monitoring.versions import replaced_version
from ratchet.analyze.window import read_outcomes
from ratchet.flows._failure_pages import publish_failures
from ratchet.flows._failures import hold_out_traffic, run_failures
from ratchet.flows._judge_options import JudgeOptions
from ratchet.flows._judges import run_judges, validate_readings
from ratchet.flows._runtime import cycle_run, logger, now, publish_figure, publish_text, workspace
from ratchet.flows._safety import validate_safety
from ratchet.judges.usable import usable_versions
from ratchet.outcomes.experience import experience_metrics
from ratchet.outcomes.join import Outcomes
from ratchet.outcomes.quality import QualityWeights, quality
from ratchet.records import Alert, Analysis, Cycle, Metric, derive_id, digest
from ratchet.store.cycles import cycle_window, latest_cycle, measured_versions
from ratchet.store.heard import unknown_reasons
from ratchet.tracking import Run
from ratchet.views import plots
from ratchet.views.text.cycle import analysis_markdown


@task(cache_policy=NO_CACHE)
def load(cycle: Cycle) -> Outcomes:
    """Read the cycle's interactions, of every version, with their feedback, without texts."""
    store = workspace().store
    return read_outcomes(store, cycle_window(cycle), judges=usable_versions(store))


@task(name="measure-answers", cache_policy=NO_CACHE)
def measure(cycle: Cycle, names: tuple[str, ...]) -> tuple[Metric, ...]:
    """Sum up what a version's answers called, took and cost, and how its sessions ended."""
    store = workspace().store
    facts = read_answer_facts(store, cycle_window(cycle))
    return read_answer_metrics(store, facts, names)


@task(name="chart-rates", cache_policy=NO_CACHE)
def chart(cycle: Cycle, version: str, weights: QualityWeights) -> tuple[ChartReport, ...]:
    """Chart every signal over the cycle; one with too little data is left out and said so."""
    window = cycle_window(cycle, version)
    charts, reasons = chart_every_signal(read_window(workspace().store, window, weights))
    if reasons:
        names = ", ".join(reasons)
        logger.info("no chart of this cycle's %s; `ratchet chart SIGNAL` says why", names)
    return charts


def metrics_over_thresholds(
    cycle: Cycle, version: str, metrics: tuple[Metric, ...], latency_baseline: float | None
) -> tuple[Alert, ...]:
    """Return the metrics of the whole cycle that are over a fixed threshold, for its analysis.

    Nobody is told of them here: `ratchet.flows._watch` checks the last hour by the same thresholds,
    and opens and resolves the alerts that people get.
    """
    return check_thresholds(
        metrics,
        model_version=version,
        cycle_id=cycle.id,
        now=now(),
        latency_baseline=latency_baseline,
        is_first=replaced_version(workspace().store, cycle.champion) is None,
    )


@task(name="record-analysis", cache_policy=NO_CACHE)
def record(
    cycle: Cycle,
    version: str,
    metrics: tuple[Metric, ...],
    alerts: tuple[Alert, ...],
    failures: FailureAnalysis,
) -> Analysis:
    """Store what was found; the same findings are stored once."""
    store = workspace().store
    content = digest(
        [item.canonical() for item in (*metrics, *failures.clusters, *failures.earlier)]
    )
    key = derive_id("analysis", cycle.id, content)
    stored = store.get(Analysis, key)
    if stored is not None:
        return stored
    analysis = Analysis(
        id=key,
        cycle_id=cycle.id,
        created_at=now(),
        model_version=version,
        metrics=metrics,
        alerts=alerts,
        clusters=failures.clusters,
        earlier=failures.earlier,
        untold=failures.failed.untold,
        no_clusters=failures.result.reason,
    )
    store.append(analysis)
    for alert in alerts:
        logger.warning("%s: %s", alert.severity, alert.message)
    return analysis


@task(name="publish-analysis", cache_policy=NO_CACHE)
def publish(cycle: Cycle, analysis: Analysis, charts: tuple[ChartReport, ...]) -> None:
    """Put numbers and plots into MLflow and Prefect."""
    measured = [metric for metric in analysis.metrics if metric.value is not None]
    with cycle_run(cycle, "analyze") as run:
        run.params({"model_version": analysis.model_version, "cycle": cycle.number})
        run.metrics({metric.name: float(metric.value or 0.0) for metric in measured})
        run.text(analysis_markdown(analysis), "analysis.md")
        if measured:
            publish_figure(run, "metrics", plots.metric_forest(measured), "Metrics with intervals")
        _publish_charts(run, charts)
        if analysis.clusters:
            bars = plots.failure_bars(analysis.clusters)
            publish_figure(run, "failures", bars, "Failures by what they are about")
    publish_text("analysis", analysis_markdown(analysis), f"Analysis of {analysis.model_version}")


def _publish_charts(run: Run, charts: tuple[ChartReport, ...]) -> None:
    for report in charts:
        figure = plots.signal_chart(
            {item.value: (item.starts, item.design) for item in report.charts},
            report.signal.says.capitalize(),
            report.kinds,
            unit=report.signal.unit,
            releases=report.releases,
        )
        key = report.signal.name.replace("_", "-")
        publish_figure(run, key, figure, f"{report.kinds} of {report.signal.says}")


def analyze_cycle(
    *,
    weights: QualityWeights,
    rule: FailureRule,
    judges: JudgeOptions,
    latency_baseline: float | None,
    traffic_sample: int,
) -> str:
    """Analyze the latest cycle's interactions and return the analysis' id.

    Args: see `ratchet.flows.analyze.AnalyzeOptions`.
    """
    cycle = latest_cycle(workspace().store)
    validate_safety(cycle, run_judges(cycle, judges))
    validate_readings(cycle, judges)
    everything = load(cycle)
    names = measured_versions(workspace().store, cycle)
    outcomes = everything.of_versions(names)
    unknown = unknown_reasons(workspace().store, now=now())
    metrics = (
        *experience_metrics(outcomes, quality(outcomes, weights), unknown=unknown),
        *measure(cycle, names),
    )
    alerts = metrics_over_thresholds(cycle, names[0], metrics, latency_baseline)
    failures = run_failures(cycle, everything, weights, rule)
    if traffic_sample:
        hold_out_traffic(cycle, outcomes, weights, traffic_sample)
    analysis = record(cycle, names[0], metrics, alerts, failures)
    publish(cycle, analysis, chart(cycle, names[0], weights))
    publish_failures(cycle, failures)
    return analysis.id
