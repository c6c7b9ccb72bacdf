import json
import shutil
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from typer.testing import CliRunner

from ratchet.cli import app
from ratchet.deploy.rollout.canary import act_on, start_rollout, take_look
from ratchet.deploy.routing import current_routing, running_rollout, running_test, switch
from ratchet.errors import InvalidInputError, NotAnsweringError
from ratchet.records import AliasMove, Release, RolloutStop, VariantTestEnd
from ratchet.store import EventStore
from ratchet.tracking import Tracker
from tests.deploy.rollout.served import NEW, NEW_VARIANT, OLD, PLAN, released, serve

HOUR = timedelta(hours=1)


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("RATCHET_STORE_URL", "MLFLOW_TRACKING_URI", "RATCHET_MODEL_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USER", "ann")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def kept(home):
    """A store in the home with a champion and its traffic up to now."""
    store = EventStore.open(f"sqlite:///{home / 'store.db'}")
    released(store, datetime.now(UTC))
    yield store
    store.close()


@pytest.fixture
def registry(home, mlflow_database):
    """A registry in the home with two versions, the second one champion."""
    (home / "mlflow").mkdir(parents=True)
    shutil.copyfile(mlflow_database, home / "mlflow" / "mlflow.db")
    tracker = Tracker(
        f"sqlite:///{home / 'mlflow' / 'mlflow.db'}", artifacts=home / "a",
        model_name="support-router",
    )  # fmt: skip
    for name in ("first", "second"):
        tracker.register_base(name, digest=name)
    tracker.move_champion(NEW, OLD)
    return tracker


def ratchet(*arguments):
    return CliRunner().invoke(app, list(arguments), catch_exceptions=True)


def refused(done):
    assert isinstance(done.exception, InvalidInputError), done.output
    return str(done.exception)


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(PLAN.model_dump(mode="json")))
    return path


def test_before_anything_was_rolled_out_it_says_so(home):
    assert ratchet("rollout", "status").output == "nothing was rolled out yet\n"
    assert json.loads(ratchet("rollout", "status", "--json").output) is None
    assert "got none" in refused(ratchet("rollout", "stop"))
    assert not home.exists()


def test_a_rollout_is_started_shown_and_stopped_for_good(kept, registry, plan):
    would = ratchet("rollout", "start", NEW, "--plan", str(plan), "--dry-run")
    assert f"nothing was changed; next: ratchet rollout start {NEW}" in would.output
    assert ratchet("rollout", "status").output == "nothing was rolled out yet\n"
    started = ratchet("rollout", "start", NEW, "--plan", str(plan))
    assert f"{NEW} gets 20% of users" in started.output
    assert "not watched: unsafe" in started.output
    assert running_rollout(kept).by == "ann"
    assert f"{NEW}, 20% of users, no look yet" in ratchet("status").output
    shown = ratchet("rollout", "status").output
    assert f"rollout of {NEW} against {OLD}: running" in shown
    assert "nothing was changed" in ratchet("rollout", "stop", "--dry-run").output
    stopped = ratchet("rollout", "stop", "--note", "it swears")
    assert f"everybody has {OLD}" in stopped.output
    shown = ratchet("rollout", "status").output
    assert "stopped by ann: it swears" in shown
    assert "final" in refused(ratchet("rollout", "start", NEW, "--plan", str(plan)))


def test_the_status_tells_the_looks_in_order(kept):
    now = datetime.now(UTC)
    rollout = start_rollout(kept, NEW_VARIANT, PLAN, now=now - 2 * HOUR)
    serve(
        kept, current_routing(kept), now - 2 * HOUR, hours=1.5, number=800,
        down={"challenger": 0.7},
    )  # fmt: skip
    look = take_look(kept, rollout, now)
    act_on(kept, look, now)
    lines = ratchet("rollout", "status").output.splitlines()
    assert lines[0] == f"rollout of {NEW} against {OLD}: aborted"
    assert "look 1: abort, everybody has the champion: harm: thumbs down" in lines[2]
    found = json.loads(ratchet("rollout", "status", "--json").output)
    assert (found["outcome"], found["look"]["decision"]) == ("aborted", "abort")


@pytest.mark.slow
def test_a_prompt_is_rolled_out_too(kept, plan, tmp_path):
    (tmp_path / "prompt.txt").write_text("be brief")
    ratchet("rollout", "start", OLD, "--prompt", str(tmp_path / "prompt.txt"), "--plan", str(plan))
    assert running_rollout(kept).challenger.system_prompt == "be brief"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: [{share: 2, hours: 1}]", "less than 1"),
        ("nonsense: 1", "nonsense"),
        ("[1", "must be YAML"),
        ("- 1", "must hold a mapping"),
    ],
)
def test_a_bad_plan_is_one_clear_error(kept, tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    assert message in refused(
        ratchet("rollout", "start", NEW, "--plan", str(tmp_path / "bad.yaml"))
    )
    assert running_rollout(kept) is None


def test_rollback_ends_a_rollout_first_and_then_replaces_the_champion(kept, registry):
    now = datetime.now(UTC)
    release = Release(id="p", created_at=now - HOUR, action="promote", champion=NEW, previous=OLD)
    switch(kept, release, by="test", told=True)
    third = NEW_VARIANT.model_copy(update={"version": "support-router/3"})
    rollout = start_rollout(kept, third, PLAN, now=now)
    would = ratchet("rollback", "--dry-run").output
    assert f"rollout would be stopped: support-router/3\nchampion would be {NEW}" in would
    assert running_rollout(kept) == rollout
    assert "rollout stopped: support-router/3" in ratchet("rollback").output
    assert kept.get(RolloutStop, rollout.id).person
    assert f"champion would be {OLD}" in ratchet("rollback", "--dry-run").output
    assert registry.champion().reference == NEW
    assert f"champion is now {OLD}" in ratchet("rollback").output
    assert registry.champion().reference == OLD


def test_status_lets_the_registry_catch_up(kept, registry):
    release = Release(
        id="p", created_at=datetime.now(UTC), action="rollback", champion=OLD, previous=None
    )
    switch(kept, release, by="test")
    assert "registry      moved" in ratchet("status").output
    assert registry.champion().reference == OLD
    assert json.loads(ratchet("status", "--json").output)["registry"] == "nothing to do"
    assert [move.done for move in kept.records(AliasMove)] == [False, True]


TEST = """
name: tone
variants:
  - {name: brief, version: support-router/1, share: 0.3, system_prompt: be brief}
  - {name: tuned, version: support-router/2, share: 0.3}
signals: [{name: thumbs_down, margin: 0.05, primary: true}]
imbalance: 2
"""


def test_what_does_not_exist_is_not_given_to_users(kept, registry, plan, tmp_path):
    asked = [
        ("rollout", "start", "support-router/77", "--plan", str(plan)),
        ("variants", "start", str(tmp_path / "test.yaml")),
    ]
    (tmp_path / "test.yaml").write_text(TEST.replace(NEW, "support-router/77"))
    for arguments in asked:
        done = ratchet(*arguments)
        assert isinstance(done.exception, NotAnsweringError)
        assert "got support-router/77" in str(done.exception)
        assert f"there are: {NEW}, {OLD}" in str(done.exception)
    assert running_rollout(kept) is None


def test_variants_are_started_read_drawn_and_ended(kept, registry, tmp_path):
    (tmp_path / "test.yaml").write_text(TEST)
    would = ratchet("variants", "start", str(tmp_path / "test.yaml"), "--dry-run").output
    assert "tone: brief 30%, tuned 30%, champion 40%" in would
    assert "compared: thumbs_down\nnothing was changed" in would
    assert running_test(kept) is None
    assert (
        "tone: brief 30%, tuned 30%, champion 40%"
        in ratchet("variants", "start", str(tmp_path / "test.yaml")).output
    )
    test = running_test(kept)
    serve(
        kept, current_routing(kept), test.created_at - 3 * HOUR, hours=2.5, number=10
    )  # before its start: not its own
    picture = tmp_path / "picture.png"
    read = ratchet("variants", "read", "--picture", str(picture))
    assert "# Test of variants: tone" in read.output
    assert "too few users" in read.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads(ratchet("variants", "read", "--json").output)["interactions"] == 0
    assert "a winner must be shown" in refused(ratchet("variants", "end", "--winner", "brief"))
    assert "a winner must be" in refused(
        ratchet("variants", "end", "--winner", "brief", "--dry-run")
    )
    would = ratchet("variants", "end", "--dry-run").output
    assert "everybody would have the champion\nnothing was changed" in would
    assert running_test(kept) == test
    assert "test would be ended: " in ratchet("rollback", "--dry-run").output
    assert running_test(kept) == test
    assert "everybody has the champion" in ratchet("variants", "end").output
    assert kept.get(VariantTestEnd, test.id).by == "ann"


def test_a_bad_test_file_is_one_clear_error(kept, tmp_path):
    (tmp_path / "test.yaml").write_text("name: tone\ncolour: red")
    assert "a file with name and variants" in refused(
        ratchet("variants", "start", str(tmp_path / "test.yaml"))
    )
    assert "started" in refused(ratchet("variants", "read"))
