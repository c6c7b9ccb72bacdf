"""A validation in words and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ratchet.errors import RatchetError
from ratchet.files.rows import SetAsideRow, set_aside_lines
from ratchet.files.text import counted, shown_lines
from ratchet.judges.validation import Validation
from ratchet.records import Figure

Results = Sequence[tuple[str, Validation | RatchetError]]
SAYS = {
    "agreement": "agreement",
    "agreement_of_all": "agreement, unscored against",
    "kappa": "Cohen's kappa",
    "kappa_by_winner": "the same by winner, not by place",
    "ac1": "Gwet's AC1",
    "krippendorff_alpha": "Krippendorff's alpha",
    "accuracy_first_order": "accuracy, first order",
    "accuracy_second_order": "accuracy, second order",
    "kappa_first_order": "kappa, first order",
    "kappa_second_order": "kappa, second order",
    "kappa_of_orders": "kappa between the orders",
    "consistency": "same winner in both orders",
    "right_in_both_orders": "right in both orders",
    "judge_human": "agreement with people",
    "human_human": "people with each other",
    "over_human_ceiling": "over the human ceiling",
    "position_effect": "win rate of the first shown - 1/2",
    "first_shown_among_disagreements": "first shown, where orders differ",
    "raw_win_rate": "win rate of the first answer",
    "length_controlled_win_rate": "the same at equal length",
    "length_effect": "gain per s.d. of length",
    "longest_answer_judge": "the longer wins, by the judge",
    "longest_answer_human": "the longer wins, by people",
    "self_preference": "own family, judge minus people",
    "self_preference_over_others": "the same, over other families",
    "judge_rate": "rate by the judge",
    "human_rate": "rate by people, labelled part",
    "corrected_rate": "rate by the judge, corrected",
    "authority_uplift": "gain by a confident tone",
    "injection_uplift": "gain by instructing, unshielded",
    "shielded_injection_uplift": "gain by instructing, shielded",
}
DISAGREEMENTS = 5


def validation_json(found: Validation) -> dict[str, Any]:
    """Return a validation as JSON-able values."""
    kappa = found.kappa
    interval = None if kappa.interval is None else [kappa.interval.lower, kappa.interval.upper]
    return {
        "decision": found.decision,
        "usable": found.decision == "usable",
        "reasons": list(found.reasons),
        "items": found.items,
        "unscored": found.unscored,
        "kappa": {
            "value": kappa.value,
            "standard_error": kappa.standard_error,
            "interval": interval,
            "lower_bound": found.kappa_bound,
            "reason": kappa.reason,
        },
        "figures": {
            figure.name: figure.model_dump(exclude={"name"}, exclude_none=True)
            | {"value": figure.value}
            for figure in found.figures
        },
        "categories": list(found.categories),
        "confusion": [list(row) for row in found.confusion],
        "more_labels": found.more_labels,
        "disagreements": [
            {"item_id": d.item_id, "human": d.human, "judge": d.judge, "weight": d.weight}
            for d in found.disagreements
        ],
    }


def validations_text(
    results: Results, set_aside: Sequence[SetAsideRow], unused: Sequence[str]
) -> str:
    """Return one validation in full, several as a table."""
    lines = _one(*results[0]) if len(results) == 1 else _table(results)
    if unused:
        lines.append(f"not used: the fields {', '.join(unused)}")
    if set_aside:
        lines.append(f"set aside: {counted(len(set_aside), 'row')}")
        lines += [f"  {line}" for line in set_aside_lines(set_aside)]
    return shown_lines(lines)


def _one(name: str, found: Validation | RatchetError) -> list[str]:
    if isinstance(found, RatchetError):
        return [f"{name}: refused: {found}"]
    lines = [f"{name + ': ' if name else ''}{found.decision}"]
    lines += [f"  {reason}" for reason in found.reasons]
    if found.more_labels is not None:
        lines.append(
            f"  about {counted(found.more_labels, 'more label')} would decide it if they come "
            "out like "
            "those so far"
        )
    lines.append(f"{counted(found.items, 'item')} with a label and a verdict")
    lines += [f"  unscored: {count} × {reason}" for reason, count in found.unscored.items()]
    if found.figures:
        lines.append(f"{'':34}  value   95 % interval      of")
    lines += [figure_line(figure) for figure in found.figures if figure.name in SAYS]
    lines += _confusion(found)
    if found.disagreements:
        lines.append("disagreements to read first (item: people / judge)")
        lines += [
            f"  {item.item_id}: {item.human} / {item.judge}"
            for item in found.disagreements[:DISAGREEMENTS]
        ]
    return lines


def figure_line(figure: Figure) -> str:
    """Return a figure with its interval on one line."""
    says = SAYS.get(figure.name, figure.name)
    if figure.value is None:
        return f"  {says:32}      -   {figure.reason}"
    ends = ""
    if figure.lower is not None and figure.upper is not None:
        ends = f"{figure.lower:6.3f} to {figure.upper:6.3f}"
    return f"  {says:32} {figure.value:6.3f}   {ends:16} {figure.observations:5}"


def _confusion(found: Validation) -> list[str]:
    if not found.confusion:
        return []
    width = max(6, *(len(name) for name in found.categories))
    lines = ["people in rows, the judge in columns"]
    lines.append("  ".join([" " * (width + 2), *(name.rjust(width) for name in found.categories)]))
    for name, row in zip(found.categories, found.confusion, strict=True):
        lines.append("  ".join([f"  {name:>{width}}", *(str(count).rjust(width) for count in row)]))
    return lines


def _table(results: Results) -> list[str]:
    width = min(60, max(len(name) for name, _ in results))
    head = (
        f"{'run':{width}}  items unscored  agree  orders   kappa  95 % interval   bound  decision"
    )
    lines = [head]
    for name, found in results:
        if isinstance(found, RatchetError):
            lines.append(f"{name[:width]:{width}}  refused: {found}")
            continue
        agree, orders = found.figure("agreement_of_all"), found.figure("consistency")
        interval = found.kappa.interval
        ends = f"{interval.lower:5.2f} to {interval.upper:5.2f}" if interval else ""
        lines.append(
            f"{name[:width]:{width}}  {found.items:5} {sum(found.unscored.values()):8}  "
            f"{_percent(agree)}  {_percent(orders)}  {_number(found.kappa.value)}  {ends:14} "
            f"{_number(found.kappa_bound)}  {found.decision}"
        )
    counts = Counter(
        "refused" if isinstance(found, RatchetError) else found.decision for _, found in results
    )
    lines.append(
        f"{counted(len(results), 'run')}: " + ", ".join(f"{n} {what}" for what, n in counts.items())
    )
    usable = counts["usable"]
    if usable:
        lines.append(
            "The error rate of 5 % is that of one validation: of many judges on the same labels "
            "the best one looks better than it is."
        )
    return lines


def _percent(figure: Figure | None) -> str:
    return "    -" if figure is None or figure.value is None else f"{100 * figure.value:4.0f}%"


def _number(value: float | None) -> str:
    return "     -" if value is None else f"{value:6.2f}"
