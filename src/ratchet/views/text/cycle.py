"""Reports in words: Markdown for MLflow and Prefect, plain text for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ratchet.files.text import (
    INDENT,
    WIDTH,
    cell,
    clipped,
    counted,
    fenced,
    one_line,
    plain,
    shown_lines,
    wrapped,
)
from ratchet.records import (
    EXPLICIT_KINDS,
    IMPLICIT_KINDS,
    Alert,
    AlertEvent,
    Analysis,
    Candidate,
    Cycle,
    Decision,
    EarlierCluster,
    FailureCluster,
    JudgeValidation,
    Metric,
    ReferenceScore,
    Release,
    ReviewItem,
    TrainingSet,
    direction_words,
)
from ratchet.views.text.gate import decision_markdown, difference, moved, score
from ratchet.views.words import COUNTED, ENDED, EXPERIENCE, became

_BAR = 40
_SHOWN = 200
"""Characters of a text that a table or list of failures shows."""
_EIGHTHS = " ▏▎▍▌▋▊▉"
_MARKS = {"promote": "✓", "hold": "=", "reject": "✗", "inconclusive": "?"}


@dataclass(frozen=True, slots=True)
class CycleReport:
    """Everything that one cycle left behind.

    Attributes:
        references: What simple ways of answering reach on the cycle's examples.
    """

    cycle: Cycle
    counts: Mapping[str, int]
    set_aside: Mapping[str, int]
    analysis: Analysis
    training_set: TrainingSet
    candidate: Candidate
    decision: Decision
    release: Release | None
    started: datetime
    ended: datetime
    references: tuple[ReferenceScore, ...] = ()

    @property
    def seconds(self) -> float:
        """How long the cycle took."""
        return (self.ended - self.started).total_seconds()


def render_text(report: CycleReport) -> str:
    """Write the report for a terminal, at most 88 columns wide."""
    sections = (
        _header(report),
        _collected(report),
        analyzed_lines(report.analysis),
        improved_lines(report.training_set, report.candidate),
        decided_lines(report.decision, report.release, report.references),
        _next_steps(report),
    )
    return shown_lines(line.rstrip() for section in sections for line in [*section, ""])


def render_markdown(report: CycleReport) -> str:
    """Write the report as Markdown."""
    steps = "\n".join(f"| {cell(name)} | {count} |" for name, count in report.training_set.funnel)
    return "\n\n".join(
        [
            f"# Cycle {report.cycle.number}: {report.decision.verdict}",
            fenced(render_text(report)),
            "## From traffic to training data",
            f"| step | left |\n|---|---|\n{steps}",
            analysis_markdown(report.analysis),
            decision_markdown(report.decision),
        ]
    )


def analysis_markdown(analysis: Analysis) -> str:
    """Write metrics, alerts and failure clusters as Markdown."""
    rows = [
        f"| {cell(plain(item.name))} | {_value(item)} | {_interval(item)} | {item.observations} |"
        for item in analysis.metrics
    ]
    alerts = [
        f"- **{alert.severity}** {cell(alert.message)} *What to do:* {cell(alert.action)}"
        for alert in analysis.alerts
    ]
    clusters = [
        f"| {cell(cluster.name)} | {cluster.size} | {cluster.failure_rate:.0%} "
        f"({cluster.interval[0]:.0%} to {cluster.interval[1]:.0%}) | {cluster.lift:.1f} "
        f"| {cell(cluster.examples[0]) if cluster.examples else ''} |"
        for cluster in analysis.clusters
    ]
    return "\n".join(
        [
            f"# Analysis of {cell(analysis.model_version)}",
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
            *(_cluster_table(clusters) if clusters else [_none(analysis.no_clusters)]),
        ]
    )


def failures_markdown(
    clusters: Sequence[FailureCluster],
    earlier: Sequence[EarlierCluster] = (),
    *,
    model_version: str | None = None,
    reason: str | None = None,
    part: str | None = None,
) -> str:
    """Write failure clusters as Markdown: a table in the order given, then an example of each.

    Args:
        clusters: What fixing them would win, most first.
        earlier: Clusters of earlier runs that were not found.
        model_version: Whose answers they are; None leaves it out.
        reason: Why there are no clusters.
        part: What was looked at, where that is not all.
    """
    whose = "" if model_version is None else f" of {cell(model_version)}"
    lines = [f"# Failure clusters{whose}", "", *([f"{cell(part)}.", ""] if part else [])]
    if not clusters:
        lines += [_none(reason), ""]
    else:
        lines += [
            "Spares: failures avoided if the cluster failed no more than the rest.",
            "",
            "| | about | spares | failed | failure rate (95 %) | lift | of all failures | trend "
            "| first seen | users | stability |",
            "|---:|---|---:|---:|---|---:|---:|---|---|---:|---|",
            *[_cluster_row(*numbered) for numbered in enumerate(clusters, start=1)],
            "",
            "## For example",
            "",
            *[_cluster_example(*numbered) for numbered in enumerate(clusters, start=1)],
            "",
        ]
    if earlier:
        lines += ["## Found earlier, not now", ""]
        lines += [f"- “{cell(item.name)}” {became(item.trend)}" for item in earlier]
    return "\n".join(lines).rstrip() + "\n"


def _cluster_row(number: int, cluster: FailureCluster) -> str:
    low, high = cluster.interval
    total = "" if cluster.interactions is None else f" of {cluster.interactions:,}"
    marks = f" **safety: {cluster.safety:,} flagged**" if cluster.safety else ""
    cells = (
        f"{number}",
        cell(cluster.name) + marks,
        "–" if cluster.excess is None else f"{cluster.excess:,.0f}",
        f"{cluster.size:,}{total}",
        f"{cluster.failure_rate:.0%} ({low:.0%} to {high:.0%})",
        f"×{cluster.lift:.1f}",
        "–" if cluster.share is None else f"{cluster.share:.0%}",
        cluster.trend,
        "–" if cluster.first_seen is None else f"{cluster.first_seen:%Y-%m-%d}",
        "–" if cluster.users is None else f"{cluster.users:,}",
        _stability(cluster),
    )
    return f"| {' | '.join(cells)} |"


def _stability(cluster: FailureCluster) -> str:
    if cluster.stability is None:
        return "not measured"
    return f"{'stable' if cluster.stable else '**unstable**'} ({cluster.stability:.2f})"


def _cluster_example(number: int, cluster: FailureCluster) -> str:
    if not cluster.beside:
        return f"{number}. {_quoted(cluster.examples[0]) if cluster.examples else 'no text'}"
    example = cluster.beside[0]
    right = "no good answer is known yet"
    if example.better is not None:
        right = f"right: {_quoted(example.better)}"
    why = cell(clipped(example.why, _SHOWN))
    return (
        f"{number}. {_quoted(example.prompt)}  \n"
        f"   failed ({why}): {_quoted(example.answer)}  \n"
        f"   {right}"
    )


def _quoted(text: str) -> str:
    """Quote the beginning of a text, so that it can start no list of its own."""
    return f"“{cell(clipped(text, _SHOWN))}”"


def _none(reason: str | None) -> str:
    return f"None: {cell(reason)}." if reason else "None."


def alerts_markdown(events: Sequence[AlertEvent]) -> str:
    """Write how every alert stands as Markdown, given the latest events in order."""
    latest = {event.alert_id: event for event in events}
    rows = [
        f"| {event.severity} | {event.change} | {cell(event.message)} "
        f"| {'' if event.change == 'resolved' else cell(event.action)} | {cell(event.certainty)} |"
        for event in reversed(latest.values())
    ]
    head = ["| | | what | what to do | how sure |", "|---|---|---|---|---|"]
    return "\n".join(["# Alerts", "", *(head + rows if rows else ["None."])])


def alerts_text(events: Sequence[AlertEvent]) -> str:
    """Write alerts for a terminal, the latest event of each given."""
    blocks = [
        (
            f"{event.alert_id[:8]}  {event.severity}, {event.change}"
            f"{f' by {one_line(event.by)}' if event.by else ''} {event.created_at:%F %H:%M} UTC",
            f"          {one_line(event.message)}",
            f"          how sure: {one_line(event.certainty)}",
            *(
                [f"          what to do: {one_line(event.action)}"]
                if event.change != "resolved"
                else []
            ),
            *([f"          note: {one_line(event.note)}"] if event.note else []),
        )
        for event in events
    ]
    return shown_lines(line for block in blocks for line in block) or "no open alerts"


def bar(share: float, width: int = _BAR) -> str:
    """Draw a share in [0, 1] as a bar of `width` characters, in eighths."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def _header(report: CycleReport) -> list[str]:
    cycle = report.cycle
    title = f"Ratchet · cycle {cycle.number} · champion at the start {cycle.champion}"
    lines = wrapped(f"{title} · {report.seconds / 60:.1f} minutes", indent="")
    return ["─" * WIDTH, *lines, "─" * WIDTH]


def _collected(report: CycleReport) -> list[str]:
    counts = report.counts
    lines = [f"COLLECT  {counted(counts['interactions'], 'interaction')} in the store"]
    for kinds in (EXPLICIT_KINDS, IMPLICIT_KINDS):
        shown = [kind for kind in kinds if kind != "dimension" or counts.get(kind)]
        lines += wrapped(", ".join(f"{counts[kind]} {COUNTED[kind]}" for kind in shown))
    if counts["set_aside"]:
        lines.append(f"{INDENT}{counted(counts['set_aside'], 'row')} set aside:")
        for why, count in list(report.set_aside.items())[:5]:
            lines += wrapped(f"{count:>5} × ", why)
    return lines


def analyzed_lines(analysis: Analysis) -> list[str]:
    """Say what an analysis found, a line each, for a terminal."""
    metrics = {metric.name: metric for metric in analysis.metrics}
    lines = [f"ANALYZE  {clipped(analysis.model_version, 50)} as its users saw it"]
    for name in EXPERIENCE:
        metric = metrics.get(name)
        if metric is not None and metric.value is not None:
            lines.append(
                f"{INDENT}{plain(name):<17} {_value(metric):>6}  {bar(metric.value, 20)} "
                f"{_interval(metric):<14}  n = {metric.observations}"
            )
    for alert in analysis.alerts:
        lines += _alert_lines(alert)
    return [*lines, *_clusters(analysis)]


def _clusters(analysis: Analysis) -> list[str]:
    lines = []
    if analysis.clusters:
        lines.append(f"{INDENT}where failures pile up:")
    for cluster in analysis.clusters[:8]:
        of_all = "" if cluster.interactions is None else f" of {cluster.interactions}"
        rest = "" if cluster.rest_rate is None else f", the rest {cluster.rest_rate:.0%}"
        lines.append(
            f"{INDENT}{clipped(cluster.name, 40):<40} {cluster.size}{of_all} failed, "
            f"{cluster.failure_rate:.0%}{rest}"
        )
    if analysis.no_clusters:
        lines += wrapped(f"no failure clusters: {analysis.no_clusters}")
    for lost in analysis.earlier:
        if lost.trend in ENDED:
            lines += wrapped(f"{one_line(lost.name)} {became(lost.trend)}")
    return lines


def _alert_lines(alert: Alert) -> list[str]:
    message = alert.message.replace(alert.signal, plain(alert.signal))
    return [
        *wrapped("! ", f"{alert.severity}: {message}"),
        *wrapped("  → ", alert.action),
    ]


def improved_lines(training: TrainingSet, candidate: Candidate) -> list[str]:
    """Say what was trained on and how it went, a line each, for a terminal."""
    losses, funnel = candidate.losses, training.funnel
    lines = [
        f"IMPROVE  {counted(training.size, 'training example')} from "
        f"{clipped(training.origin, 40) if training.origin else 'what users showed to be good'}"
    ]
    most = max((count for _, count in funnel), default=0)
    lines += [
        f"{INDENT}{clipped(step, 26):<26} {count:>6}  {bar(count / (most or 1), 20)}"
        for step, count in funnel
    ]
    made = candidate.reference
    minutes = f"{candidate.training_seconds / 60:.1f} minutes"
    lines += wrapped(f"LoRA: {counted(len(losses), 'step')} in {minutes}, candidate {made}")
    if losses:
        lines.append(f"{INDENT}loss {losses[0]:.2f} {_sparkline(losses)} {losses[-1]:.2f}")
    return lines


def decided_lines(
    decision: Decision, release: Release | None, scored: Sequence[ReferenceScore] = ()
) -> list[str]:
    """Say what the gate decided and what became of it, a line each, for a terminal."""
    references = [one for one in scored if one.metric == decision.primary_metric]
    names = (decision.champion, decision.challenger, *(one.name for one in references))
    width = min(30, max(map(len, names)))
    lines = [
        f"DEPLOY   {_MARKS[decision.verdict]} {decision.verdict.upper()}: "
        f"{clipped(plain(decision.primary_metric), 30)} on {decision.examples} held-out messages"
    ]
    for role, name, value in (
        ("champion", decision.champion, decision.champion_value),
        ("challenger", decision.challenger, decision.challenger_value),
        *(("reference", one.name, one.value) for one in references),
    ):
        lines.append(
            f"{INDENT}{role:<10} {clipped(name, width):<{width}} {score(value, decision):>6}"
            + (f"  {bar(value, 29)}" if value is not None and 0.0 <= value <= 1.0 else "")
        )
    better = direction_words(decision.higher_is_better)
    lines.append(f"{INDENT}difference {difference(decision)}, {better}")
    for reason in decision.reasons:
        lines += wrapped(reason)
    for one in references:
        lines += wrapped(f"reference: {one.says}")
    for note in decision.notes:
        lines += wrapped(f"note: {note}")
    if decision.approval is not None and release is None:
        lines += wrapped(
            f"waits for a person ({decision.approval}): ratchet approve {decision.id[:8]}"
        )
    for item in decision.clusters:
        right = f"{item.champion_right} -> {item.challenger_right} of {item.examples} right"
        lines += wrapped(f"cluster {clipped(item.name, 40)}: {right}, {moved(item)}")
    if release is not None:
        previous = release.previous or "none"
        lines += wrapped(f"champion is now {release.champion}, previous {previous}")
    return lines


def _next_steps(report: CycleReport) -> list[str]:
    lines = ["NEXT     ratchet status              what is in use and why"]
    if report.release is not None:
        lines.append("         ratchet rollback            go back to the previous version")
    if report.cycle.source == "recorded":
        lines.append("         ratchet collect --dry-run   what the next cycle would be about")
    else:
        lines.append("         ratchet demo                one more cycle, from the champion")
    return lines


def _cluster_table(rows: Sequence[str]) -> list[str]:
    head = "| about | failed | failure rate (95 %) | lift | for example |"
    return [head, "|---|---|---|---|---|", *rows]


def _value(metric: Metric) -> str:
    if metric.value is None:
        return f"– ({cell(metric.reason or 'not measured')})"
    return f"{metric.value:.1%}" if metric.unit == "share" else f"{metric.value:.2f}"


def _interval(metric: Metric) -> str:
    if metric.lower is None or metric.upper is None:
        return ""
    if metric.unit == "share":
        return f"{metric.lower:.1%} to {metric.upper:.1%}"
    return f"{metric.lower:.2f} to {metric.upper:.2f}"


def _sparkline(values: Sequence[float], width: int = 40) -> str:
    """Draw values as a line of blocks, averaged down to `width` characters."""
    size = max(1, -(-len(values) // width))
    groups = [values[start : start + size] for start in range(0, len(values), size)]
    means = [sum(group) / len(group) for group in groups]
    low, high = min(means), max(means)
    scale = (high - low) or 1.0
    return "".join("▁▂▃▄▅▆▇█"[min(7, int((mean - low) / scale * 8))] for mean in means)


def judges_markdown(records: Sequence[JudgeValidation]) -> str:
    """Say which judges may count and why the others may not."""
    lines = [
        "# Judges",
        "",
        "| judge | dimension | decision | kappa | why |",
        "|---|---|---|---|---|",
    ]
    for record in records:
        kappa = record.figure("kappa")
        shown = "-"
        if kappa is not None and kappa.value is not None:
            shown = f"{kappa.value:.2f}"
            if kappa.lower is not None and kappa.upper is not None:
                shown += f" ({kappa.lower:.2f} to {kappa.upper:.2f})"
        why = cell("; ".join(record.reasons))
        version, dimension = cell(record.judge_version), cell(record.dimension)
        lines.append(f"| {version} | {dimension} | {record.decision} | {shown} | {why} |")
    lines += ["", "Scores count only where the decision is *usable*; others are kept and shown."]
    return "\n".join(lines)


def review_markdown(
    items: Sequence[ReviewItem], waiting: int, more: Mapping[str, int] | None = None
) -> str:
    """List what waits for a person, safety first.

    Args:
        items: The first of it.
        waiting: How much waits in all.
        more: How many more like it an item stands for, by the item's id.
    """
    lines = [f"# Review queue: {waiting:,} waiting", ""]
    if items:
        lines += ["| item | about | raised by | why |", "|---|---|---|---|"]
    for item in items:
        about = f"{item.dimension}: {item.interaction_id}"
        alike = f" (and {more[item.id]:,} more like it)" if more and item.id in more else ""
        cells = (item.id[:8], about, item.raised_by, item.why[:200] + alike)
        lines.append("| " + " | ".join(cell(text) for text in cells) + " |")
    return "\n".join(lines)
