import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ratchet.cli import app
from ratchet.errors import InvalidInputError, ModelError, SettingsError, TrackingError
from ratchet.records import (
    FEEDBACK_KINDS,
    Alert,
    AlertEvent,
    Analysis,
    Cycle,
    CycleEnd,
    Decision,
    Interaction,
    Message,
    Metric,
    Release,
    ReviewItem,
    SetAside,
    Thumbs,
    derive_id,
)
from ratchet.store import EventStore
from ratchet.store.cycles import end_cycle, open_cycle
from tests.cli.in_process import run_in_process

AT = datetime(2026, 11, 24, 9, tzinfo=UTC)
COMMAND = Path(sys.executable).with_name("ratchet")


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def ratchet(tmp_path, home):
    """Run the command in an empty folder."""
    return partial(
        run_in_process, folder=tmp_path, environment={"RATCHET_HOME": str(home), "COLUMNS": "100"}
    )


def refused(done):
    """Return the one message of a command that refused its input."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line.removeprefix("ratchet: ")


@pytest.mark.parametrize("arguments", [("--help",), ("status", "--json")])
def test_the_command_starts_at_once(arguments, tmp_path, made_store):
    """In the time of a bare Python that imports what it needs; nothing that takes seconds."""
    (tmp_path / "home").mkdir(mode=0o700)
    shutil.copyfile(made_store, tmp_path / "home" / "store.db")
    code = "import sys; from ratchet.cli import main; sys.argv = ['ratchet', *sys.argv[1:]]\n"
    code += "try:\n    main()\nfinally:\n    sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"RATCHET_HOME": str(tmp_path / "home")},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    slow = {"torch", "transformers", "mlflow", "prefect", "pandas", "pyarrow", "scipy", "sklearn"}
    assert slow & set(done.stderr.split()) == set()
    assert "sqlalchemy" in done.stderr or arguments == ("--help",)


@pytest.mark.mostly_slow("arguments1")
@pytest.mark.parametrize(
    ("arguments", "code", "printed", "said"),
    [
        (("status", "--json"), 0, '"champion": null', ""),
        (("rollback",), 2, "", "ratchet: a rollback needs a home folder with a store"),
        (("fly",), 2, "", "No such command 'fly'"),
    ],
)
def test_the_installed_command_ends_with_its_code_and_one_message(
    tmp_path, arguments, code, printed, said
):
    done = subprocess.run(
        [COMMAND, *arguments],
        cwd=tmp_path, env=os.environ | {"RATCHET_HOME": str(tmp_path / "home"), "COLUMNS": "100"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code
    assert printed in done.stdout
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_every_command(ratchet):
    text = ratchet("--help").stdout
    assert all(
        name in text for name in ("demo", "up", "status", "approve", "rollback", "--version")
    )


def test_version_prints_the_version():
    from ratchet import __version__

    assert CliRunner().invoke(app, ["--version"]).output == f"ratchet {__version__}\n"


def test_status_of_an_empty_home_is_empty_and_creates_nothing(ratchet, home):
    done = ratchet("status", "--json")
    found = json.loads(done.stdout)
    assert found["champion"] is found["previous"] is found["last_decision"] is None
    assert found["interactions"] == 0
    assert found["feedback"] == dict.fromkeys(FEEDBACK_KINDS, 0)
    assert "none yet" in ratchet("status").stdout
    assert not home.exists()


def decision():
    return Decision(
        id="d", cycle_id="c", created_at=AT, champion="support-router/1",
        challenger="support-router/2", verdict="promote", reasons=("better: by far",),
        primary_metric="exact_match", champion_value=0.1, challenger_value=0.8, difference=0.7,
        interval=(0.6, 0.8), p_value=1e-9, examples=300, example_set_id="e", policy={},
        evidence={},
    )  # fmt: skip


def fill(home):
    store = EventStore.open(f"sqlite:///{home / 'store.db'}")
    interaction = Interaction(
        id="i", session_id="s", user_id="u", created_at=AT, model_version="support-router/1",
        messages=(Message(role="user", content="where is it"),), response="delivery",
    )  # fmt: skip
    store.add_interactions([interaction])
    store.add_feedback([Thumbs(id="f", interaction_id="i", created_at=AT, value="up")])
    store.set_aside(
        [SetAside(id="x", created_at=AT, source="a", position="row 1", reason="bad", raw="?")]
    )
    cycle = Cycle(
        id="c", number=7, created_at=AT, champion="support-router/1", options_digest="o", seed=0,
        window_start=AT - timedelta(days=1), window_end=AT, example_set_id="e",
    )  # fmt: skip
    alert = Alert(
        id="a", created_at=AT, signal="thumbs_down_rate", severity="warning", value=0.3,
        model_version="support-router/1", lower=0.2, threshold=0.15, observations=50,
        message="too many thumbs down", action="read them",
    )  # fmt: skip
    analysis = Analysis(
        id="n", cycle_id="c", created_at=AT, model_version="support-router/1", metrics=(),
        alerts=(alert,), clusters=(),
    )  # fmt: skip
    release = Release(
        id="r", created_at=AT, action="promote", champion="support-router/2",
        previous="support-router/1", decision_id="d",
    )  # fmt: skip
    for record in (cycle, analysis, decision(), release):
        store.append(record)
    return store


def test_status_shows_what_is_in_the_store(home, monkeypatch):
    monkeypatch.setenv("RATCHET_HOME", str(home))
    store = fill(home)
    found = json.loads(CliRunner().invoke(app, ["status", "--json"]).output)
    assert (found["champion"], found["previous"]) == ("support-router/2", "support-router/1")
    assert (found["interactions"], found["set_aside"], found["feedback"]["thumbs"]) == (1, 1, 1)
    assert found["last_decision"]["verdict"] == "promote"
    assert found["last_decision"]["reasons"] == ["better: by far"]
    assert found["cycle"] == {"number": 7, "state": "running"}
    assert [alert["signal"] for alert in found["alerts"]] == ["thumbs_down_rate"]
    store.append(CycleEnd(id="c", created_at=AT, outcome="finished"))
    text = CliRunner().invoke(app, ["status"]).output
    for fact in (
        "champion      support-router/2",
        "promote support-router/2",
        "better: by far",
        "7 (finished)",
        "1 thumbs",
        "warning: too many thumbs down read them",
    ):
        assert fact in text
    store.close()


def test_status_says_what_answers_took_and_cost_as_far_as_it_is_known(home, monkeypatch):
    monkeypatch.setenv("RATCHET_HOME", str(home))
    store = fill(home)
    assert "answers  " not in CliRunner().invoke(app, ["status"]).output
    metrics = (
        Metric(name="cost", value=None, observations=0, unit="cost", reason="no price"),
        Metric(name="quality", value=0.5, observations=9, unit="score"),
        Metric(name="task_completion", value=0.75, observations=4, unit="share"),
        Metric(name="tokens_out", value=1234.5, observations=9, unit="tokens"),
    )
    told = store.latest(Analysis).model_copy(update={"id": "m", "metrics": metrics})
    store.append(told)
    known = {"tokens_out": 1234.5, "task_completion": 0.75}
    found = json.loads(CliRunner().invoke(app, ["status", "--json"]).output)
    assert found["answers"] == {"version": "support-router/1", "metrics": known}
    text = CliRunner().invoke(app, ["status"]).output
    assert "answers       support-router/1: tokens_out 1234, task_completion 0.75\n" in text
    store.close()


def test_status_and_approve_show_a_promotion_that_waits_for_a_person(home, monkeypatch):
    monkeypatch.setenv("RATCHET_HOME", str(home))
    store = fill(home)
    assert CliRunner().invoke(app, ["approve"]).output.strip() == "no promotion waits for approval"
    late = datetime.now(UTC) + timedelta(hours=1)
    waits = {"id": "waits", "approval": "the policy asks", "expires_at": late}
    store.append(decision().model_copy(update=waits))
    assert json.loads(CliRunner().invoke(app, ["status", "--json"]).output)["waiting"] == ["waits"]
    assert "ratchet approve waits" in CliRunner().invoke(app, ["status"]).output
    assert "the policy asks" in CliRunner().invoke(app, ["approve"]).output
    for words, expected in (
        (("waits",), "neither --approve nor --reject"),
        (("waits", "--approve", "--by", "ann"), "who and why"),
        (("nothing", "--approve", "--by", "ann", "--reason", "x"), "there are: d, waits"),
        (("d", "--reject", "--by", "ann", "--reason", "x"), "nobody has to approve"),
    ):
        done = CliRunner().invoke(app, ["approve", *words])
        assert expected in str(done.exception)
    store.close()


def alert_event(alert_id, change="opened", minutes=0, **changes):
    """A step in the life of an alert."""
    return AlertEvent(
        id=f"{alert_id}:{minutes}", alert_id=alert_id, created_at=AT + timedelta(minutes=minutes),
        change=change, kind="board", severity="critical", model_version="support-router/2",
        signal="thumbs_down", value=0.31, lower=0.27, upper=0.35, expected=0.12, observations=481,
        certainty=f"sure of {alert_id}", message=f"message of {alert_id}",
        action=f"do what {alert_id} asks for",
    ).model_copy(update=changes)  # fmt: skip


FIRST, SECOND, SETTLED = "11111111-aaaa", "22222222-bbbb", "22222233-cccc"


@pytest.fixture
def alerts(home, monkeypatch):
    """Run `ratchet alerts` on a home with two open alerts and one that is resolved."""
    monkeypatch.setenv("RATCHET_HOME", str(home))
    monkeypatch.setenv("USER", "ada")
    with closing(EventStore.open(f"sqlite:///{home / 'store.db'}")) as store:
        for event in (
            alert_event(FIRST),
            alert_event(SECOND, minutes=1, severity="warning"),
            alert_event(SETTLED, minutes=2),
            alert_event(SETTLED, "resolved", 3),
            alert_event(SECOND, "updated", 4, severity="warning"),
        ):
            store.append(event)

    def run(*arguments):
        done = CliRunner().invoke(app, ["alerts", *arguments])
        assert done.exit_code == 0, done.output
        return done.output

    return run


def stored_events(home):
    with closing(EventStore.open(f"sqlite:///{home / 'store.db'}")) as store:
        return store.records(AlertEvent)


def in_status(*names):
    found = json.loads(CliRunner().invoke(app, ["status", "--json"]).output)["alerts"]
    return [tuple(alert[name] for name in names) for alert in found]


def test_status_and_alerts_show_the_same_alerts(alerts):
    listed = [(one["alert_id"], one["message"]) for one in json.loads(alerts("--json"))]
    assert in_status("alert_id", "message") == listed
    assert [one for one, _ in listed] == [FIRST, SECOND]
    text = CliRunner().invoke(app, ["status"]).output
    assert f"critical: message of {FIRST} do what {FIRST} asks for" in text
    alerts("--resolve", FIRST)
    assert in_status("alert_id") == [(SECOND,)]


def test_an_alert_of_the_latest_analysis_is_in_both_until_a_person_settles_it(home, monkeypatch):
    monkeypatch.setenv("RATCHET_HOME", str(home))
    fill(home).close()

    def listed():
        found = json.loads(CliRunner().invoke(app, ["alerts", "--json"]).output)
        return [(one["id"], one["signal"], one["expected"]) for one in found]

    expected = [("a", "thumbs_down_rate", 0.15)]
    assert in_status("id", "signal", "threshold") == listed() == expected
    words = ["alerts", "--resolve", "a", "--by", "grace", "--note", "a campaign"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert in_status("id") == listed() == []
    (kept,) = stored_events(home)
    assert (kept.alert_id, kept.change, kept.by) == ("a", "resolved", "grace")


@pytest.mark.parametrize(
    ("change", "minutes", "ids"),
    [
        ("opened", -60, ["watched"]),  # monitoring opened it, before the analysis or after
        ("opened", 60, ["watched"]),
        ("resolved", 60, []),
        ("resolved", -60, ["a"]),  # it came back
    ],
)
def test_an_alert_that_monitoring_looks_after_is_not_shown_twice(
    home, monkeypatch, change, minutes, ids
):
    monkeypatch.setenv("RATCHET_HOME", str(home))
    store = fill(home)
    same = {"kind": "threshold", "model_version": "support-router/1", "signal": "thumbs_down_rate"}
    store.append(alert_event("watched", change, minutes, **same))
    other = same | {"model_version": "support-router/2"}
    store.append(alert_event("other", "resolved", 90, **other))
    store.close()
    assert in_status("alert_id") == [(key,) for key in ids]


def test_alerts_of_an_empty_home_are_none_and_nothing_is_created(ratchet, home):
    done = ratchet("alerts")
    assert (done.returncode, done.stdout) == (0, "no open alerts\n")
    assert json.loads(ratchet("alerts", "--json").stdout) == []
    assert not home.exists()


def test_open_alerts_are_listed_with_what_how_sure_and_what_to_do(alerts):
    assert alerts().splitlines() == [
        "11111111  critical, opened 2026-11-24 09:00 UTC",
        f"          message of {FIRST}",
        f"          how sure: sure of {FIRST}",
        f"          what to do: do what {FIRST} asks for",
        "22222222  warning, updated 2026-11-24 09:04 UTC",
        f"          message of {SECOND}",
        f"          how sure: sure of {SECOND}",
        f"          what to do: do what {SECOND} asks for",
    ]


def test_resolved_alerts_are_listed_when_asked_for(alerts):
    found = json.loads(alerts("--json", "--all"))
    assert [(event["alert_id"], event["change"]) for event in found] == [
        (FIRST, "opened"), (SECOND, "updated"), (SETTLED, "resolved")
    ]  # fmt: skip
    printed = alerts("--all")
    assert f"message of {SETTLED}" in printed
    assert f"what to do: do what {FIRST} asks for" in printed
    assert f"do what {SETTLED} asks for" not in printed


def test_alerts_as_json_are_the_stored_events(alerts, home):
    latest = {event.alert_id: event.canonical() for event in stored_events(home)}
    assert json.loads(alerts("--json")) == [latest[FIRST], latest[SECOND]]


def test_an_alert_is_acknowledged_by_the_start_of_its_id_and_stays_open(alerts, home):
    printed = alerts("--acknowledge", "11111111", "--by", "grace", "--note", "looking at it")
    assert "11111111  critical, acknowledged by grace 2" in printed
    assert "note: looking at it" in printed
    event = stored_events(home)[-1]
    assert (event.alert_id, event.change) == (FIRST, "acknowledged")
    assert (event.by, event.note) == ("grace", "looking at it")
    assert event.created_at > AT
    assert event.message == f"message of {FIRST}"


def test_an_alert_is_resolved_by_hand_and_listed_no_more(alerts, home):
    printed = alerts("--resolve", SECOND)
    assert "22222222" not in printed
    assert "11111111" in printed
    event = stored_events(home)[-1]
    assert (event.alert_id, event.change, event.by) == (SECOND, "resolved", "ada")
    assert alerts("--resolve", FIRST) == "no open alerts\n"


@pytest.mark.parametrize("option", ["--acknowledge", "--resolve"])
@pytest.mark.parametrize("key", ["99999999", SETTLED, "", "11111111-aaaa-x"])
def test_an_id_that_names_no_open_alert_is_refused(alerts, ratchet, home, option, key):
    before = stored_events(home)
    message = refused(ratchet("alerts", option, key))
    assert "an alert id must name one open alert" in message
    assert f"got {key!r}, which names 0;" in message
    assert stored_events(home) == before


def test_an_id_that_names_two_open_alerts_is_refused(alerts, ratchet, home):
    with closing(EventStore.open(f"sqlite:///{home / 'store.db'}")) as store:
        store.append(alert_event("22222299-dddd", minutes=9))
    assert "which names 2;" in refused(ratchet("alerts", "--resolve", "222222"))


def test_one_call_does_not_acknowledge_and_resolve(alerts, ratchet, home):
    before = stored_events(home)
    assert "got both; run the command once for each" in refused(
        ratchet("alerts", "--acknowledge", FIRST, "--resolve", SECOND)
    )
    assert stored_events(home) == before


@pytest.mark.parametrize("option", ["--acknowledge", "--resolve"])
def test_an_alert_of_an_empty_home_is_refused_and_creates_nothing(ratchet, home, option):
    assert "an alert id must name one open alert" in refused(ratchet("alerts", option, FIRST))
    assert not home.exists()


def test_hostile_words_of_an_alert_do_not_steer_the_terminal(alerts, home):
    with closing(EventStore.open(f"sqlite:///{home / 'store.db'}")) as store:
        store.append(alert_event("33333333", minutes=9, message="\x1b[2J\x07gone\nopen"))
    printed = alerts()
    assert all(character.isprintable() for character in printed.replace("\n", ""))
    assert len(printed.splitlines()) == 12


def test_hostile_words_do_not_steer_the_terminal_of_timeline_and_review(home, monkeypatch):
    monkeypatch.setenv("RATCHET_HOME", str(home))
    now, hostile = datetime.now(UTC), "\x1b[2J\x07gone"
    with closing(EventStore.open(f"sqlite:///{home / 'store.db'}")) as store:
        fill(home).close()
        store.append(alert_event(FIRST, message=hostile, action=hostile, created_at=now))
        store.append(
            ReviewItem(
                id="r", created_at=now, interaction_id="i", dimension="safety", priority="safety",
                raised_by="rule", why=hostile,
            )
        )  # fmt: skip
    for command in ("timeline", "review"):
        printed = CliRunner().invoke(app, [command]).output
        assert "gone" in printed
        assert all(character.isprintable() for character in printed.replace("\n", ""))


def test_review_shows_what_the_client_said_with_the_question(home, ratchet):
    with closing(EventStore.open(f"sqlite:///{home / 'store.db'}")) as store:
        said = {"prompt_version": "support@14", "tags": "beta", "ticket": "A-17"}
        store.add_interactions(
            [
                Interaction(
                    id=key, session_id="s", user_id="u", created_at=AT, model_version="m/1",
                    messages=(Message(role="user", content="hello"),), response="hi",
                    metadata=metadata,
                )
                for key, metadata in (("i", said), ("j", {}))
            ]
        )  # fmt: skip
        for key in "ij":
            store.append(
                ReviewItem(
                    id=f"r{key}", created_at=AT, dimension="safety", interaction_id=key,
                    priority="safety", raised_by="rule", why="seen",
                )
            )  # fmt: skip
    listed = ratchet("review").stdout
    assert listed.count("said:") == 1
    assert "said:   prompt_version support@14, tags beta\n" in listed


@pytest.mark.slow
def test_a_flood_of_flags_of_one_rule_is_listed_as_its_first_few_and_how_many_more(home, ratchet):
    with closing(EventStore.open(f"sqlite:///{home / 'store.db'}")) as store:
        raised = [("flood", number) for number in range(1_204)] + [("other", 0)]
        for rule, number in raised:
            store.append(
                ReviewItem(
                    id=derive_id("review", rule, number), created_at=AT, dimension="harmlessness",
                    interaction_id=f"{rule}-{number}", priority="safety", raised_by=rule,
                    why=f"privacy: seen by {rule}",
                )
            )  # fmt: skip
    listed = ratchet("review").stdout
    assert listed.startswith("1,205 waiting\n")
    assert listed.count("seen by flood") == 5
    assert listed.count("and 1,199 more like it") == listed.count("more like it") == 1
    assert listed.count("seen by other") == 1
    assert len(json.loads(ratchet("review", "--json").stdout)) == 1_205  # whole, for a program


@pytest.mark.parametrize("exists", [False, True])
def test_a_rollback_in_an_empty_home_is_refused_and_creates_nothing(ratchet, home, exists):
    if exists:
        home.mkdir()
    assert "rollback needs a home folder with a store" in refused(ratchet("rollback"))
    assert list(home.glob("*")) == []


def test_a_rollback_with_nothing_promoted_is_refused(home, ratchet, mlflow_database):
    EventStore.open(f"sqlite:///{home / 'store.db'}").close()
    (home / "mlflow").mkdir()
    (home / "mlflow" / "mlflow.db").write_bytes(mlflow_database.read_bytes())
    assert "needs a version with the alias 'previous'" in refused(ratchet("rollback"))


BAD_FILES = {
    "absent.csv": (None, "must be a readable file"),
    "unlabelled.csv": (b"text,colour\nhello,red\n", "got none named label among 'text', 'colour'"),
    "empty.csv": (b"", "the file is empty"),
    "header.csv": (b"text,label\n", "below its header, got no row"),
    "latin1.csv": ("text,label\ngrün,größe\nschön,größe\n".encode("latin-1"), "must be UTF-8"),
    "one_label.csv": (b"text,label\nhello,a\nbye,a\n", "between 2 and 16 distinct labels"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_demo_on_a_bad_file_is_refused_before_anything_starts(ratchet, home, tmp_path, name):
    content, reason = BAD_FILES[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    message = refused(ratchet("demo", "--messages", name))
    assert reason in message
    assert not home.exists()


def test_a_demo_among_real_users_is_refused_before_anything_starts(home, ratchet):
    store = EventStore.open(f"sqlite:///{home / 'store.db'}")
    about = {"id": "i", "session_id": "s", "user_id": "u", "model_version": "m/1"}
    asked = Message(role="user", content="hello")
    store.add_interactions([Interaction(**about, created_at=AT, messages=(asked,), response="yes")])
    store.close()
    assert "set RATCHET_HOME to another folder" in refused(ratchet("demo"))
    assert not (home / "prefect").exists()
    found = json.loads(ratchet("status", "--json").stdout)
    assert (found["interactions"], found["simulated"], found["next_cycle"]) == (1, 0, None)


def test_status_says_what_the_nightly_loop_waits_for_and_counts_simulated_users(home, ratchet):
    assert "next cycle    waits for interactions of real users" in ratchet("status").stdout
    store = EventStore.open(f"sqlite:///{home / 'store.db'}")
    about = {"id": "i", "session_id": "s", "user_id": "u", "model_version": "m/1"}
    asked = Message(role="user", content="hello")
    with store.simulating():
        store.add_interactions(
            [Interaction(**about, created_at=AT, messages=(asked,), response="yes")]
        )
    said = ratchet("status").stdout
    assert "interactions  1 (1 of simulated users)" in said
    assert "waits for interactions of real users" not in said  # a demonstration that goes on
    cycle = open_cycle(
        store, champion="m/1", options_digest="o", seed=0, example_set_id="e",
        now=AT + timedelta(hours=1),
    )  # fmt: skip
    end_cycle(store, cycle, "finished", AT + timedelta(hours=1))
    store.close()
    assert "next cycle    waits for interactions of real users" in ratchet("status").stdout


def test_a_queue_table_without_messages_is_refused(ratchet, home, tmp_path):
    (tmp_path / "queues.csv").write_text("label,queue\na,b\n")
    assert "--queues needs --messages" in refused(ratchet("demo", "--queues", "queues.csv"))
    assert "--instruction needs --messages" in refused(ratchet("demo", "--instruction", "Do."))
    assert not home.exists()


@pytest.mark.parametrize(
    ("toml", "reason"),
    [("colour = 'red'\n", "setting 'colour'"), ("home = [", "must be TOML in UTF-8")],
)
@pytest.mark.parametrize("command", ["status", "alerts", "rollback", "demo", "up"])
def test_a_bad_settings_file_is_refused_by_every_command(ratchet, tmp_path, command, toml, reason):
    (tmp_path / "ratchet.toml").write_text(toml)
    assert reason in refused(ratchet(command))


ON_A_HOME = [
    ("status",), ("status", "--json"), ("alerts",), ("rollback",), ("ingest", "events.jsonl"),
    ("timeline",), ("review",), ("set-aside",), ("approve",), ("forget", "u"), ("keys", "list"),
    ("keys", "create", "shop"), ("rollout", "status"), ("rollout", "start", "m/1"),
    ("variants", "read"), ("judge", "list"), ("judge", "label", "labels.jsonl"), ("demo",), ("up",),
    ("serve", "--port", "0"), ("history",),
]  # fmt: skip


@pytest.mark.mostly_slow("RATCHET_HOME")
@pytest.mark.parametrize("variable", ["RATCHET_HOME", "RATCHET_CACHE"])
@pytest.mark.parametrize("below", ["", "/deep/down"])
@pytest.mark.parametrize("arguments", ON_A_HOME)
def test_a_folder_that_cannot_be_one_is_the_same_clear_error_everywhere(
    tmp_path, monkeypatch, variable, below, arguments
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    (tmp_path / "file").write_text("kept")
    monkeypatch.setenv(variable, f"file{below}")
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, SettingsError), done.output
    assert re.search(rf"a file at \S+/file; set {variable} to", str(done.exception))
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mysql://ada:open-sesame@db/x", "one that starts with 'mysql'"),
        ("nonsense", "one that starts with 'nonsense'"),
        ("sqlite+nope:///x.db", "sqlalchemy.dialects:sqlite.nope"),
        ("postgresql+nope://ada:open-sesame@db/x", "postgresql.nope"),
        ("sqlite:///file/x.db", "Not a directory|File exists"),
    ],
)
def test_a_store_that_does_not_exist_is_one_clear_error(tmp_path, monkeypatch, url, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "events.jsonl").write_text("")
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RATCHET_STORE_URL", url)
    for words in (["ingest", "events.jsonl"], ["keys", "list"]):
        done = CliRunner().invoke(app, words)
        assert isinstance(done.exception, InvalidInputError), done.output
        assert re.search(expected, str(done.exception))
        assert "open-sesame" not in str(done.exception)


@pytest.mark.parametrize(
    "uri",
    ["nonsense", "ftp://ada:open-sesame@x", "foo://bar", "sqlite+nope:///x", "sqlite:///file/x.db"],
)
def test_an_mlflow_that_does_not_exist_is_one_clear_error(tmp_path, monkeypatch, uri):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    fill(tmp_path / "home").close()
    done = CliRunner().invoke(app, ["rollback"])
    assert isinstance(done.exception, TrackingError), done.output
    assert "; set MLFLOW_TRACKING_URI" in str(done.exception)
    assert "open-sesame" not in str(done.exception)


@pytest.mark.parametrize("option", ["--backend", "--fallback"])
@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("localhost:8000", "with its scheme, such as http://localhost:8000, got 'localhost:8000'"),
        ("http://ada:open-sesame@host", "must hold no password"),
        ("ftp://host", "must be an http or https address"),
    ],
)
def test_a_gateway_is_not_started_in_front_of_what_is_no_address(
    tmp_path, monkeypatch, option, url, expected
):
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    done = CliRunner().invoke(app, ["serve", "--port", "0", option, url])
    assert isinstance(done.exception, InvalidInputError)
    assert expected in str(done.exception)
    assert "open-sesame" not in str(done.exception)
    assert not (tmp_path / "home").exists()


def test_a_gateway_is_not_started_with_a_key_that_no_header_carries(tmp_path, monkeypatch):
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RATCHET_BACKEND_KEY", "open sesame")
    done = CliRunner().invoke(app, ["serve", "--port", "0", "--backend", "http://127.0.0.1:1"])
    assert isinstance(done.exception, ModelError)
    assert "check RATCHET_BACKEND_KEY" in str(done.exception)
    assert "sesame" not in str(done.exception)


@pytest.mark.parametrize(
    "arguments", [("demo", "--seed", "-1"), ("demo", "--messages-limit", "0"), ("fly",)]
)
def test_a_wrong_option_is_refused_without_a_traceback(ratchet, home, arguments):
    done = ratchet(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert not home.exists()
