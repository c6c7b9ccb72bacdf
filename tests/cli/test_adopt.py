"""`ratchet adopt`: in this process, against a server that behaves as vLLM does."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ratchet.deploy.routing import serving_champion
from ratchet.deploy.served import other_names, served_name
from ratchet.records import Interaction, Message, Release
from ratchet.store import EventStore
from ratchet.tracking import Tracker
from tests.cli.in_process import run_in_process
from tests.servers.vllm_server import VllmServer

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


@pytest.fixture
def server():
    with VllmServer(LLAMA) as started:
        yield started


class Home:
    """A working folder with its home in it."""

    def __init__(self, folder: Path, database: Path) -> None:
        self.folder, self.path = folder, folder / ".ratchet"
        self.mlflow = folder / "mlflow.db"
        shutil.copyfile(database, self.mlflow)
        self.environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{self.mlflow}", "USER": "ann"}

    def ratchet(self, *words):
        done = run_in_process(*words, folder=self.folder, environment=self.environment)
        return done.returncode, done.stdout + done.stderr

    def adopted(self, *words):
        code, said = self.ratchet("adopt", *words)
        assert code == 0, said
        return said

    @property
    def store(self):
        return EventStore.open(f"sqlite:///{self.path / 'store.db'}")

    @property
    def remembered(self):
        return json.loads((self.path / "home.json").read_text())

    def tracker(self, name):
        return Tracker(
            self.environment["MLFLOW_TRACKING_URI"], artifacts=self.folder, model_name=name
        )

    def record(self, version, count):
        now = datetime.now(UTC)
        self.path.mkdir(exist_ok=True)
        self.store.add_interactions(
            [
                Interaction(
                    id=f"{version}-{number}", session_id="s", user_id="u", model_version=version,
                    created_at=now - timedelta(minutes=number + 1), response="x",
                    latency_seconds=0.1, messages=(Message(role="user", content="hello"),),
                )
                for number in range(count)
            ]
        )  # fmt: skip


def rows(database):
    """All that a database holds, as SQL."""
    with closing(sqlite3.connect(database)) as connection:
        return list(connection.iterdump())


@pytest.fixture
def home(tmp_path, mlflow_database):
    return Home(tmp_path, mlflow_database)


def test_a_dry_run_says_what_would_be_and_makes_nothing(home, server):
    before = home.mlflow.read_bytes()
    said = home.adopted("--backend", server.url, "--dry-run")
    assert f"champion   {LLAMA} would be, until now none" in said
    assert "name 'llama-3.1-8b-instruct'" in said
    assert said.endswith("nothing was written\n")
    assert [path.name for path in home.folder.iterdir()] == ["mlflow.db"]
    assert home.mlflow.read_bytes() == before
    assert server.answers == [(200, LLAMA)]  # the probe


def test_the_chat_template_that_the_server_needs_is_named(home, server):
    home.environment["RATCHET_CHAT_TEMPLATE"] = "hermes"
    said = home.adopted("--backend", server.url, "--dry-run")
    (line,) = [line for line in said.splitlines() if line.startswith("template ")]
    assert "hermes.jinja" in line
    assert "--chat-template" in line


def test_a_dry_run_in_a_home_tells_the_traffic_and_changes_no_row(home, server):
    home.record(LLAMA, 3)
    home.record("gpt-4o", 12)
    before = rows(home.path / "store.db")
    said = home.adopted("--backend", server.url, "--dry-run", "--also", "gpt-4o")
    assert f"3 answers recorded as {LLAMA}, " in said
    assert "12 answers recorded as gpt-4o, " in said
    assert "does not" not in said
    assert rows(home.path / "store.db") == before
    assert not (home.path / "home.json").exists()


@pytest.mark.slow
def test_a_dry_run_says_what_becomes_of_the_champion_before(home, server):
    home.adopted("--backend", server.url)
    assert f"champion   {LLAMA} already" in home.adopted("--dry-run")
    with VllmServer("org/b", others=[LLAMA]) as both:
        words = ("--backend", both.url, "--model", "org/b", "--dry-run")
        assert f"champion   org/b would be, {LLAMA} kept for rollback" in home.adopted(*words)
    with VllmServer("org/b") as other:
        words = ("--backend", other.url, "--dry-run")
        assert f"until now {LLAMA}, which the server does not list" in home.adopted(*words)
    assert serving_champion(home.store).version == LLAMA


@pytest.mark.slow
def test_a_first_adoption_names_the_assistant_and_remembers_the_backend(home, server):
    said = home.adopted("--backend", server.url, "--by", "ada")
    assert f"champion   {LLAMA}\n" in said
    assert home.remembered == {"backend": [server.url], "model_name": "llama-3.1-8b-instruct"}
    (release,) = home.store.records(Release)
    assert (release.action, release.champion, release.by) == ("adopt", LLAMA, "ada")
    assert home.tracker("llama-3.1-8b-instruct").champion().reference == LLAMA
    assert home.store.assistant == "llama-3.1-8b-instruct"
    # what the loop still needs, all of it, here and in status
    assert "the loop   waits for\n" in said
    wanted = [line[4:] for line in said.splitlines() if line.startswith("  - ")]
    assert [line.partition(":")[0] for line in wanted] == [
        "answers that no cycle had",
        "examples that both models answer at the gate",
        "a judge of pairs, since the policy is on win_rate",
        "a base model to train from",
    ]
    _, shown = home.ratchet("status", "--json")
    status = json.loads(shown)
    assert status["champion"] == LLAMA
    assert [line.partition(":")[0] for line in status["next_cycle_waits_for"]] == [
        line.partition(":")[0] for line in wanted
    ]


def test_the_backend_is_remembered_and_another_name_is_added_later(home, server):
    home.record("gpt-4o", 12)
    said = home.adopted("--backend", server.url)
    assert "12 answers recorded as gpt-4o" in said
    assert "does not; if it was the same model: ratchet adopt --also gpt-4o" in said
    said = home.adopted("--also", "gpt-4o")
    assert f"champion   {LLAMA}, as before" in said
    assert "gpt-4o, " in said
    assert "belongs to it" in said
    assert other_names(home.store, LLAMA) == ("gpt-4o",)
    assert len(home.store.records(Release)) == 1


@pytest.mark.mostly_slow("claimed")
@pytest.mark.parametrize("how", ["environment", "file", "claimed"])
def test_a_name_that_somebody_gave_the_assistant_stays(home, server, how):
    if how == "environment":
        home.environment["RATCHET_MODEL_NAME"] = "shop"
    elif how == "file":
        (home.folder / "ratchet.toml").write_text('model_name = "shop"\n')
    else:
        home.path.mkdir()
        EventStore.open(f"sqlite:///{home.path / 'store.db'}", assistant="support-router")
    home.adopted("--backend", server.url)
    name = "support-router" if how == "claimed" else "shop"
    assert home.remembered == {"backend": [server.url]}
    assert home.tracker(name).champion().reference == LLAMA


def test_a_name_that_is_somebody_elses_in_the_registry_is_not_taken(home, server):
    theirs = home.tracker("llama-3.1-8b-instruct")
    theirs.move_champion(theirs.register_base("theirs", "digest").reference, None)
    code, said = home.ratchet("adopt", "--backend", server.url)
    assert code == 2
    assert "set RATCHET_MODEL_NAME to another" in said
    assert not home.path.exists()
    assert theirs.champion().reference == "llama-3.1-8b-instruct/1"


def test_what_is_wrong_is_said_before_anything_is_written(home, server):
    for words, why in [
        ((), "got no address; name it by --backend"),
        (("--backend", "nonsense"), "--backend: "),
        (("--backend", server.url, "--model", "org/other"), f"they list {LLAMA}"),
        (("--backend", server.url, "--also", "champion"), "stands for a version of this home"),
        (("--backend", server.url, "--as", "m/1"), "--as must stand with --model"),
        (("--backend", server.url, "--as", "m/1", "--model", LLAMA), "needs a home folder"),
    ]:
        code, said = home.ratchet("adopt", *words)
        assert (code, why in said) == (2, True), said
    server.broken = {LLAMA}
    assert home.ratchet("adopt", "--backend", server.url)[0] == 2
    with VllmServer("org/other") as second:
        both = ("--backend", server.url, "--backend", second.url)
        assert "replicas must serve the same models" in home.ratchet("adopt", *both)[1]
    assert [path.name for path in home.folder.iterdir()] == ["mlflow.db"]


def test_a_key_goes_to_the_server_and_into_no_message(home, server):
    home.environment["RATCHET_BACKEND_KEY"] = "open-sesame"
    server.broken = {LLAMA}
    code, said = home.ratchet("adopt", "--backend", server.url)
    assert (code, "open-sesame" in said) == (2, False)


def test_a_version_of_the_home_gets_the_name_that_the_server_has(home, server):
    home.environment["RATCHET_MODEL_NAME"] = "shop"
    tracker = home.tracker("shop")
    version = tracker.register_base("tiny", "digest").reference
    home.path.mkdir()
    EventStore.open(f"sqlite:///{home.path / 'store.db'}", assistant="shop").append(
        Release(
            id="r", created_at=datetime.now(UTC), action="start", champion=version, previous=None
        )
    )
    words = ("--backend", server.url, "--as", version, "--model", LLAMA)
    assert "would ask the backend" in home.adopted(*words, "--dry-run")
    assert served_name(home.store, version) == version
    assert f"asked for shop/1 by the name {LLAMA}\n" in home.adopted(*words)
    assert served_name(home.store, version) == LLAMA
    assert "already" in home.adopted(*words)
    assert serving_champion(home.store).version == version
