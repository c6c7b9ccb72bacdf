"""What a gate decided, as text and as JSON."""

from __future__ import annotations

import math
from typing import Any

from ratchet.deploy.gate.evidence import MetricEvidence
from ratchet.deploy.gate.gate import GateResult
from ratchet.records import direction_words

NAME_WIDTH = 34


def gate_json(result: GateResult) -> dict[str, Any]:
    """Return the decision with all evidence, as JSON-able values; what is undefined is null."""
    return {
        "verdict": result.verdict,
        "reasons": list(result.reasons),
        "approval": result.approval,
        "examples_needed": result.needed,
        "level": result.level,
        "look": result.look,
        "hold_margin": result.hold_margin,
        "primary": None if result.primary is None else _finding(result.primary),
        "guardrails": [_finding(finding) for finding in result.guardrails],
        "floor": None
        if result.floor is None
        else {
            "rate": result.floor.rate,
            "lower": result.floor.lower,
            "problem": result.floor.problem,
        },
        "secondary": [
            _finding(finding) | {"p_adjusted": result.adjusted[finding.question.metric]}
            for finding in result.secondary
        ],
        "directions": {
            metric: direction_words(result.policy.direction(metric))
            for metric in result.policy.metrics
        },
        "policy": result.policy.model_dump(mode="json"),
    }


def gate_text(result: GateResult) -> str:
    """Return the decision in lines to read."""
    lines = [f"{result.verdict}: {result.reasons[0]}"]
    lines += [f"  {reason}" for reason in result.reasons[1:]]
    if result.needed is not None:
        lines.append(
            f"  about {result.needed:,} examples would settle it, were the truth what was seen "
            "(power 80 %)"
        )
    elif result.verdict == "inconclusive":
        lines.append("  no number of examples would settle it, were the truth what was seen")
    if result.approval is not None:
        lines.append(f"  waits for a person: {result.approval}")
    found = [one for one in (result.primary, *result.guardrails, *result.secondary) if one]
    if found:
        level = 100.0 * (1.0 - 2.0 * result.level)
        lines += ["", f"{'':{NAME_WIDTH}}  champion  challenger  difference [{level:.3g} %]"]
        lines += [_line(finding) for finding in found]
        lines += ["", f"one-sided level {result.level:.2g} at look {result.look}"]
    shown = {finding.question.metric for finding in found if finding.champion is not None}
    lines += [
        f"{metric}: {direction_words(result.policy.direction(metric))}"
        for metric in result.policy.metrics
        if metric not in shown
    ]
    return "\n".join(lines)


def _line(finding: MetricEvidence) -> str:
    name = f"{finding.question.role}: {finding.name}"[:NAME_WIDTH]
    if finding.champion is None or finding.interval is None:
        return f"{name:{NAME_WIDTH}}  {finding.problem}"
    low, high = finding.interval
    units = "" if finding.units == finding.examples else f" of {finding.units:,} users"
    note = f"; {finding.problem}" if finding.problem else ""
    return (
        f"{name:{NAME_WIDTH}}  {finding.champion:8.4g}  {finding.challenger:10.4g}  "
        f"{finding.difference:+.4g} [{low:+.4g}, {high:+.4g}], "
        f"{finding.examples:,} examples{units}, "
        f"{direction_words(finding.question.higher_is_better)}{note}"
    )


def _finding(finding: MetricEvidence) -> dict[str, Any]:
    question = finding.question
    finite = finding.interval is not None and all(map(math.isfinite, finding.interval))
    return {
        "metric": question.metric,
        "cluster": question.cluster,
        "examples_of": question.examples_of,
        "higher_is_better": question.higher_is_better,
        "margin": question.margin,
        "relative": question.relative,
        "must_be_shown": question.must_be_shown,
        "champion": finding.champion,
        "challenger": finding.challenger,
        "difference": finding.difference,
        "interval": list(finding.interval) if finite and finding.interval else None,
        "p_shown": finding.p_shown,
        "p_harm": finding.p_harm,
        "p_no_worse": finding.p_no_worse,
        "examples": finding.examples,
        "units": finding.units,
        "unscored_champion": finding.unscored[0],
        "unscored_challenger": finding.unscored[1],
        "test": finding.test,
        "problem": finding.problem,
    }
