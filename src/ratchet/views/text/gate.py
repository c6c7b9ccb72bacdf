"""Decisions of the gate in words, with their evidence, and approvals by people."""

from __future__ import annotations

from ratchet.files.text import cell, counted, one_line, plain
from ratchet.records import (
    Approval,
    ClusterComparison,
    Decision,
    Measured,
    direction_words,
)

CHANCE = 0.05
"""From this p-value on a failure cluster counts as moved."""
_SHARES = ("constant_answer_rate", "challenger_lower_bound")


def decision_markdown(decision: Decision) -> str:
    """Write a decision with its evidence as Markdown."""
    evidence = [
        f"| {cell(plain(key))} | {format(value, '.1%' if key in _SHARES else 'g')} |"
        for key, value in decision.evidence.items()
    ]
    test = "exact McNemar p" if decision.level is None else "p, one-sided"
    return "\n".join(
        [
            f"# {decision.verdict.capitalize()}: {cell(decision.challenger)}",
            "",
            *[f"- {cell(reason)}" for reason in decision.reasons],
            *_what_next(decision),
            "",
            "| | |",
            "|---|---|",
            f"| {cell(decision.primary_metric)} | {direction_words(decision.higher_is_better)} |",
            f"| champion {cell(decision.champion)} | {score(decision.champion_value, decision)} |",
            f"| challenger {cell(decision.challenger)} "
            f"| {score(decision.challenger_value, decision)} |",
            f"| difference | {difference(decision)} |",
            f"| {test} | {decision.p_value:.3g} |",
            f"| examples | {decision.examples} |",
            *evidence,
            *_measured(decision),
            *_clusters_compared(decision),
        ]
    )


def approval_markdown(decision: Decision, approval: Approval) -> str:
    """Write a person's approval or rejection as Markdown."""
    outcome = "Approved" if approval.approved else "Rejected"
    return "\n".join(
        [
            f"# {outcome}: {cell(decision.challenger)}",
            "",
            f"- by {cell(approval.by)} at {approval.created_at:%F %H:%M} UTC ({approval.via})",
            f"- why: {cell(approval.reason)}",
            f"- approval was needed because: {cell(decision.approval or 'no approval was needed')}",
        ]
    )


def score(value: float | None, decision: Decision) -> str:
    """Write a mean of the primary metric, as a percentage where both are shares."""
    if value is None:
        return "no score"
    return f"{value:.1%}" if _are_shares(decision) else f"{value:.4g}"


def difference(decision: Decision) -> str:
    """Write the difference with its interval."""
    if decision.difference is None:
        return "not known"
    form = ".1%" if _are_shares(decision) else ".3g"
    shown = format(decision.difference, "+" + form)
    if decision.interval is None:
        return f"{shown} (no interval)"
    low, high = (format(end, "+" + form) for end in decision.interval)
    level = 0.95 if decision.level is None else 1.0 - 2.0 * decision.level
    return f"{shown} ({100 * level:.3g} % interval {low} to {high})"


def moved(item: ClusterComparison) -> str:
    """Say which way a cluster moved, where that is more than chance at 5 %."""
    missing = f"; {item.unscored} without an answer" if item.unscored else ""
    if item.p_value > CHANCE:
        return f"no more than chance (p = {item.p_value:.2g}){missing}"
    better = item.only_challenger_right > item.only_champion_right
    return f"{'mended' if better else 'worse'} (p = {item.p_value:.2g}){missing}"


def _are_shares(decision: Decision) -> bool:
    values = (decision.champion_value, decision.challenger_value)
    return all(value is None or 0.0 <= value <= 1.0 for value in values)


def _what_next(decision: Decision) -> list[str]:
    lines = []
    if decision.needed is not None:
        lines.append(
            f"- about {counted(decision.needed, 'example')} would be enough to decide if the "
            "observed "
            "difference is the true one (power 80 %)"
        )
    if decision.approval is not None:
        until = f" until {decision.expires_at:%F %H:%M} UTC" if decision.expires_at else ""
        lines.append(f"- waits for a person{until}: {cell(decision.approval)}")
    return [*lines, *(f"- note: {cell(note)}" for note in decision.notes)]


def _measured(decision: Decision) -> list[str]:
    if len(decision.measured) < 2:
        return []
    head = (
        "| | metric | champion | challenger | difference | margin | p (better) | p (worse) "
        "| direction |"
    )
    rows = [_measured_row(item) for item in decision.measured]
    level = "" if decision.level is None else f" (one-sided level {decision.level:g})"
    return ["", f"## All metrics{level}", "", head, "|---|---|" + "---|" * 7, *rows]


def _measured_row(item: Measured) -> str:
    name, better = cell(item.name), direction_words(item.higher_is_better)
    if item.champion is None or item.challenger is None or item.difference is None:
        problem = cell(one_line(item.problem or "no score"))
        return f"| {item.role} | {name} | – | – | {problem} | | | | {better} |"
    interval = ""
    if item.interval is not None:
        interval = f" [{item.interval[0]:+.3g}, {item.interval[1]:+.3g}]"
    share = " of the champion's" if item.relative else ""
    note = f"; {cell(item.problem)}" if item.problem else ""
    return (
        f"| {item.role} | {name} | {item.champion:.4g} | {item.challenger:.4g} "
        f"| {item.difference:+.3g}{interval}, n = {item.examples}{note} "
        f"| {item.margin:g}{share} | {item.p_shown:.2g} | {item.p_harm:.2g} | {better} |"
    )


def _clusters_compared(decision: Decision) -> list[str]:
    if not decision.clusters:
        return []
    rows = [
        f"| {cell(item.name)} | {item.examples} | {item.champion_right} "
        f"| {item.challenger_right} | {moved(item)} |"
        for item in decision.clusters
    ]
    head = "| failure cluster | examples | champion right | challenger right | moved |"
    return [
        "",
        "## On the frozen examples of failure clusters",
        "",
        head,
        "|---|" + "---|" * 4,
        *rows,
    ]
