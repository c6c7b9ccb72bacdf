"""The live part of analyze: advance the boards, check the thresholds, tell people.

A pass runs every five minutes in a process of its own, as one flow run: nothing here is a task, and
what only a pass with news needs (MLflow, plots, failure clusters) is imported when it has some.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np

from ratchet.analyze.monitoring import check_thresholds, not_checked
from ratchet.analyze.monitoring.alerts import (
    open_alerts,
    seeks_cluster,
    threshold_events,
)
from ratchet.analyze.monitoring.series import board_series, chart_title, recent_counts
from ratchet.analyze.monitoring.versions import replaced_version
from ratchet.analyze.monitoring.watch import (
    BoardVerdict,
    WatchConfig,
    WatchReport,
    recent_metrics,
    watch,
)
from ratchet.errors import InsufficientDataError
from ratchet.flows._notify import send_waiting, tell_prefect, told
from ratchet.flows._runtime import EXPERIMENT, logger, now, publish_text, show_figure, workspace
from ratchet.notify.outgoing import put_alerts
from ratchet.records import AlertEvent, Analysis, BoardState
from ratchet.stats.charts.rate_series import RateSeries
from ratchet.views.text.cycle import alerts_markdown


def advance_boards(config: WatchConfig) -> WatchReport:
    """Take in what became ripe. Not retried: the boards remember where they were."""
    report = watch(workspace().store, config, now=now(), about=_largest_cluster)
    for verdict in report.verdicts:
        if verdict.unwatched:
            logger.warning("%s", verdict.in_words)
    for question in report.asked:
        logger.warning("%s", question.in_words)
    return report


def _largest_cluster(version: str, since: datetime) -> str | None:
    """Name what a version's trouble is mostly about: known, analyzed since, or looked for now."""
    work, moment = workspace(), now()
    known = open_alerts(work.store.records(AlertEvent, subject=version, latest=1_000))
    named = [event.cluster for event in known if event.kind == "board" and event.cluster]
    if named:
        return named[-1]
    if not seeks_cluster(known, moment):
        return None
    from ratchet.analyze.failures.analysis import load_encoder
    from ratchet.analyze.failures.live_cluster import largest_cluster, trouble_about

    analysis = work.store.latest(Analysis)
    if analysis and analysis.model_version == version and analysis.created_at >= since:
        return largest_cluster(analysis)
    encoder = load_encoder(work.settings.embedding)
    rng = np.random.default_rng(0)
    return trouble_about(work.store, version, since, moment, encoder=encoder, rng=rng)


def check_fixed_thresholds(config: WatchConfig, version: str) -> tuple[AlertEvent, ...]:
    """Compare the last hour with the fixed thresholds."""
    store, moment = workspace().store, now()
    metrics, baseline = recent_metrics(store, config, version, now=moment)
    over = check_thresholds(
        metrics, model_version=version, cycle_id="live", now=moment, latency_baseline=baseline,
        is_first=replaced_version(store, version) is None,
    )  # fmt: skip
    events = threshold_events(
        over,
        store.records(AlertEvent, subject=version, latest=1_000),
        model_version=version,
        now=moment,
        unchecked=[name for name, _ in not_checked(metrics, latency_baseline=baseline)],
    )
    for event in events:
        store.append(event)
    return events


def send_alerts(fresh: tuple[AlertEvent, ...]) -> int:
    """Log the fresh steps of alerts; tell Prefect and people of what they were not told yet."""
    for event in fresh:
        logger.warning("%s %s: %s", event.change, event.severity, event.message)
    tell_prefect()
    whom = told()
    put_alerts(workspace().store, whom.routes, now())
    send_waiting(whom)
    return len(fresh)


def publish_board(config: WatchConfig, verdict: BoardVerdict, changed: bool) -> None:
    """Log the evidence and draw the board where something changed, else once an hour."""
    moment = now()
    undecided = verdict.evidence is None or verdict.threshold is None
    if undecided or (not changed and moment.minute >= 5):
        return
    from ratchet.views import plots

    store = workspace().store
    board = store.records(BoardState, subject=verdict.model_version, latest=1)[0]
    with workspace().tracker.run(
        EXPERIMENT,
        key=f"watch:{verdict.model_version}",
        name=f"watch {verdict.model_version}",
        tags={"ratchet.stage": "watch"},
    ) as run:
        run.tags({"ratchet.verdict": verdict.says})
        numbers = {
            "log_evidence": verdict.evidence or 0.0,
            "log_threshold": verdict.threshold or 0.0,
            "unwatched_rows": float(verdict.unwatched),
        }
        run.metrics(numbers, step=board.batches)
        panels = _panels(config, board, verdict)
        if not panels:
            return
        title, subtitle, colour = chart_title(verdict)
        figure = plots.board_chart(
            panels,
            title,
            subtitle,
            releases={board.model_version: board.opened_at},
            change=verdict.finding.since if verdict.finding else None,
            color=plots.RED if colour == "alarm" else plots.INK,
        )
        run.text(plots.to_svg(figure), "plots/board.svg")
        run.figure(figure, "plots/board.png")
        if changed:
            show_figure("board", figure, title)


def _panels(config: WatchConfig, board: BoardState, verdict: BoardVerdict) -> dict[str, RateSeries]:
    """Return a board's series; none where it has seen nothing lately, as after a rollback."""
    store = workspace().store
    try:
        if board.batches:
            counts = recent_counts(store, config, board)
            return board_series(store, board, counts, verdict.finding)
        reason = "no batch is complete yet"
    except InsufficientDataError as error:
        reason = str(error)
    logger.info("no picture of %s: %s", verdict.model_version, reason)
    return {}


def run_watch(config: WatchConfig) -> WatchReport:
    """Do one pass: boards, thresholds, alerts, pictures."""
    report = advance_boards(config)
    alerts_of = {
        verdict.model_version: (
            *(event for event in report.alerts if event.model_version == verdict.model_version),
            *check_fixed_thresholds(config, verdict.model_version),
        )
        for verdict in report.verdicts
    }
    events = tuple(event for own in alerts_of.values() for event in own)
    send_alerts(events)
    stands = "; ".join(verdict.in_words for verdict in report.verdicts)
    logger.info("%d interactions read: %s", report.interactions, stands or "no version to watch")
    for verdict in report.verdicts:
        publish_board(config, verdict, verdict.opened or bool(alerts_of[verdict.model_version]))
    if events:
        known = workspace().store.records(AlertEvent, latest=1_000)
        publish_text("alerts", alerts_markdown(known), "How the alerts stand")
    return report
