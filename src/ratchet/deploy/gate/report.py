"""What a gate decided, as text and as JSON."""

from __future__ import annotations

import math
from typing import Any

from ratchet.deploy.gate.evidence import MetricEvidence
from ratchet.deploy.gate.gate import GateResult
from ratchet.files.text import counted, shown_lines
from ratchet.records import direction_words

NAME_WIDTH = 34
UNSEEN = 3.0  # of n examples: the rule of three, 95 %


def gate_json(result: GateResult) -> dict[str, Any]:
    """Return the decision with all evidence, as JSON-able values; what is undefined is null."""
    return {
        "verdict": result.verdict,
        "reasons": list(result.reasons),
        "approval": result.approval,
        "examples_needed": result.needed,
        "level": result.level,
        "look": result.look,
        "losses_to_overturn": result.losses_to_overturn,
        "notes": list(result.notes),
        "hold_margin": result.hold_margin,
        "primary": None if result.primary is None else _evidence(result.primary),
        "guardrails": [_evidence(evidence) for evidence in result.guardrails],
        "floor": None
        if result.floor is None
        else {
            "rate": result.floor.rate,
            "lower": result.floor.lower,
            "problem": result.floor.problem,
        },
        "secondary": [
            _evidence(evidence) | {"p_adjusted": result.adjusted[evidence.question.metric]}
            for evidence in result.secondary
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
            f"  about {counted(result.needed, 'example')} in all would decide it if the "
            "observed difference "
            "is the true one (power 80 %)"
        )
    elif result.verdict == "inconclusive" and result.is_open_for_want_of_examples:
        lines.append("  no number of examples would decide it if the observed difference is true")
    if result.losses_to_overturn is not None:
        lines.append(f"  {_overturned(result)}")
    if result.approval is not None:
        lines.append(f"  waits for a person: {result.approval}")
    weighed = [one for one in (result.primary, *result.guardrails, *result.secondary) if one]
    if weighed:
        level = 100.0 * (1.0 - 2.0 * result.level)
        lines += ["", f"{'':{NAME_WIDTH}}  champion  challenger  difference [{level:.3g} %]"]
        lines += [_line(evidence) for evidence in weighed]
        lines += ["", f"one-sided level {result.level:.2g} at look {result.look}"]
    shown = {evidence.question.metric for evidence in weighed if evidence.champion is not None}
    lines += [
        f"{metric}: {direction_words(result.policy.direction(metric))}"
        for metric in result.policy.metrics
        if metric not in shown
    ]
    lines += [f"note: {note}" for note in result.notes]
    return shown_lines(lines)


def _overturned(result: GateResult) -> str:
    """How few losses that nobody saw would change a promotion, and how many may go unseen."""
    losses = result.losses_to_overturn
    examples = result.primary.examples if result.primary is not None else 0
    words = "unseen loss" if losses == 1 else "unseen losses"
    rare = min(1.0, UNSEEN / max(1, examples))
    return (
        f"{losses:,} {words} of the challenger would overturn a promotion; failures in {rare:.2%} "
        f"of cases have a chance of 5 % to be in none of {counted(examples, 'example')}"
    )


def _line(evidence: MetricEvidence) -> str:
    name = f"{evidence.question.role}: {evidence.name}"[:NAME_WIDTH]
    if evidence.champion is None or evidence.interval is None:
        return f"{name:{NAME_WIDTH}}  {evidence.problem}"
    low, high = evidence.interval
    units = "" if evidence.units == evidence.examples else f" of {counted(evidence.units, 'user')}"
    lost = max(evidence.unscored)
    note = evidence.problem or (f"{lost:,} without scores" if lost else "")
    return (
        f"{name:{NAME_WIDTH}}  {evidence.champion:8.4g}  {evidence.challenger:10.4g}  "
        f"{evidence.difference:+.4g} [{low:+.4g}, {high:+.4g}], "
        f"{counted(evidence.examples, 'example')}{units}, "
        f"{direction_words(evidence.question.higher_is_better)}" + (f"; {note}" if note else "")
    )


def _evidence(evidence: MetricEvidence) -> dict[str, Any]:
    question = evidence.question
    finite = evidence.interval is not None and all(map(math.isfinite, evidence.interval))
    return {
        "metric": question.metric,
        "cluster": question.cluster,
        "examples_of": question.examples_of,
        "higher_is_better": question.higher_is_better,
        "margin": question.margin,
        "relative": question.relative,
        "must_be_shown": question.must_be_shown,
        "champion": evidence.champion,
        "challenger": evidence.challenger,
        "difference": evidence.difference,
        "interval": list(evidence.interval) if finite and evidence.interval else None,
        "p_shown": evidence.p_shown,
        "p_harm": evidence.p_harm,
        "p_no_worse": evidence.p_no_worse,
        "examples": evidence.examples,
        "units": evidence.units,
        "unscored_champion": evidence.unscored[0],
        "unscored_challenger": evidence.unscored[1],
        "test": evidence.test,
        "problem": evidence.problem,
    }
