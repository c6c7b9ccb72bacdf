"""What was pruned, or would be, as a table for a terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ratchet.files.text import cell as markdown
from ratchet.files.text import shown_lines
from ratchet.operate.pruning import Line

_UNITS = ("B", "kB", "MB", "GB", "TB")
_HEAD = ("what", "how many", "oldest", "size", "rule")


def as_text(lines: Sequence[Line]) -> str:
    """Return a table with a line a rule that applies to something, and what failed."""
    rows = [_HEAD, *(_cells(line) for line in lines if _applies(line))]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_HEAD) - 1)]
    told = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip()
        for row in rows
    ]
    failed = [f"{line.what}: {line.failed}" for line in lines if line.failed]
    return shown_lines([*(told if len(rows) > 1 else ["nothing is old enough to go"]), *failed])


def as_markdown(lines: Sequence[Line]) -> str:
    """Return the same as Markdown."""
    rows = [_HEAD, ("---",) * len(_HEAD), *(_cells(line) for line in lines if _applies(line))]
    failed = [f"\n{markdown(line.what)}: {markdown(line.failed)}" for line in lines if line.failed]
    return "\n".join([*(f"| {' | '.join(map(markdown, row))} |" for row in rows), *failed])


def as_json(line: Line) -> dict[str, str | int | None]:
    """Return a line as JSON has it: times in ISO 8601, sizes in bytes."""
    return {
        "what": line.what,
        "rule": line.rule,
        "rows": line.rows,
        "oldest": line.oldest.isoformat() if line.oldest else None,
        "bytes": line.bytes,
        "gone": line.gone,
        "failed": line.failed,
    }


def size_in_words(size: float) -> str:
    """Return bytes as people read them, such as 1.5 GB."""
    for unit in _UNITS[:-1]:
        if size < 1_000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1_000
    return f"{size:.1f} {_UNITS[-1]}"


def _applies(line: Line) -> bool:
    return bool(line.rows or line.bytes)


def _cells(line: Line) -> tuple[str, ...]:
    oldest: datetime | None = line.oldest
    when = f"{oldest:%Y-%m-%d}" if oldest else "-"
    many = f"{line.rows:,}" if line.rows else "-"
    return line.what, many, when, size_in_words(line.bytes), line.rule
