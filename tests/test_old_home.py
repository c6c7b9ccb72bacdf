"""A home of release 0.1 opens with today's code and goes on where it stopped.

The home is `tests/fixtures/home-0.1.tar.gz`, made by the code of then (`tests/fixtures/make_home`);
its manifest says what is in it.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import Result
from typer.testing import CliRunner

from ratchet.analyze.failures.identity import KnownClusters
from ratchet.analyze.monitoring.watch import WatchConfig, watch
from ratchet.cli import app
from ratchet.cli.gate_models import Decoding, answer_file
from ratchet.deploy.gate.policy import default_policy
from ratchet.evaluation.example_files import read_examples
from ratchet.evaluation.paired import decoding_name, question_digest
from ratchet.gateway.drain import Drain
from ratchet.gateway.log import segments
from ratchet.improve.curation.dataset import read_any_rows
from ratchet.improve.training.config import FinetuneConfig
from ratchet.improve.training.finetune import finetune
from ratchet.judges.label_sheet import read_sheet
from ratchet.judges.win_rate import pairs_of
from ratchet.models import HuggingFaceModel, adapter_digest, model_digest
from ratchet.records import (
    FEEDBACK_KINDS,
    TRAFFIC_KINDS,
    AlertEvent,
    Approval,
    BoardState,
    Candidate,
    Decision,
    ExampleSet,
    Message,
    Record,
    Release,
    TrainingSet,
)
from ratchet.servers import Servers
from ratchet.settings import Settings, load_settings
from ratchet.store import EventStore, Window
from ratchet.tracking import Tracker
from tests.fixtures.old_home import TABLES, digest, unpack
from tests.flows.prefect_home import PrefectHome, run_python
from tests.improve.training.cases import made_up

EVER = Window(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
HOUR = timedelta(hours=1)
LATER_KINDS = (*TRAFFIC_KINDS, "session_score")
SENT_KINDS = tuple(kind for kind in FEEDBACK_KINDS if kind not in LATER_KINDS)
FEWEST_KINDS = 33
"""Kinds of records in the journal of release 0.1."""


@dataclass(frozen=True)
class OldHome:
    """The unpacked home, its settings and what its manifest says."""

    folder: Path
    settings: Settings
    environ: dict[str, str]
    manifest: dict[str, Any]
    store: EventStore

    @property
    def tracker(self) -> Tracker:
        return Tracker(
            self.settings.tracking_uri,
            artifacts=self.settings.artifacts,
            model_name=self.settings.model_name,
        )

    def adapter(self, number: str) -> str:
        """The digest of a version's adapter, as the manifest says."""
        digests: dict[str, str] = self.manifest["adapters"]
        return digests[f"{self.settings.model_name}/{number}"]

    @property
    def prefect(self) -> PrefectHome:
        return PrefectHome(self.settings, self.environ, Servers(settings=self.settings, say=print))

    @property
    def base(self) -> Path:
        return Path(self.settings.base_model)


@pytest.fixture
def old(tmp_path: Path) -> Iterator[OldHome]:
    manifest = unpack(tmp_path)
    ours = ("PREFECT_", "MLFLOW_", "RATCHET_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environ |= {
        "RATCHET_HOME": str(tmp_path / "home"),
        "RATCHET_BASE_MODEL": str(tmp_path / "models" / "tiny"),
    }
    settings = load_settings(environ, tmp_path)
    store = EventStore.open(settings.store_url)
    yield OldHome(tmp_path, settings, environ, manifest, store)
    store.close()


@pytest.fixture
def ratchet(old: OldHome, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """Run a command of `ratchet` over the home."""
    monkeypatch.chdir(old.folder)
    for name in set(os.environ) - set(old.environ):
        monkeypatch.delenv(name)
    for name in ("RATCHET_HOME", "RATCHET_BASE_MODEL"):
        monkeypatch.setenv(name, old.environ[name])
    yield lambda *words: CliRunner().invoke(app, [*words])
    logging.getLogger("ratchet").handlers.clear()  # they write to a stream that is closed now


def kinds_by_name() -> dict[str, type[Record]]:
    """Return every class of records by its name, which is its kind in the journal."""
    found, waiting = {}, [Record, KnownClusters]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        found[kind.__name__] = kind
    return found


# The store ----------------------------------------------------------------------------------------


def test_every_kind_of_record_reads_back_as_it_was_written(old: OldHome) -> None:
    kinds, wanted = kinds_by_name(), old.manifest["journal"]
    assert len(wanted) >= FEWEST_KINDS
    for name, said in wanted.items():
        read = [record.canonical() for record in old.store.records(kinds[name])]
        assert {"count": len(read), "digest": digest(read)} == said, name


def test_a_record_that_is_written_again_is_known(old: OldHome) -> None:
    kinds = kinds_by_name()
    for name in old.manifest["journal"]:
        latest = old.store.latest(kinds[name])
        assert latest is not None
        assert old.store.append(latest) is False, name


def test_events_and_verdicts_read_back_as_they_were_written(old: OldHome) -> None:
    store, said = old.store, old.manifest
    later = dict.fromkeys(LATER_KINDS, 0)  # kinds of later versions
    assert store.counts() == later | said["counts"]
    assert all(said["counts"][kind] for kind in SENT_KINDS)
    given = store.stored_interactions(store.interactions(EVER)["id"].to_pylist())
    assert digest([given[key].canonical() for key in sorted(given)]) == said["interactions"]
    events = store.stored_feedback(store.feedback(EVER)["id"].to_pylist())
    assert digest([events[key].canonical() for key in sorted(events)]) == said["feedback"]
    verdicts = store.verdicts_of("careful/1")
    assert digest([verdict.canonical() for verdict in verdicts]) == said["verdicts"]


@pytest.mark.parametrize("name", TABLES)
def test_other_rows_are_left_as_they_were_when_the_store_opens(old: OldHome, name: str) -> None:
    with sqlite3.connect(old.settings.home / "store.db") as database:
        rows = database.execute(TABLES[name]).fetchall()
    database.close()
    assert rows
    assert digest([list(row) for row in sorted(rows)]) == old.manifest[name]


def test_the_recorded_answers_are_those_to_the_frozen_examples(old: OldHome) -> None:
    """Answers are kept by a digest of what is asked, which has to stay the same."""
    store, tracker = old.store, old.tracker
    for reference in old.manifest["aliases"].values():
        model = tracker.version(reference).digest
        for frozen in store.records(ExampleSet):
            asked = [question_digest(example) for example in frozen.examples]
            given = store.answers(model, decoding_name(frozen.max_new_tokens), asked)
            assert len(given) == len(frozen.examples) >= 40


def test_monitoring_goes_on_from_its_board(old: OldHome) -> None:
    alert = old.store.latest(AlertEvent)
    assert alert is not None
    version = alert.model_version
    before = old.store.records(BoardState, subject=version)[-1]
    config = WatchConfig(batch_seconds=900, baseline_days=2.0, minimum_hours=24.0)
    watch(old.store, config, now=before.charted_until + 2 * HOUR + config.lag)
    board = old.store.records(BoardState, subject=version)[-1]
    assert (board.baseline_id, board.opened_at) == (before.baseline_id, before.opened_at)
    assert board.charted_until == before.charted_until + 2 * HOUR
    assert board.batches == before.batches + 8  # of a quarter of an hour each
    events = old.store.records(AlertEvent, subject=version)
    assert [event.alert_id for event in events if event.change == "opened"] == [alert.alert_id]


# The gateway's log --------------------------------------------------------------------------------


def test_the_log_of_the_gateway_drains_and_nothing_is_set_aside(old: OldHome) -> None:
    folder, before = old.settings.home / "gateway" / "wal", old.store.counts()
    assert len(segments(folder)) == 1
    drain = Drain(folder, old.store, young_seconds=0)
    while drain.once():
        pass
    drain.once()
    drain.close()
    assert segments(folder) == []
    said, after = old.manifest["gateway"], old.store.counts()
    arrived = {name: after[name] - before[name] for name in before}
    none = dict.fromkeys(("set_aside", *LATER_KINDS), 0)
    assert arrived == none | {"interactions": said["interactions"], **said["feedback"]}
    events = old.store.stored_feedback([f"g-{kind}" for kind in SENT_KINDS])
    assert {event.kind for event in events.values()} == set(SENT_KINDS)
    (asked,) = {event.interaction_id for event in events.values()}
    answered = old.store.stored_interactions([asked])[asked]
    assert (answered.prompt, answered.response) == ("hello 0 ½", "hello 0 ½")
    assert answered.model_version == old.manifest["aliases"]["champion"]


# Training and the registry ------------------------------------------------------------------------


def test_the_training_goes_on_from_its_checkpoint_and_ends(old: OldHome) -> None:
    said, home = old.manifest["training"], old.settings.home
    work = home / "adapters" / f"training-{said['key'][:16]}"
    checkpoint = work / f"checkpoint-{said['resumes_at']}"
    state = json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
    before = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    result = finetune(
        made_up("sft", said["rows"]),
        FinetuneConfig(**said["config"]),
        base=old.base,
        start_from=None,
        key=said["key"],
        home=home,
    )
    assert result.resumed_at == (said["resumes_at"],)
    assert result.losses[: said["resumes_at"]] == tuple(before)
    assert len(result.losses) == 9  # 20 rows or so in batches of 8, three times
    assert not work.exists()
    assert adapter_digest(home / result.folder) == result.adapter_digest


def test_an_adapter_that_was_trained_is_not_trained_again(old: OldHome) -> None:
    for trained in old.store.records(Candidate)[:2]:
        key = trained.version * 64
        result = finetune(
            made_up("sft", 8), FinetuneConfig(), base=old.base, start_from=None, key=key,
            home=old.settings.home,
        )  # fmt: skip
        assert result.folder == trained.path
        assert result.losses == trained.losses
        assert result.adapter_digest == trained.adapter_digest == old.adapter(trained.version)


def test_a_training_set_is_read_from_its_folder(old: OldHome) -> None:
    made = old.store.latest(TrainingSet)
    assert made is not None
    rows = read_any_rows(old.settings.home / made.path)
    assert len(rows) == made.size > 8
    known = old.store.stored_interactions([row.interaction_id for row in rows])
    assert len(known) == made.size


def test_aliases_resolve_and_the_adapters_of_versions_are_found(old: OldHome) -> None:
    from mlflow import MlflowClient

    said, tracker = old.manifest["aliases"], old.tracker
    client = MlflowClient(old.settings.tracking_uri)
    for alias, reference in said.items():
        number = client.get_model_version_by_alias(old.settings.model_name, alias).version
        assert f"{old.settings.model_name}/{number}" == reference
    champion, previous = tracker.champion(), tracker.previous()
    assert champion is not None
    assert previous is not None
    assert (champion.reference, previous.reference) == (said["champion"], said["previous"])
    assert tracker.adapter_folder(previous) is None  # the base model
    assert model_digest(old.base) == previous.digest == old.manifest["base"]
    for reference, wanted in old.manifest["adapters"].items():
        version = tracker.version(reference)
        folder = tracker.adapter_folder(version)
        assert folder is not None
        assert folder.is_relative_to(old.folder)
        assert adapter_digest(folder) == wanted
        assert model_digest(old.base, folder) == version.digest
    asked = (Message(role="user", content="hello"),)
    model = HuggingFaceModel.load(old.base, tracker.adapter_folder(champion))
    (answer,) = model.generate([asked], max_new_tokens=4)
    assert answer.error is None


# The gate's answers and the sheet -----------------------------------------------------------------


def test_recorded_answers_of_the_gate_are_used_and_nothing_is_asked(
    old: OldHome, ratchet: Callable[..., Result]
) -> None:
    """The address of the two models is that of then; whoever asks there gets no answer."""
    said = old.manifest["gate"]
    one, two = (f"{said['url']}#{said[name]}" for name in ("champion", "challenger"))
    done = ratchet(
        "gate", "--champion", one, "--challenger", two, "--examples", "examples.jsonl", "--json"
    )
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["verdict"] == "promote"
    # of 60 examples the one model knew the first 20, the other the first 45
    assert report["primary"]["champion"] == pytest.approx(20 / 60)
    assert report["primary"]["challenger"] == pytest.approx(45 / 60)


def test_the_half_labelled_sheet_is_read_as_far_as_people_got(old: OldHome) -> None:
    said, sheet = old.manifest["gate"], old.manifest["sheet"]
    examples = read_examples(old.folder / "examples.jsonl")
    policy, given = default_policy(["exact_match"], has_clusters=False), []
    for name in ("champion", "challenger"):
        found = answer_file(
            f"{said['url']}#{said[name]}", examples, policy, old.settings, Decoding()
        )
        texts = found.by_example(examples)
        assert len(texts) == said["examples"]
        given.append(texts)
    read = read_sheet(old.folder / "sheet.csv", pairs_of(examples, *given))
    assert (read.compared, read.open) == (sheet["compared"], sheet["open"])
    assert all("got 'neither'" in row.reason for row in read.set_aside)
    assert len(read.set_aside) == sheet["set_aside"]
    with (old.folder / "sheet.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(read.winners) + read.open + sheet["set_aside"]


# The whole home -----------------------------------------------------------------------------------


def test_the_status_tells_how_the_home_stands(old: OldHome, ratchet: Callable[..., Result]) -> None:
    done = ratchet("status", "--json")
    assert done.exit_code == 0, done.output
    found, said = json.loads(done.stdout), old.manifest
    assert found["waiting"] == [said["waiting"]]
    assert found["champion"] == said["aliases"]["champion"]
    assert found["previous"] == said["aliases"]["previous"]
    assert found["last_decision"]["challenger"] == said["aliases"]["challenger"]
    assert found["cycle"] == {"number": 2, "state": "finished"}
    assert found["feedback"] == {kind: said["counts"].get(kind, 0) for kind in FEEDBACK_KINDS}
    assert found["set_aside"] == said["counts"]["set_aside"]
    assert found["registry"] == "nothing to do"
    # one of the latest analysis, and the open one of the board that make_home lets watch
    assert [alert["signal"] for alert in found["alerts"]] == ["thumbs_down_rate", "regenerated"]
    listed = json.loads(ratchet("alerts", "--json").stdout)
    assert [alert["id"] for alert in found["alerts"]] == [alert["id"] for alert in listed]


IMPROVE = """
import sys
from ratchet.flows.improve import ImproveOptions, improve
print("improved", improve(ImproveOptions.model_validate_json(sys.argv[1])))
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_improve_once_more_takes_the_adapter_that_the_task_has_cached(old: OldHome) -> None:
    """Prefect keeps the task's result with the name of its class, module and all."""
    said = old.manifest["improve"]
    with old.prefect.serving() as environ:
        printed = run_python(environ, "-c", IMPROVE, json.dumps(said["options"]))
        body = {"task_runs": {"name": {"like_": "finetune"}}}
        tasks = httpx.post(f"{environ['PREFECT_API_URL']}/task_runs/filter", json=body).json()
    assert f"improved {said['candidate']}" in printed
    assert sorted(task["state_name"] for task in tasks) == ["Cached", "Completed"]
    for kind in (Candidate, TrainingSet):
        assert len(old.store.records(kind)) == old.manifest["journal"][kind.__name__]["count"]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_promotion_that_waits_is_approved_and_happens(old: OldHome) -> None:
    servers = old.prefect.servers
    try:
        servers.start(prefect_port=4600, mlflow_port=5600, environ=old.environ)
        (run,) = approvals(servers, old.manifest["waiting"])
        assert run["state_name"] == "Suspended"
        word = {"run_input": {"verdict": "approve", "reason": "it is better", "by": "ann"}}
        address = f"{servers.prefect_api}/flow_runs/{run['id']}/resume"
        assert httpx.post(address, json=word).json()["status"] == "ACCEPT"
        deadline = time.monotonic() + 180
        while run["state_name"] != "Completed" and time.monotonic() < deadline:
            time.sleep(0.3)
            (run,) = approvals(servers, old.manifest["waiting"])
        assert run["state_name"] == "Completed", run["state"]
    finally:
        servers.stop()
    decision = old.store.get(Decision, old.manifest["waiting"])
    said, release = old.store.get(Approval, old.manifest["waiting"]), old.store.latest(Release)
    assert decision is not None
    assert said is not None
    assert release is not None
    assert (said.approved, said.by, said.via) == (True, "ann", "prefect")
    assert (release.action, release.decision_id) == ("promote", decision.id)
    champion, previous = old.tracker.champion(), old.tracker.previous()
    assert champion is not None
    assert previous is not None
    assert champion.reference == release.champion == old.manifest["aliases"]["challenger"]
    assert previous.reference == release.previous == old.manifest["aliases"]["champion"]


def approvals(servers: Servers, decision: str) -> list[dict[str, Any]]:
    """Return the runs of the flow approve that are about a decision."""
    body = {"flows": {"name": {"any_": ["approve"]}}}
    found = httpx.post(f"{servers.prefect_api}/flow_runs/filter", json=body).json()
    return [run for run in found if run["parameters"]["options"]["decision"] == decision]
