"""Flow runs that are deleted by age, on a real Prefect server, and the flow that prunes a home.

Nothing here is old: the time before which runs go is put into the future instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from ratchet.operate.flow_runs import EndedRuns
from ratchet.operate.sqlite_files import space_of
from ratchet.records import Interaction, Message
from ratchet.settings import Settings
from ratchet.store import EventStore
from tests.flows.prefect_home import new_home, run_python

pytestmark = pytest.mark.slow  # what goes and what stays is tested in tests/operate/test_pruning.py

PRUNE = "from ratchet.flows.prune import prune; print('rules', prune())"
LATER = timedelta(hours=1)


@dataclass(frozen=True)
class Server:
    """A Prefect server with one flow run of each kind."""

    api: str
    settings: Settings
    environment: dict[str, str]

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        for _ in range(30):
            answer = httpx.post(f"{self.api}/{path}", json=body or {}, timeout=60.0)
            if answer.status_code != 503:  # its database is busy; clients of Prefect try again too
                break
            time.sleep(1.0)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def deployment(self, name: str, tags: tuple[str, ...] = ("ratchet",)) -> str:
        flow = self.ask("flows/", {"name": name})["id"]
        made = {
            "name": name,
            "flow_id": flow,
            "tags": list(tags),
            "enforce_parameter_schema": False,
        }
        return str(self.ask("deployments/", made)["id"])

    def run(self, deployment: str, state: str) -> str:
        """Make a run that is in this state, with two lines of log and two artifacts."""
        made = self.ask(f"deployments/{deployment}/create_flow_run", {})
        key = str(made["id"])
        for kind in ("RUNNING", state):
            self.ask(f"flow_runs/{key}/set_state", {"state": {"type": kind}, "force": True})
        moment = datetime.now(UTC).isoformat()
        line = {"name": "x", "level": 20, "message": "hello", "timestamp": moment}
        self.ask("logs/", [line | {"flow_run_id": key}] * 2)  # type: ignore[arg-type]
        return key

    def artifact(self, run: str, key: str) -> str:
        made = {"key": key, "type": "markdown", "data": "text", "flow_run_id": run}
        return str(self.ask("artifacts/", made)["id"])

    def runs(self) -> set[str]:
        return {str(run["id"]) for run in self.ask("flow_runs/filter", {"limit": 200})}

    def ended(
        self, *, passes: bool, own_server: bool = True, later: timedelta = LATER
    ) -> EndedRuns:
        return EndedRuns(self.api, datetime.now(UTC) + later, passes, own_server)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, served_once: Path) -> Iterator[Server]:
    home = new_home(tmp_path_factory.mktemp("prune"), served_once)
    with home.serving() as environment:
        yield Server(home.servers.prefect_api, home.settings, environment)


def _until(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30.0
    while not found():
        assert time.monotonic() < deadline, "no answer in time"
        time.sleep(0.3)


def rest(_seconds: float) -> None:
    """Nobody else writes here."""


@pytest.mark.slow
def test_passes_that_ended_well_go_and_nothing_else_does(server: Server) -> None:
    analyze, loop, approve = (server.deployment(name) for name in ("analyze", "loop", "approve"))
    passes = [server.run(analyze, "COMPLETED") for _ in range(45)]
    failed, of_loop = server.run(analyze, "FAILED"), server.run(loop, "COMPLETED")
    waiting, going = server.run(approve, "PAUSED"), server.run(analyze, "RUNNING")
    stranger = server.run(server.deployment("theirs"), "COMPLETED")
    superseded = server.artifact(passes[0], "board")
    server.artifact(passes[1], "board")  # the newest picture of the board: its run stays
    others = {failed, of_loop, waiting, going, stranger, passes[1]}

    early = server.ended(passes=True, later=-LATER)
    assert (early.count(), early.oldest(), early.delete(rest=rest)) == (0, None, 0)
    well = server.ended(passes=True)
    assert well.count() == 44
    assert well.oldest() is not None
    assert well.delete(rest=rest) == 44
    assert server.runs() == others
    artifacts = {item["id"] for item in server.ask("artifacts/filter")}
    assert superseded not in artifacts
    assert len(artifacts) == 1
    gone = {"logs": {"flow_run_id": {"any_": passes[2:40]}}}
    _until(lambda: server.ask("logs/filter", gone) == [])

    everything = server.ended(passes=False)
    assert everything.count() == 2
    assert everything.delete(rest=rest) == 2
    assert server.runs() == {waiting, going, stranger, passes[1]}


def test_on_a_server_of_others_only_runs_with_our_tag_go(server: Server) -> None:
    tagged = server.run(server.deployment("collect"), "COMPLETED")
    theirs = server.deployment("deploy", tags=("shop",))
    untagged = server.run(theirs, "COMPLETED")
    assert server.ended(passes=False, own_server=False).delete(rest=rest) == 1
    assert untagged in server.runs()
    assert tagged not in server.runs()


def test_the_flow_copies_into_history_and_deletes_what_is_old(server: Server) -> None:
    store, now = EventStore.open(server.settings.store_url), datetime.now(UTC)
    ages = {"old": timedelta(days=120), "new": timedelta(hours=1)}
    store.add_interactions(
        [
            Interaction(
                id=key, session_id=key, user_id="u", created_at=now - age, model_version="m/1",
                messages=(Message(role="user", content="where is it"),), response="delivery",
            )
            for key, age in ages.items()
        ]
    )  # fmt: skip
    assert "rules 1" in run_python(server.environment, "-c", PRUNE)
    assert set(store.stored_interactions(["old", "new"])) == {"new"}
    assert (Path(server.settings.history) / "cursor.json").exists()
    (told,) = (item for item in server.ask("artifacts/latest/filter") if item["key"] == "prune")
    assert "| interactions | 1 |" in told["data"]
    assert "| feedback about them | 1 |" not in told["data"]
    assert "rules 0" in run_python(server.environment, "-c", PRUNE)


def test_databases_of_a_new_home_can_give_space_back(server: Server) -> None:
    database = server.settings.prefect_home / "prefect.db"
    assert space_of(database).can_shrink
    assert space_of(server.settings.home / "store.db").can_shrink
