"""Reports in words: Markdown for MLflow and Prefect, plain text for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ratchet.records import (
    EXPLICIT_KINDS,
    FEEDBACK_KINDS,
    Analysis,
    Candidate,
    Cycle,
    Decision,
    Metric,
    Release,
    TrainingSet,
)

_BAR = 40
_EIGHTHS = " ▏▎▍▌▋▊▉"
_MARKS = {"promote": "✓", "hold": "=", "reject": "✗", "inconclusive": "?"}
_KIND_NAMES = {
    "thumbs": "thumbs",
    "stars": "stars",
    "comment": "comments",
    "correction": "corrections",
    "copy": "copy signals",
    "regenerate": "regenerate signals",
    "task_completed": "task outcomes",
    "session_end": "session ends",
}


@dataclass(frozen=True, slots=True)
class CycleReport:
    """Everything that one cycle left behind."""

    cycle: Cycle
    counts: Mapping[str, int]
    set_aside: Mapping[str, int]
    analysis: Analysis
    training_set: TrainingSet
    candidate: Candidate
    decision: Decision
    release: Release | None
    seconds: float


def render_text(report: CycleReport) -> str:
    """Write the report for a terminal, at most 100 columns wide."""
    sections = (
        _header(report),
        _collected(report),
        _analyzed(report.analysis),
        _improved(report),
        _decided(report),
        _next_steps(report),
    )
    return "\n".join(line for section in sections for line in [*section, ""])


def render_markdown(report: CycleReport) -> str:
    """Write the report as Markdown."""
    steps = "\n".join(f"| {name} | {count} |" for name, count in report.training_set.funnel)
    return "\n\n".join(
        [
            f"# Cycle {report.cycle.number}: {report.decision.verdict}",
            f"```\n{render_text(report)}\n```",
            "## From traffic to training data",
            f"| step | left |\n|---|---|\n{steps}",
            analysis_markdown(report.analysis),
            decision_markdown(report.decision),
        ]
    )


def analysis_markdown(analysis: Analysis) -> str:
    """Write metrics, alerts and failure clusters as Markdown."""
    rows = [
        f"| {_plain(item.name)} | {_value(item)} | {_interval(item)} | {item.observations} |"
        for item in analysis.metrics
    ]
    alerts = [
        f"- **{alert.severity}** {_cell(alert.message)} *What to do:* {_cell(alert.action)}"
        for alert in analysis.alerts
    ]
    clusters = [
        f"| {_cell(cluster.name)} | {cluster.size} | {cluster.failure_rate:.0%} "
        f"({cluster.interval[0]:.0%} to {cluster.interval[1]:.0%}) | {cluster.lift:.1f} "
        f"| {_cell(cluster.examples[0]) if cluster.examples else ''} |"
        for cluster in analysis.clusters
    ]
    return "\n".join(
        [
            f"# Analysis of {analysis.model_version}",
            "",
            "| metric | value | 95 % interval | observations |",
            "|---|---|---|---|",
            *rows,
            "",
            "## Alerts",
            "",
            *(alerts or ["None."]),
            "",
            "## Failures by what they are about",
            "",
            *(_cluster_table(clusters) if clusters else ["None."]),
        ]
    )


def decision_markdown(decision: Decision) -> str:
    """Write a decision with its evidence as Markdown."""
    evidence = [f"| {_plain(key)} | {value:g} |" for key, value in decision.evidence.items()]
    return "\n".join(
        [
            f"# {decision.verdict.capitalize()}: {decision.challenger}",
            "",
            *[f"- {reason}" for reason in decision.reasons],
            "",
            "| | |",
            "|---|---|",
            f"| champion {decision.champion} | {decision.champion_value:.1%} |",
            f"| challenger {decision.challenger} | {decision.challenger_value:.1%} |",
            f"| difference | {_difference(decision)} |",
            f"| exact McNemar p | {decision.p_value:.3g} |",
            f"| examples | {decision.examples} |",
            *evidence,
        ]
    )


def bar(share: float, width: int = _BAR) -> str:
    """Draw a share in [0, 1] as a bar of `width` characters, in eighths."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def _header(report: CycleReport) -> list[str]:
    cycle = report.cycle
    title = f"Ratchet · cycle {cycle.number} · champion at the start {cycle.champion}"
    return ["─" * 78, f"{title} · {report.seconds / 60:.1f} minutes", "─" * 78]


def _collected(report: CycleReport) -> list[str]:
    counts = report.counts
    explicit = [f"{counts[kind]} {_KIND_NAMES[kind]}" for kind in EXPLICIT_KINDS]
    implicit = [
        f"{counts[kind]} {_KIND_NAMES[kind]}"
        for kind in FEEDBACK_KINDS
        if kind not in EXPLICIT_KINDS
    ]
    lines = [
        f"COLLECT  {counts['interactions']} interactions in the store",
        f"         {', '.join(explicit)}",
        f"         {', '.join(implicit)}",
    ]
    if counts["set_aside"]:
        lines.append(f"         {counts['set_aside']} rows set aside:")
        lines += [
            f"           {count} × {why}"[:98] for why, count in list(report.set_aside.items())[:5]
        ]
    return lines


def _analyzed(analysis: Analysis) -> list[str]:
    metrics = {metric.name: metric for metric in analysis.metrics}
    shown = (
        "thumbs_down_rate",
        "regenerate_rate",
        "copy_rate",
        "completion_rate",
        "implicit_quality",
    )
    lines = [f"ANALYZE  {analysis.model_version} as its users saw it"]
    for name in shown:
        metric = metrics.get(name)
        if metric is not None and metric.value is not None:
            lines.append(
                f"         {_plain(name):<17} {_value(metric):>7}  {bar(metric.value, 20)} "
                f"{_interval(metric)}, n = {metric.observations}"
            )
    lines += [f"         ! {alert.severity}: {alert.message}"[:110] for alert in analysis.alerts]
    if analysis.clusters:
        lines.append("         what failed, by what it is about:")
        lines += [f"           {c.size:>4} × {c.name}" for c in analysis.clusters[:8]]
    return lines


def _improved(report: CycleReport) -> list[str]:
    training, candidate = report.training_set, report.candidate
    losses = candidate.losses
    steps = " → ".join(str(count) for _, count in training.funnel)
    lines = [
        f"IMPROVE  {training.size} training examples ({steps})",
        f"         LoRA: {len(losses)} steps in {candidate.training_seconds / 60:.1f} minutes, "
        f"candidate {candidate.model_name}/{candidate.version}",
    ]
    if losses:
        lines.append(f"         loss {losses[0]:.2f} {_sparkline(losses)} {losses[-1]:.2f}")
    return lines


def _decided(report: CycleReport) -> list[str]:
    decision = report.decision
    width = max(len(decision.champion), len(decision.challenger))
    lines = [
        f"DEPLOY   {_MARKS[decision.verdict]} {decision.verdict.upper()}: "
        f"{decision.primary_metric.replace('_', ' ')} on {decision.examples} held-out messages",
        f"         champion   {decision.champion:<{width}} {decision.champion_value:>6.1%} "
        f"{bar(decision.champion_value, 30)}",
        f"         challenger {decision.challenger:<{width}} {decision.challenger_value:>6.1%} "
        f"{bar(decision.challenger_value, 30)}",
        f"         difference {_difference(decision)}",
        *[f"         {reason}" for reason in decision.reasons],
    ]
    if report.release is not None:
        lines.append(
            f"         champion is now {report.release.champion}, "
            f"previous {report.release.previous or 'none'}"
        )
    return lines


def _next_steps(report: CycleReport) -> list[str]:
    lines = ["NEXT     ratchet status              what is in use and why"]
    if report.release is not None:
        lines.append("         ratchet rollback            go back to the previous version")
    lines.append("         ratchet demo                one more cycle, from the champion")
    return lines


def _cluster_table(rows: Sequence[str]) -> list[str]:
    head = "| about | failed | failure rate (95 %) | lift | for example |"
    return [head, "|---|---|---|---|---|", *rows]


def _difference(decision: Decision) -> str:
    low, high = decision.interval
    return f"{decision.difference:+.1%} (95 % interval {low:+.1%} to {high:+.1%})"


def _value(metric: Metric) -> str:
    if metric.value is None:
        return f"– ({metric.reason})"
    return f"{metric.value:.1%}" if metric.unit == "share" else f"{metric.value:.2f}"


def _interval(metric: Metric) -> str:
    if metric.lower is None or metric.upper is None:
        return ""
    if metric.unit == "share":
        return f"{metric.lower:.1%} to {metric.upper:.1%}"
    return f"{metric.lower:.2f} to {metric.upper:.2f}"


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _cell(text: str) -> str:
    """Make user text safe inside a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def _sparkline(values: Sequence[float], width: int = 40) -> str:
    """Draw values as a line of blocks, averaged down to `width` characters."""
    size = max(1, -(-len(values) // width))
    groups = [values[start : start + size] for start in range(0, len(values), size)]
    means = [sum(group) / len(group) for group in groups]
    low, high = min(means), max(means)
    scale = (high - low) or 1.0
    return "".join("▁▂▃▄▅▆▇█"[min(7, int((mean - low) / scale * 8))] for mean in means)
