"""The weekly report: what a manager reads. Its parts, and the same as Markdown.

A section is a question, its answer in a sentence, and what the answer rests on.
`ratchet.web.weekly` gathers it from the records, `ratchet.views.pages.weekly` draws the same parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from ratchet.files.text import cell
from ratchet.views.words import moment

Verdict = Literal["better", "worse", "mixed", "same", "unknown"]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table.

    Attributes:
        cells: Its texts; the first one names it.
        tone: What the line says: good, bad, or neither.
        page: Path of the page that shows more; empty for none.
    """

    cells: tuple[str, ...]
    tone: Literal["good", "bad", ""] = ""
    page: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A question with its answer.

    Attributes:
        title: The question.
        says: The answer.
        head: Names of the columns; empty where there is no table.
        rows: The table.
        note: How to read it.
    """

    title: str
    says: str
    head: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class WeeklyReport:
    """A week of one assistant.

    Attributes:
        week: By ISO 8601, e.g. `2026-W48`.
        verdict: Whether the model is better than the week before.
        headline: The same in a sentence.
        summary: A few numbers with their names.
        address: Of the pages; None where none are served.
    """

    assistant: str
    week: str
    start: datetime
    end: datetime
    made_at: datetime
    verdict: Verdict
    headline: str
    summary: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    address: str | None = None

    @property
    def title(self) -> str:
        """What it is about, on one line."""
        return f"{self.assistant}, week {self.week}"

    @property
    def days(self) -> str:
        """The days that it is about, in words."""
        return f"{self.start:%Y-%m-%d} to {self.end - timedelta(days=1):%Y-%m-%d}"


def weekly_markdown(report: WeeklyReport) -> str:
    """Write the report as Markdown."""
    lines = [
        f"# {cell(report.title)}",
        "",
        f"**{cell(report.headline)}** {report.days}.",
        "",
        *(f"- {name}: {cell(said)}" for name, said in report.summary),
    ]
    for section in report.sections:
        lines += ["", f"## {section.title}", "", cell(section.says)]
        if section.rows:
            lines += ["", f"| {' | '.join(section.head)} |", "|" + "---|" * len(section.head)]
            lines += [_row(row, report.address) for row in section.rows]
        if section.note:
            lines += ["", f"*{cell(section.note)}*"]
    return "\n".join(
        [*lines, "", f"Made at {moment(report.made_at)} from the records of the home."]
    )


def _row(row: Row, address: str | None) -> str:
    first, *rest = map(cell, row.cells)
    if row.page and address:
        first = f"[{first}]({address}{row.page})"
    return f"| {' | '.join((first, *rest))} |"
