"""What a million interactions cost and what five million do; writes docs/explanation/scaling.md.

    make bench PART=rows                             # 1 and 5 million, SQLite and PostgreSQL
    make bench PART=rows ROWS="20000 50000"          # prints the page instead
    make bench PART=rows KEEP=/srv/rows              # keeps stores and results, and goes on there

Each part runs in a process of its own, for seconds and its peak of memory. Where something that
must not depend on the number of rows grows beyond the factor stated here, the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.benchmarks.provenance import commit
from tests.benchmarks.rows_parts import PARTS, measured, process
from tests.benchmarks.rows_store import A_DAY, Place, database_url, postgresql

ROOT = Path(__file__).parents[2]
HEAD = Path(__file__).parent / "rows_head.md"
PAGE = ROOT / "docs" / "explanation" / "scaling.md"
SIZES = (1_000_000, 5_000_000)
DATABASES = ("sqlite", "postgresql")
NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
GOAL = 10_000_000
SHARDS = 10
FACTOR = 2.0
"""Five times the rows may take so many times as long, and as much memory, in what is constant."""
NO_MEASURE = 100_000
"""Stores of fewer rows say nothing about growth: what is started once is most of what they cost."""
SLACK = {"seconds": 0.2, "GB": 0.1, "": 0.0}
"""What is smaller differs by chance."""

Found = Mapping[str, Mapping[str, Any]]
"""What was measured: by database, rows and part."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table.

    Attributes:
        what: In words.
        part: What was measured.
        field: Which of its numbers.
        unit: `seconds`, `GB` or `rows/s`.
        limit: The target; None where there is none.
        constant: Whether it must not grow with the number of rows.
    """

    what: str
    part: str
    field: str = "seconds"
    unit: str = "seconds"
    limit: float | None = None
    constant: bool = True

    @property
    def at_least(self) -> bool:
        """Whether more is better."""
        return self.unit == "rows/s"


ROWS = (
    Row("`ratchet ingest` of a log", "load", "rows_per_second", "rows/s", 50_000),
    Row(
        "the driver alone (executemany, COPY), into empty tables with the same indexes", "raw",
        "rows_per_second", "rows/s", constant=False,
    ),
    Row(
        "the driver alone, a day's rows into the full store", "day", "rows_per_second", "rows/s",
        constant=False,
    ),
    Row("`ratchet status --json`", "status", limit=0.3),
    Row("`ratchet alerts`", "alerts", limit=0.3),
    Row("`ratchet review`, 100,000 items open", "review", limit=0.3),
    Row("five-minute pass, watching alone", "watch", limit=1.0),
    Row("five-minute pass with screening", "screened", limit=5.0),
    Row("its memory", "screened", "memory", "GB", 0.5),
    Row("five-minute flow run with Prefect and MLflow", "flow"),
    Row("`ratchet forget`", "forget", limit=30.0),
    Row("longest wait of a writer meanwhile", "forget", "longest_wait", limit=1.0),
    Row("drain of the gateway's log", "drain", "rows_per_second", "rows/s", 10_000),
    Row("its longest transaction", "drain", "longest_transaction", limit=1.0),
    Row("nightly curation of a day (480,000 new)", "nightly", limit=300.0),
    Row("its memory", "nightly", "memory", "GB", 2.0),
    Row("first curation of all but the last day", "catch_up", constant=False),
    Row("its memory", "catch_up", "memory", "GB", 4.0),
    Row("first pass of monitoring over all rows", "first_watch", constant=False),
    # it reads the seven days that a baseline needs, of which the smaller store has two
    Row("its memory", "first_watch", "memory", "GB", 4.0, constant=False),
    Row("first screening, of a day", "first_screening"),
    Row("its memory", "first_screening", "memory", "GB", 4.0),
    Row("the largest process of all", "all", "memory", "GB", 4.0, constant=False),
)  # fmt: skip


def at_goal(values: Mapping[int, float], *, rate: bool = False) -> float:
    """Return what a number comes to at ten million rows: on the line through the two largest.

    Of a rate, the time of a row is on the line.
    """
    if rate:
        return 1.0 / at_goal({size: 1.0 / value for size, value in values.items()})
    sizes = sorted(values)[-2:]
    if len(sizes) < 2:
        return values[sizes[0]]
    few, many = sizes
    slope = max(0.0, (values[many] - values[few]) / (many - few))  # no gain is extrapolated
    return values[many] + slope * (GOAL - many)


def extrapolates(values: Mapping[int, float]) -> bool:
    """Tell whether two stores are large enough that a day of traffic is the same in both."""
    return len([size for size in values if size >= SIZES[0]]) > 1


def by_size(found: Found, row: Row) -> dict[int, float]:
    """Return a row's numbers by the number of interactions, of one database."""
    return {
        int(size): float(parts[row.part][row.field])
        for size, parts in found.items()
        if row.field in parts.get(row.part, ())
    }


def of_measure(values: Mapping[int, float]) -> dict[int, float]:
    """Return the numbers of stores that are large enough to compare."""
    return {size: value for size, value in values.items() if size >= NO_MEASURE}


def grows(values: Mapping[int, float], row: Row) -> bool:
    """Tell whether a number that must not depend on the number of rows does."""
    values = of_measure(values)
    if not row.constant or len(values) < 2:
        return False
    few, many = values[min(values)], values[max(values)]
    if row.at_least:
        return many < few / FACTOR
    return many > FACTOR * few + SLACK[row.unit]


def limit_of(row: Row, found: Found, database: str) -> float | None:
    """Return a row's target; to load is to take at most twice the time of COPY on PostgreSQL."""
    if row.part == "load" and database == "postgresql":
        raw = [float(parts["raw"][row.field]) for parts in found.values() if "raw" in parts]
        return raw[-1] / 2.0 if raw else None
    return row.limit


def verdict(row: Row, value: float, limit: float | None) -> str:
    """Say whether a target is met, at least half, or not."""
    if limit is None:
        return ""
    share = limit / value if row.at_least else value / limit
    return "met" if share <= 1.0 else "half met" if share <= 2.0 else "not met"


def shown(value: float, unit: str) -> str:
    """Return a number as people read it."""
    if unit == "rows/s":
        return f"{value:,.0f}"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:.{digits}f}"


def table(found: Found, database: str) -> Iterator[str]:
    """Yield the lines of the table of one database."""
    sizes = sorted(map(int, found))
    yield (
        f"| what | unit | target | {' | '.join(f'{size:,} rows' for size in sizes)} | "
        f"{GOAL:,} rows, by arithmetic | target there | constant |"
    )
    yield f"|---|---|---:|{'---:|' * len(sizes)}---:|---|---|"
    for row in ROWS:
        values = by_size(found, row)
        if not values:
            continue
        limit = limit_of(row, found, database)
        target = "" if limit is None else "≥ " if row.at_least else "≤ "
        target += "" if limit is None else shown(limit, row.unit)
        goal = at_goal(values, rate=row.at_least) if extrapolates(values) else None
        constant = (
            "-"
            if not row.constant or len(of_measure(values)) < 2
            else "**grows**"
            if grows(values, row)
            else "yes"
        )
        numbers = [shown(values[size], row.unit) if size in values else "" for size in sizes]
        yield (
            f"| {row.what} | {row.unit} | {target} | {' | '.join(numbers)} | "
            f"{'' if goal is None else shown(goal, row.unit)} | "
            f"{'' if goal is None else verdict(row, goal, limit)} | {constant} |"
        )


def digests(found: Found) -> Iterator[str]:
    """Yield lines that say whether the night's set is the one of a run over everything."""
    for size, parts in found.items():
        if "full" not in parts:
            continue
        kept, fresh = parts["nightly"], parts["full"]
        same = "the same" if kept["digest"] == fresh["digest"] else "**another**"
        yield (
            f"- {int(size):,} rows: the night's set has {same} digest as that of a run over "
            f"everything, which took {fresh['seconds']:.0f} s and {fresh['memory']:.1f} GB; the "
            f"night took {kept['seconds']:.0f} s and {kept['memory']:.1f} GB "
            f"({kept['examples']:,} examples)."
        )


def shards(found: Found) -> Iterator[str]:
    """Yield the lines of what ten stores of ten million rows come to, by the largest measured."""

    def goal(part: str, field: str = "seconds") -> float:
        return at_goal({int(s): float(parts[part][field]) for s, parts in found.items()})

    size = max(map(int, found))
    disk = SHARDS * GOAL * float(found[str(size)]["day"]["bytes"]) / size
    night, watched = goal("nightly"), goal("screened")
    yield f"| {SHARDS} stores of {GOAL:,} rows, {SHARDS * A_DAY:,} a day | one machine | ten |"
    yield "|---|---:|---:|"
    yield f"| disk, GB | {disk / 1e9:,.0f} | {disk / SHARDS / 1e9:,.0f} each |"
    yield f"| nightly curation, one after the other, minutes | {SHARDS * night / 60:.0f} | " + (
        f"{night / 60:.1f} |"
    )
    yield f"| memory, GB | {goal('nightly', 'memory'):.1f} | {goal('nightly', 'memory'):.1f} each |"
    yield f"| five-minute passes, seconds of 300 | {SHARDS * watched:.0f} | {watched:.1f} |"
    yield f"| forgetting a user, who is in one store, seconds | {goal('forget'):.1f} | same |"


def plot(found: Mapping[str, Found], path: Path) -> None:
    """Draw seconds and memory by the number of rows, each axis by powers of ten."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    figure = Figure(figsize=(9.6, 4.6), layout="constrained")
    panels = figure.subplots(1, 2)
    drawn = {
        "status": "status", "review": "review", "watch": "pass", "screened": "pass, screened",
        "forget": "forget", "nightly": "nightly curation", "catch_up": "first curation",
        "first_watch": "first pass",
    }  # fmt: skip
    for axes, field in zip(panels, ("seconds", "memory"), strict=True):
        for number, (part, name) in enumerate(drawn.items()):
            for database, style in (("sqlite", "-"), ("postgresql", "--")):
                values = by_size(found.get(database, {}), Row(name, part, field))
                if values:
                    label = name if style == "-" or "sqlite" not in found else None
                    axes.plot(
                        sorted(values), [values[size] for size in sorted(values)],
                        style, marker="o", markersize=4, color=f"C{number}", label=label,
                    )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        sizes = sorted({int(size) for one in found.values() for size in one})
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(lambda value, _place: f"{value:g}")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("interactions stored")
        axes.grid(alpha=0.3)
        axes.set_ylabel({"seconds": "seconds", "memory": "peak memory, GB"}[field])
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False,
        title="SQLite; dashed:\nPostgreSQL",
    )  # fmt: skip
    figure.savefig(path, metadata={"Date": None})


def page(found: Mapping[str, Found]) -> str:
    """Return the page."""
    sections = []
    for database, sizes in found.items():
        sections += [f"### {NAMES[database]}", "", *table(sizes, database), "", *digests(sizes), ""]
    first = next(iter(found.values()))
    seconds = sum(
        float(part.get("wall", 0.0))
        for sizes in found.values() for parts in sizes.values() for part in parts.values()
    )  # fmt: skip
    return HEAD.read_text("utf-8").format(
        date=datetime.now(UTC).date(), commit=commit(), python=platform.python_version(),
        cores=os.cpu_count(), minutes=f"{seconds / 60:.0f}",
        factor=f"{FACTOR:g}", tables="\n".join(sections).rstrip(),
        shards="\n".join(shards(first)) if _whole(first) else "(Measured from a million rows on.)",
    )  # fmt: skip


def _whole(found: Found) -> bool:
    needed = {"day", "nightly", "screened", "forget"}
    return extrapolates({int(size): 0.0 for size, parts in found.items() if needed <= parts.keys()})


def failures(found: Mapping[str, Found]) -> list[str]:
    """Return what must not grow and does, and sets that differ."""
    said = [
        f"{NAMES[database]}: {row.what} must not grow with the number of rows, got "
        + " and ".join(f"{shown(v, row.unit)} {row.unit} at {s:,}" for s, v in values.items())
        for database, sizes in found.items()
        for row in ROWS
        if grows(values := by_size(sizes, row), row)
    ]
    for database, sizes in found.items():
        said += [f"{NAMES[database]}: {line}" for line in digests(sizes) if "another" in line]
    return said


def measure(place: Place, results: Path, only: Sequence[str]) -> dict[str, Any]:
    """Measure every part that no earlier run has; keep what is found after each."""
    found: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {}
    for name, part in PARTS.items():
        wanted = not only or name in only or name in ("fill", "day")
        if (
            name in found
            or not wanted
            or place.rows > part.most_rows.get(place.database, place.rows)
        ):
            continue
        began = time.monotonic()
        measured(name, place, what="prepare")
        found[name] = measured(name, place)
        found[name]["wall"] = time.monotonic() - began
        results.write_text(json.dumps(found))
        says = ", ".join(
            f"{key} {value:,.3f}"
            for key, value in found[name].items()
            if isinstance(value, float) and key != "wall"
        )
        print(
            f"{NAMES[place.database]} {place.rows:,} {name}: {says} "
            f"({found[name]['wall']:.0f} s in all)",
            file=sys.stderr, flush=True,
        )  # fmt: skip
    largest = max(float(part["memory"]) for part in found.values())
    return found | {"all": {"memory": largest}}


def run(folder: Path, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Fill and measure every store; a store whose results are complete is not filled again."""
    found: dict[str, dict[str, Any]] = {}
    for database in options.databases:
        with ExitStack() as stack:
            server = None
            if database == "postgresql":
                server = stack.enter_context(postgresql(folder / "postgresql"))
            for rows in options.rows:
                here = folder / f"{database}-{rows}"
                (here / "home").mkdir(parents=True, exist_ok=True)
                url = f"sqlite:///{here / 'home' / 'store.db'}"
                if server is not None:
                    url = database_url(server, f"rows_{rows}")
                begun = here / "end"
                if not begun.exists():
                    # the last answer of a minute ago, on the day that it is
                    begun.write_text(str(int(time.time() * 1e6) - 60_000_000))
                place = Place(str(here), database, rows, url, int(begun.read_text()))
                parts = measure(place, here / "results.json", options.only)
                found.setdefault(database, {})[str(rows)] = parts
                if not options.keep and database == "sqlite":
                    shutil.rmtree(here)  # 2.4 GB a million
    return found


def main() -> int:
    """Measure, and write the page or print it; 1 where something grows that must not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES)
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=DATABASES)
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=())
    parser.add_argument("--keep", type=Path, help="keep stores and results here; go on there")
    parser.add_argument("--out", type=Path, help="write the page here, with its plot beside it")
    parser.add_argument("--process", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process:
        process(*options.process)
        return 0
    with ExitStack() as stack:
        folder = options.keep or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="ratchet-rows-"))
        )
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # PostgreSQL runs as another user where this one is root
        found = run(folder.resolve(), options)
    text = page(found).rstrip() + "\n"
    whole = tuple(options.rows) == SIZES and not options.only
    out = options.out or (PAGE if whole else None)
    if out is None:
        print(text)
    else:
        out.parent.mkdir(exist_ok=True)
        out.write_text(text, "utf-8")
        plot(found, out.with_suffix(".svg"))
    said = failures(found)
    for line in said:
        print(f"error: {line}", file=sys.stderr)
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
