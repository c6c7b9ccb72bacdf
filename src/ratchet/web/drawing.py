"""Drawing a control chart of the last days, in a process of its own.

    drawn = Drawer(settings.store_url).draw(Asked(find_signal("quality"), "version", None), now)

To draw one takes seconds of computing and, over a million answers, a gigabyte of memory: pages
answer meanwhile, and the memory is free again afterwards. The process is told through a pipe what
to draw, since the store's address may hold a password, and says it through another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args
from urllib.parse import urlencode

import numpy as np
from pydantic import TypeAdapter

from ratchet.analyze.monitoring.chart_lines import report_lines
from ratchet.analyze.monitoring.charts import (
    ChartedSignal,
    ChartReport,
    SignalChart,
    chart_signal,
    find_signal,
    read_window,
)
from ratchet.errors import InsufficientDataError, RatchetError
from ratchet.processes import open_environment, python
from ratchet.records import AlertEvent
from ratchet.stats.charts.designed_charts import Kind
from ratchet.store import EventStore, Window
from ratchet.views.plots import signal_chart, to_svg

Group = Literal["version", "segment", "application", "prompt_version"]
GROUPS = get_args(Group)
DAYS = 30
RUN_LENGTH = 370.0
"""Mean number of points between false alarms, that of three standard deviations."""
_MOST_ROWS = 60


@dataclass(frozen=True, slots=True)
class Asked:
    """A chart that somebody asked for.

    Attributes:
        signal: What is charted.
        by: What gets a chart for each of its values; None for one chart of all.
        kind: Which chart; None for the one that suits the signal.
    """

    signal: ChartedSignal
    by: Group | None
    kind: Kind | None

    @property
    def name(self) -> str:
        """Its name among figures, and its address."""
        told = {"by": self.by, "kind": self.kind}
        return f"{self.signal.name}?{urlencode({k: v for k, v in told.items() if v})}"


@dataclass(frozen=True, slots=True)
class Row:
    """A point of a chart; `signals` says what it signals, empty where it signals nothing."""

    at: datetime
    observations: int
    value: float
    signals: str


@dataclass(frozen=True, slots=True)
class Drawn:
    """A chart as it was drawn.

    Attributes:
        svg: The picture.
        lines: What it shows, in words.
        tables: The latest points of each of its charts.
        alerts: Alerts on the signal that opened in these days.
    """

    svg: str
    lines: tuple[str, ...]
    tables: tuple[tuple[str, tuple[Row, ...]], ...]
    alerts: tuple[AlertEvent, ...]


@dataclass(slots=True)
class Drawer:
    """Draws charts of a store, each in a process of its own.

    Attributes:
        store_url: Of the store.
    """

    store_url: str
    _child: subprocess.Popen[str] | None = None
    _is_closed: bool = False

    def draw(self, asked: Asked, now: datetime) -> Drawn:
        """Draw a chart; see `draw`.

        Raises:
            InsufficientDataError: There is nothing to draw, with the reason.
            RuntimeError: The process failed, with the end of what it wrote.
        """
        told = {"signal": asked.signal.name, "by": asked.by, "kind": asked.kind}
        told |= {"store_url": self.store_url, "now": now.isoformat()}
        pipe = subprocess.PIPE
        with subprocess.Popen(
            python("-m", "ratchet.web.drawing"), stdin=pipe, stdout=pipe, stderr=pipe, text=True,
            env=open_environment(os.environ),
        ) as child:  # fmt: skip
            self._child = child
            if self._is_closed:
                child.kill()
            said, complaint = child.communicate(json.dumps(told))
        if self._is_closed:
            raise InsufficientDataError("the chart is not drawn: the pages are closing")
        if child.returncode:
            raise RuntimeError(f"a chart was not drawn: {complaint[-2000:]}")
        found = json.loads(said)
        if "problem" in found:
            raise InsufficientDataError(found["problem"])
        return _DRAWN.validate_python(found)

    def close(self) -> None:
        """Stop drawing."""
        self._is_closed = True
        if self._child is not None:
            self._child.kill()


def main() -> int:
    """Draw what standard input asks for, and write it as JSON."""
    told = json.load(sys.stdin)
    asked = Asked(find_signal(told["signal"]), told["by"], told["kind"])
    store = EventStore.open(told["store_url"])
    try:
        said = _DRAWN.dump_json(draw(store, asked, datetime.fromisoformat(told["now"]))).decode()
    except RatchetError as error:
        said = json.dumps({"problem": str(error)})
    finally:
        store.close()
    sys.stdout.write(said)
    return 0


def draw(store: EventStore, asked: Asked, now: datetime) -> Drawn:
    """Read the last days and draw a chart.

    Raises:
        InsufficientDataError: There is too little for a chart.
        InvalidInputError: The kind does not suit the signal.
    """
    readings = read_window(store, Window(now - timedelta(days=DAYS), now), by=asked.by)
    report = chart_signal(
        readings, asked.signal, kind=asked.kind, by=asked.by, run_length=RUN_LENGTH
    )
    return Drawn(
        svg=to_svg(_picture(report)),
        lines=tuple(report_lines(report, RUN_LENGTH)),
        tables=tuple((item.value, _rows(item)) for item in report.charts),
        alerts=report.alerts[::-1],
    )


def _picture(report: ChartReport) -> Any:
    return signal_chart(
        {item.value: (item.starts, item.design) for item in report.charts},
        report.signal.says.capitalize(),
        report.kinds,
        unit=report.signal.unit,
        releases=report.releases,
        alerts=report.alert_marks,
    )


def _rows(item: SignalChart) -> tuple[Row, ...]:
    """Return the latest points, the newest first."""
    signalled = dict.fromkeys((alarm.index for alarm in item.design.patterns), "run rule")
    signalled |= dict.fromkeys((alarm.index for alarm in item.design.alarms), "outside")
    places = range(len(item.starts))[-_MOST_ROWS:]
    moments = item.starts.astype("datetime64[us]").astype(datetime)
    return tuple(
        Row(
            at=moments[place].replace(tzinfo=UTC),
            observations=int(item.sizes[place]),
            value=float(np.asarray(item.design.values)[place]),
            signals=signalled.get(place, ""),
        )
        for place in reversed(places)
    )


_DRAWN: TypeAdapter[Drawn] = TypeAdapter(Drawn)

if __name__ == "__main__":
    sys.exit(main())
