"""The tables of the GPU benchmark, as Markdown and JSON, written anew with each row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Outcome:
    """What came of a part.

    Attributes:
        status: `done`, `skipped`, `failed`, `out of time` or `running`.
        why: Of what is not done.
    """

    part: str
    status: str
    why: str = ""
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)


def write(outcomes: list[Outcome], folder: Path, heading: str) -> None:
    """Write both files; each appears whole or not at all."""
    peak = peak_of(outcomes)
    for outcome in outcomes:
        for row in outcome.rows:
            if peak and "flops_per_second" in row:
                row["share_of_peak"] = row["flops_per_second"] / peak
    found = {"heading": heading, "parts": [asdict(outcome) for outcome in outcomes]}
    _replace(folder / "gpu.json", json.dumps(found, indent=1))
    _replace(folder / "gpu.md", markdown(outcomes, heading))


def _replace(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, "utf-8")
    part.replace(path)


def peak_of(outcomes: list[Outcome]) -> float | None:
    """Return the peak that the machine's row has, or None before it is known."""
    rows = [row for outcome in outcomes for row in outcome.rows if "peak" in row]
    return float(rows[0]["peak"]) if rows else None


def markdown(outcomes: list[Outcome], heading: str) -> str:
    """Return the tables as Markdown."""
    lines = [heading, ""]
    for row in (row for outcome in outcomes for row in outcome.rows if "peak" in row):
        versions = ", ".join(f"{name} {value}" for name, value in row["versions"].items())
        lines += [f"Peak: {row['peak'] / 1e12:.4g} TFLOP/s by {row['peak_from']}. {versions}.", ""]
    lines += [
        "| part | model | by | what | tokens a second | beside TRL | TFLOP/s | share of peak "
        "| GB at most | at once | notes |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for outcome in outcomes:
        first = _trls_speed(outcome)
        lines += [_line(outcome.part, row, first) for row in outcome.rows if "kernels" not in row]
        if outcome.status not in ("done", "running"):
            lines.append(f"| {outcome.part} | | | {outcome.status} | | | | | | | {outcome.why} |")
    for outcome in outcomes:
        for row in outcome.rows:
            if "kernels" in row:
                lines += ["", *_kernels(row)]
    return "\n".join(lines) + "\n"


def _trls_speed(outcome: Outcome) -> float | None:
    found = [r for r in outcome.rows if r.get("who") == "TRL" and r.get("what") == "defaults"]
    return found[0].get("tokens_per_second") if found else None


def _line(part: str, row: Mapping[str, Any], trls: float | None) -> str:
    speed = row.get("tokens_per_second")
    cells = [
        part,
        row.get("model", ""),
        row.get("who", ""),
        row["what"],
        f"{speed:,.0f}" if speed else "",
        f"{speed / trls:.2f}" if speed and trls else "",
        f"{row['flops_per_second'] / 1e12:.4g}" if "flops_per_second" in row else "",
        f"{row['share_of_peak']:.1%}" if "share_of_peak" in row else "",
        f"{row['memory_gb']:.1f}" if "memory_gb" in row else "",
        str(row.get("at_once", "")),
        _notes(row),
    ]
    return (
        "| " + " | ".join(str(cell).replace("|", "/").replace("\n", " ") for cell in cells) + " |"
    )


def _notes(row: Mapping[str, Any]) -> str:
    notes = []
    if "seconds_a_step" in row:
        notes.append(f"{row['seconds_a_step']:.3f} s a step, {row['steps']} steps")
    if "equal" in row:
        same = "equal losses" if row["equal"] else "LOSSES DIFFER"
        notes.append(f"{same}, at most {row['largest_difference_of_losses']:.1e} apart")
    if "different_answers" in row:
        notes.append(f"{row['different_answers']} different answers to one prompt")
    notes += [str(row[name]) for name in ("attention", "device", "note") if name in row]
    return "; ".join(notes)


def _kernels(row: Mapping[str, Any]) -> list[str]:
    kinds: dict[str, float] = {}
    for one in row["kernels"]:
        kinds[one["kind"]] = kinds.get(one["kind"], 0.0) + one["share"]
    parts = ", ".join(
        f"{kind} {share:.0%}" for kind, share in sorted(kinds.items(), key=lambda k: -k[1])
    )
    busy = f" The card computed in {row['busy']:.0%} of the time." if "busy" in row else ""
    return [
        f"What took the time of {row['model']} by {row['who']}, as far as shown: {parts}.{busy}",
        "",
        "| kernel | kind | share | calls |",
        "|---|---|---|---|",
        *(_kernel(one) for one in row["kernels"]),
    ]


def _kernel(one: Mapping[str, Any]) -> str:
    name = one["kernel"].replace("|", "/")
    return f"| `{name}` | {one['kind']} | {one['share']:.1%} | {one['calls']} |"
