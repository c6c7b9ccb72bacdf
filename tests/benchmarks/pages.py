"""How long the pages take over a million interactions and 100,000 items that wait for people.

    make bench PART=pages                                         # SQLite
    make bench PART=pages ARGS="--databases sqlite postgresql"
    make bench PART=pages KEEP=/srv/pages                         # fills once, measures again

The pages run as `ratchet up` runs them, in a process of their own; people sign in, read every page
and label. Where the 95th percentile of a page is above 300 ms, the exit code is 1. The load of the
machine stands beside the figures: others who use its cores make pages wait.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np

from tests.benchmarks.pages_home import AHEAD, OTHERS, PASSWORD, SETS, prepare
from tests.benchmarks.provenance import ROOT, commit
from tests.benchmarks.rows_store import Place, database_url, postgresql

LIMIT_MS = 300.0
TIMES, WARM = 30, 2
NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
LAST = SETS - 1
READ = {
    "overview": "/", "alerts": "/alerts", "an alert": f"/alerts/alert-{LAST}-0",
    "charts": "/charts", "a chart": "/charts/thumbs_down_rate?by=version",
    "its picture": "/chart-pictures/thumbs_down_rate?by=version",
    "decisions": "/decisions", "a decision": f"/decisions/decision-{LAST}",
    "rollouts": "/rollouts", "a rollout": "/rollouts/rollout-360",
    "a version": f"/versions/support-router/{LAST}", "a training set": f"/training-sets/set-{LAST}",
    "a failure cluster": "/clusters/cluster-3", "audit": "/audit", "accounts": "/accounts",
}  # fmt: skip
"""Pages that are read, by what they are called in the table."""
_TOKEN = re.compile(r'"X-Ratchet-Token": "([0-9a-f]{64})"')
_ITEM = re.compile(r'data-item="([^"]+)"')


@dataclass
class Visitor:
    """Somebody who is signed in, in a browser that keeps its connection.

    Attributes:
        item: The item that the last page of review showed.
    """

    client: httpx.Client
    headers: dict[str, str] = field(default_factory=dict)
    item: str = ""

    @classmethod
    def signed_in(cls, address: str, name: str) -> Visitor:
        client = httpx.Client(base_url=address, timeout=120.0)
        made = cls(client)
        made.see("/log-in")
        form = {"name": name, "password": PASSWORD, "token": made.headers["x-ratchet-token"]}
        assert client.post("/log-in", data=form).status_code == 303
        made.see("/you")
        return made

    def see(self, path: str) -> None:
        self._read(self.client.get(path))

    def send(self, path: str, **fields: str) -> None:
        """Send a form as htmx does, and take the next item from the answer."""
        self._read(self.client.post(path, data={"item": self.item} | fields, headers=self.headers))

    def _read(self, answer: httpx.Response) -> None:
        assert answer.status_code == 200, f"{answer.url}: {answer.status_code} {answer.text[:500]}"
        token, item = _TOKEN.search(answer.text), _ITEM.search(answer.text)
        if token:
            self.headers = {"x-ratchet-token": token[1], "hx-request": "true"}
        self.item = item[1] if item else self.item


def timed(act: Callable[[], object], times: int = TIMES) -> list[float]:
    """Return how many milliseconds something took each time, once it is warm."""
    for _ in range(WARM):
        act()
    took = []
    for _ in range(times):
        began = time.perf_counter()
        act()
        took.append(1_000.0 * (time.perf_counter() - began))
    return took


def read_pages(address: str) -> dict[str, list[float]]:
    """Measure the pages that an admin reads, charts once they are drawn."""
    eve = Visitor.signed_in(address, "eve")
    until_made(eve, READ["a chart"])
    drawn = eve.client.get(READ["its picture"]).status_code == 200  # few rows are too few
    paths = {name: path for name, path in READ.items() if drawn or name != "its picture"}
    return {name: timed(lambda path=path: eve.see(path)) for name, path in paths.items()}


def until_made(visitor: Visitor, path: str) -> None:
    """Ask for a figure until it is there."""
    while " is being drawn" in visitor.client.get(path).text:
        time.sleep(0.2)


def label_items(address: str) -> dict[str, list[float]]:
    """Measure what reviewers do: the next item, a label, a skip, taking back, agreement."""
    ahead, bob = Visitor.signed_in(address, AHEAD), Visitor.signed_in(address, OTHERS[0])
    eve = Visitor.signed_in(address, "eve")
    bob.see("/review")
    ahead.see("/review")

    def disturbed() -> None:
        """See the overview after somebody labelled, so that it is gathered anew."""
        bob.send("/review/decide", label="4")
        began = time.perf_counter()
        eve.see("/")
        gathered.append(1_000.0 * (time.perf_counter() - began))

    gathered: list[float] = []
    found = {
        "review, the next item": timed(lambda: bob.see("/review")),
        "review, a label and the next item": timed(
            lambda: bob.send("/review/decide", label="3"), 2 * TIMES
        ),
        "the same, by who is 50,000 items ahead": timed(
            lambda: ahead.send("/review/decide", label="3"), 2 * TIMES
        ),
        "review, passed on": timed(lambda: bob.send("/review/skip", reason="not mine")),
        "review, a label taken back": timed(
            lambda: (bob.send("/review/decide", label="2"), bob.send("/review/undo"))
        ),
        "agreement": timed(lambda: bob.see("/review/agreement?dimension=helpfulness")),
    }
    timed(disturbed)
    return found | {"overview, just after a label": gathered[WARM:]}


def while_drawing(address: str) -> dict[str, list[float]]:
    """Measure a label and the overview while the server draws charts of 30 days."""
    bob, eve = (Visitor.signed_in(address, name) for name in (OTHERS[1], "eve"))
    bob.see("/review")
    for signal in ("copy_rate", "task_completion_rate", "regenerate_rate"):
        eve.client.get(f"/charts/{signal}?by=segment")
    return {
        "a label, while charts are drawn": timed(lambda: bob.send("/review/decide", label="4")),
        "overview, while charts are drawn": timed(lambda: eve.see("/")),
    }


def command(place: Place) -> dict[str, list[float]]:
    """Measure `ratchet review progress` in this process."""
    from ratchet.cli import app

    os.environ.update(place.environment())

    def run() -> None:
        with redirect_stdout(io.StringIO()):
            app(["review", "progress", "--by", AHEAD], standalone_mode=False)

    return {"`ratchet review progress`": timed(run, 10)}


@contextmanager
def serving(place: Place) -> Iterator[str]:
    """Serve the pages of a place as `ratchet up` does; yield their address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    paths = [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    with (Path(place.folder) / "pages.log").open("ab") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "ratchet.web", "--port", str(port)],
            cwd=place.folder, stdout=log, stderr=log,
            env=place.environment() | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        while not _answers(address):
            if server.poll() is not None:
                raise SystemExit(f"the pages did not start: {place.folder}/pages.log")
            time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait(timeout=120)


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health").status_code == 200
    except httpx.TransportError:
        return False


def measure(place: Place, items: int) -> dict[str, list[float]]:
    """Fill a place where it is new, and measure all of its pages."""
    filled = Path(place.folder) / f"filled-{items}"
    if not filled.exists():
        prepare(place, items)
        filled.touch()
    with serving(place) as address:
        found = read_pages(address) | label_items(address) | while_drawing(address)
    return found | command(place)


def table(found: dict[str, dict[str, list[float]]]) -> Iterator[str]:
    """Yield the lines of the table: median and 95th percentile of each page and database."""
    heads = [f"{NAMES[name]}, {what}" for name in found for what in ("median ms", "95 % ms")]
    yield f"| what | {' | '.join(heads)} |"
    yield f"|---|{'---:|' * len(heads)}"
    for what in next(iter(found.values())):
        cells = [
            f"{np.percentile(one[what], share):.0f}" for one in found.values() for share in (50, 95)
        ]
        yield f"| {what} | {' | '.join(cells)} |"


def failures(found: dict[str, dict[str, list[float]]], most: float) -> list[str]:
    """Return the pages that are too slow."""
    return [
        f"{NAMES[database]}: {what} must take at most {most:.0f} ms, got {slow:.0f} ms (95 %)"
        for database, parts in found.items()
        for what, took in parts.items()
        if (slow := float(np.percentile(took, 95))) > most
    ]


def run(folder: Path, options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    found = {}
    for database in options.databases:
        with ExitStack() as stack:
            here = folder / f"{database}-{options.rows}-{options.items}"
            (here / "home").mkdir(parents=True, exist_ok=True)
            url = f"sqlite:///{here / 'home' / 'store.db'}"
            if database == "postgresql":
                server = stack.enter_context(postgresql(folder / "postgresql"))
                url = database_url(server, f"pages_{options.rows}_{options.items}")
            end = here / "end"
            if not end.exists():
                end.write_text(str(int(time.time() * 1e6) - 60_000_000))
            place = Place(str(here), database, options.rows, url, int(end.read_text()))
            found[database] = measure(place, options.items)
    return found


def main() -> int:
    """Measure and print; 1 where a page is too slow."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="interactions")
    parser.add_argument("--items", type=int, default=100_000, help="items that wait for people")
    parser.add_argument("--databases", nargs="+", choices=list(NAMES), default=["sqlite"])
    parser.add_argument("--keep", type=Path, help="keep the stores here; go on with them")
    parser.add_argument("--most", type=float, default=LIMIT_MS, help="milliseconds, 95 %%")
    options = parser.parse_args()
    before = os.getloadavg()[0]
    with ExitStack() as stack:
        folder = options.keep or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="ratchet-pages-"))
        )
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # PostgreSQL runs as another user where this one is root
        found = run(folder.resolve(), options)
    print(
        f"Measured on {datetime.now(UTC).date()} at commit {commit()}, {os.cpu_count()} cores, "
        f"{platform.machine()}, Python {platform.python_version()}: {options.rows:,} interactions, "
        f"{options.items:,} waiting items; load {before:.1f} before and "
        f"{os.getloadavg()[0]:.1f} after.\n"
    )
    print("\n".join(table(found)))
    said = failures(found, options.most)
    for line in said:
        print(f"error: {line}", file=sys.stderr)
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
