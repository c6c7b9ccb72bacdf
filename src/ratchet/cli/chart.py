"""`ratchet chart`: a control chart of any signal of the store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ratchet.cli.saying import say, say_json
from ratchet.cli.shared import AsJson, finite, required_store
from ratchet.errors import InvalidInputError
from ratchet.files.text import counted

if TYPE_CHECKING:
    from ratchet.analyze.monitoring.charts import ChartReport, SignalChart
    from ratchet.stats.charts.designed_charts import Alarm

Kind = Literal["p", "laney-p", "u", "xmr", "ewma", "cusum"]
By = Literal["version", "segment", "application", "prompt-version", "hour", "day"]
FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
DAYS = 30


def chart(
    signal: Annotated[
        str,
        typer.Argument(
            help="Name of a signal, such as thumbs-down; an unknown name prints all names."
        ),
    ],
    kind: Annotated[
        Kind | None, typer.Option(help="The chart; default: the one that suits the signal.")
    ] = None,
    by: Annotated[
        By | None,
        typer.Option(
            help="What a point is (hour, day), or what gets a chart for each of its values."
        ),
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="Chart the answers of this version alone.")
    ] = None,
    run_length: Annotated[
        float,
        typer.Option(
            min=2.0, max=1e9, help="Average number of points between false alarms.", callback=finite
        ),
    ] = 370.0,
    baseline: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of first points that set the limits; default: half of all."
        ),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            formats=FORMATS, help=f"From when on, in UTC; default: {counted(DAYS, 'day')} before."
        ),
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=FORMATS, help="Up to when, in UTC; default: now.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Picture to write, .png or .svg; default: SIGNAL.png.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw a control chart of a signal; print what it signals, and since when."""
    from ratchet.analyze.monitoring.chart_lines import report_lines
    from ratchet.analyze.monitoring.charts import chart_signal, find_signal, read_window
    from ratchet.store import Window

    charted = find_signal(signal)
    path = _checked_path(out or Path(f"{charted.name.replace('_', '-')}.png"))
    end = datetime.now(UTC) if until is None else until.replace(tzinfo=UTC)
    start = end - timedelta(days=DAYS) if since is None else since.replace(tzinfo=UTC)
    if start >= end:
        raise InvalidInputError(
            f"--since must be before --until, got {start:%F %H:%M} and {end:%F %H:%M}; swap them"
        )
    group = "prompt_version" if by == "prompt-version" else by
    readings = read_window(required_store("a chart"), Window(start, end, version), by=group)
    report = chart_signal(
        readings, charted, kind=kind, by=group, run_length=run_length, baseline=baseline
    )
    _draw(report, path)
    if as_json:
        times = {"since": start.isoformat(), "until": end.isoformat()}
        say_json(_as_json(report, run_length) | times | {"file": str(path)}, indent=2)
        return
    for line in report_lines(report, run_length):
        say(line)
    say(f"picture  {path}")


def _checked_path(path: Path) -> Path:
    if path.suffix not in (".png", ".svg"):
        raise InvalidInputError(
            f"a picture is a .png or a .svg file, got {path.name!r}; name one of them"
        )
    if not path.parent.is_dir():
        raise InvalidInputError(
            f"a picture needs a folder that exists, got {str(path.parent)!r}; make it first"
        )
    return path


def _draw(report: ChartReport, path: Path) -> None:
    from ratchet.views import plots

    figure = plots.signal_chart(
        {item.value: (item.starts, item.design) for item in report.charts},
        report.signal.says.capitalize(),
        report.kinds,
        unit=report.signal.unit,
        releases=report.releases,
        alerts=report.alert_marks,
    )
    if path.suffix == ".png":
        path.write_bytes(plots.to_png(figure))
    else:
        path.write_text(plots.to_svg(figure), "utf-8")


def _as_json(report: ChartReport, run_length: float) -> dict[str, Any]:
    return {
        "signal": report.signal.name,
        "unit": report.signal.unit,
        "by": report.by,
        "points": report.span,
        "run_length": run_length,
        "charts": [_chart_json(item) for item in report.charts],
        "not_charted": dict(report.not_charted),
        "releases": [
            {"at": moment.isoformat(), "version": name} for moment, name in report.releases
        ],
    }


def _chart_json(item: SignalChart) -> dict[str, Any]:
    from ratchet.stats.charts.chart_results import CusumChart

    made = item.design
    starts = [
        f"{moment.astype(datetime).replace(tzinfo=UTC).isoformat()}" for moment in item.starts
    ]
    if isinstance(made.chart, CusumChart):
        series = {"upper_sum": made.chart.upper, "lower_sum": made.chart.lower}
    else:
        series = {
            "charted": made.chart.values,
            "lower": made.chart.lower,
            "upper": made.chart.upper,
        }
    columns = {"value": made.values} | {k: v for k, v in series.items() if v is not None}
    rows = [
        {"start": start, "observations": int(size)}
        | {name: float(column[place]) for name, column in columns.items()}
        for place, (start, size) in enumerate(zip(starts, item.sizes, strict=True))
    ]
    return {
        "of": item.value,
        "kind": made.kind,
        "center": made.baseline.center,
        "limit_sigmas": made.limit,
        "sigma_z": made.baseline.sigma_z,
        "baseline_points": made.baseline_points,
        "spans_left_out": item.left_out,
        "points": rows,
        "signals": [_alarm_json(alarm, starts) for alarm in made.alarms],
        "run_rules": [_alarm_json(alarm, starts) for alarm in made.patterns],
        "run_rules_run_length": made.patterns_run_length,
    }


def _alarm_json(alarm: Alarm, starts: list[str]) -> dict[str, Any]:
    return {
        "at": starts[alarm.index],
        "side": "above" if alarm.above else "below",
        "since": starts[alarm.since],
        "reason": alarm.reason,
    }
