"""`ratchet judge`, each command as people run it: by its entry point, in an empty folder."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from ratchet.cli import app
from ratchet.records import Figure, HumanLabel, JudgeValidation
from ratchet.store import EventStore
from tests.cli.in_process import run_main
from tests.servers.judge_endpoint import Answer, JudgeEndpoint

ROOT = Path(__file__).parents[2]
COLUMNS = "human=label,judge=orig,judge_swapped=swapped"
AT = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def judge(tmp_path, home, monkeypatch, capsys):
    """Run `ratchet judge` by its entry point, in an empty folder."""
    for name in [k for k in os.environ if k.startswith(("RATCHET_", "MLFLOW_", "PREFECT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RATCHET_HOME", str(home))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)

    def run(*arguments, code=0):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["ratchet", "judge", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            run_main()
        said = capsys.readouterr()
        logging.getLogger("ratchet").handlers.clear()  # they write to what was captured
        assert ended.value.code == code, said.err
        return SimpleNamespace(stdout=said.out, stderr=said.err)

    yield run
    logging.getLogger("ratchet").handlers.clear()


def refused(done):
    """Return the one message of a command that refused its input."""
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line.removeprefix("ratchet: ")


def strict(text):
    """Read JSON, and refuse NaN and infinities, which standard JSON does not have."""

    def not_standard(name):
        raise AssertionError(f"{name} is no standard JSON")

    return json.loads(text, parse_constant=not_standard)


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def labelled(agreeing, disagreeing, **fields):
    human = [n % 2 + 1 for n in range(agreeing + disagreeing)]
    return [
        {"item_id": n, "human": h, "judge": h if n < agreeing else 3 - h} | fields
        for n, h in enumerate(human)
    ]


# Validate -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_all_runs_of_llmbar_go_through_in_one_command(judge, home, shared_data):
    path = shared_data / "llmbar" / "judge_verdicts.jsonl"
    found = strict(judge("validate", path, "--columns", COLUMNS, "--json").stdout)
    assert len(found["runs"]) == 349
    assert (found["set_aside"], found["unused_fields"]) == ([], [])
    for run in found["runs"]:
        assert run["decision"] in ("usable", "not usable", "not enough labels")
        assert run["reasons"]
        for name in ("accuracy_first_order", "accuracy_second_order", "consistency"):
            assert 0.0 <= run["figures"][name]["value"] <= 1.0
        low, high = run["kappa"]["interval"]
        assert low <= run["kappa"]["value"] <= high
    runs = {run["run"]: run for run in found["runs"]}
    assert len(runs) == 349
    strongest = max(runs.values(), key=lambda run: run["kappa"]["lower_bound"])
    assert strongest["run"].startswith("Natural · GPT-4 · ")
    assert strongest["usable"] is True
    wrong = runs["Adversarial_Neighbor · LLaMA2 · Vanilla_NoRules"]
    assert wrong["figures"]["consistency"]["value"] > 0.8
    assert wrong["figures"]["agreement_of_all"]["value"] < 0.5
    assert wrong["decision"] == "not usable"
    text = judge("validate", path, "--columns", COLUMNS).stdout.splitlines()
    assert len(text) == 1 + 349 + 2
    counts = {d: sum(r["decision"] == d for r in runs.values()) for d in
              ("usable", "not usable", "not enough labels")}  # fmt: skip
    assert text[350] == "349 runs: " + ", ".join(
        f"{counts[d]} {d}" for d in ("not usable", "not enough labels", "usable")
    )
    assert not home.exists()


def test_the_mislabelled_columns_of_llmbar_are_refused(judge, tmp_path, shared_data):
    """Its own statistics compare labels 1 and 2 with 0 and 1."""
    source = (shared_data / "llmbar" / "judge_verdicts.jsonl").read_text("utf-8").splitlines()
    rows = []
    for line in source[:3]:
        row = json.loads(line)
        for name in ("orig", "swapped"):
            row[name] = [None if value is None else int(value) - 1 for value in row[name]]
        rows.append(row)
    path = tmp_path / "shifted.jsonl"
    for content in (rows[:1], rows):
        path.write_text(lines(*content))
        for options in ((), ("--json",)):
            done = judge("validate", path, "--columns", COLUMNS, *options, code=2)
            assert refused(done) == (
                "judge and people must use one set of labels, got 0, 1 and 1, 2; recode one of "
                "them, or name the categories if they belong to one scale"
            )


def test_one_refused_run_among_others_is_named_and_the_others_are_validated(judge, tmp_path):
    path = tmp_path / "labels.jsonl"
    bad = [{"item_id": n, "human": n % 2 + 1, "judge": n % 2, "run": "bad"} for n in range(40)]
    path.write_text(lines(*labelled(39, 1, run="good"), *bad))
    found = strict(judge("validate", path, "--json").stdout)
    assert [(run["run"], run["decision"]) for run in found["runs"]] == [
        ("good", "usable"), ("bad", "refused"),
    ]  # fmt: skip
    assert "one set of labels" in found["runs"][1]["error"]
    assert "bad" in judge("validate", path).stdout


def test_one_run_is_the_report_itself(judge, tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text(lines(*labelled(17 * 2, 6), {"human": 1}, {"human": 1, "judge": None}))
    found = strict(judge("validate", path, "--json").stdout)
    # 34 of 40 and even labels: kappa (0.85 - 0.5) / 0.5
    assert found["kappa"]["value"] == pytest.approx(0.7, abs=0.001)
    assert (found["decision"], found["items"]) == ("not enough labels", 40)
    assert found["runs"][0]["more_labels"] == found["more_labels"] > 0
    assert found["unscored"] == {"no verdict": 1}
    assert [row["line"] for row in found["set_aside"]] == [41]
    text = judge("validate", path).stdout
    assert text.startswith("not enough labels\n")
    assert "set aside: 1 row\n  set aside, line 41: a row must hold judge" in text


def test_options_reach_the_validation(judge, tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text(lines(*labelled(34, 6)))

    def decided(*options):
        return strict(judge("validate", path, "--json", *options).stdout)

    assert decided("--kappa", "0.4")["decision"] == "usable"
    assert decided("--agreement", "0.99")["decision"] == "not usable"
    menu = decided("--categories", "2, 1, 0", "--weights", "linear")
    assert menu["categories"] == ["2", "1", "0"]
    assert decided("--seed", "4")["decision"] == "not enough labels"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--weights", "cubic"), "--weights must be linear or quadratic, got 'cubic'"),
        (("--columns", "human"), "--columns must be name=field,..., got 'human'"),
        (("--columns", "juror=judge"), "columns may be given for human, judge,"),
        (("--categories", "1,3"), "labels must be among 1, 3, got 2; recode"),
        (("--categories", "1,2,1"), "each category must be named once"),
    ],
)
def test_a_wrong_option_is_one_message_and_exit_code_2(judge, tmp_path, arguments, message):
    path = tmp_path / "labels.jsonl"
    path.write_text(lines(*labelled(34, 6)))
    assert refused(judge("validate", path, *arguments, code=2)).startswith(message)


@pytest.mark.parametrize("option", ["--kappa", "--agreement", "--consistency"])
def test_a_bar_outside_its_range_is_refused_by_the_option(judge, tmp_path, option):
    done = judge("validate", tmp_path / "labels.jsonl", option, "1.5", code=2)
    assert option in done.stderr


GARBAGE = {
    "empty": b"",
    "binary": bytes(range(256)) * 40,
    "a table": b"item_id,human,judge\n1,a,b\n",
    "a long line": b'{"human": "' + b"x" * 1_000_000,
}


@pytest.mark.parametrize("what", [*GARBAGE, "missing", "a folder"])
@pytest.mark.parametrize("command", ["validate", "label", "run"])
def test_a_file_that_holds_nothing_usable_is_refused_by_its_name(judge, tmp_path, command, what):
    path = tmp_path / "rows.jsonl"
    if what == "a folder":
        path.mkdir()
    elif what != "missing":
        path.write_bytes(GARBAGE[what])
    judges = tmp_path / "judges.yaml"
    judges.write_text("judges: [{name: j, endpoint: {url: 'http://127.0.0.1:9', model: m}}]\n")
    arguments = (judges, path) if command == "run" else (path,)
    message = refused(judge(command, *arguments, code=2))
    assert "rows.jsonl" in message
    assert len(message) < 500


# Run ----------------------------------------------------------------------------------------------


def reads_the_answer(seen):
    return Answer(text=json.dumps({"verdict": "right" if "a town" in seen.text else "wrong"}))


JUDGES = """
dimensions:
  - name: fact
    question: Is the answer right?
    options:
      - {{name: right, score: 1, means: it is}}
      - {{name: wrong, score: 0, means: it is not}}
judges:
  - name: careful
    dimension: fact
    endpoint: {{url: "{url}", model: big}}
  - name: lenient
    dimension: fact
    endpoint: {{url: "{url}", model: nice}}
"""


def test_judges_are_run_on_a_file_once_and_their_report_is_json(judge, home, tmp_path):
    def behaviour(seen):
        if seen.body["model"] == "nice":
            return Answer(text='{"verdict": "right"}')
        return reads_the_answer(seen)

    rows = [
        {"item_id": f"i{n}", "prompt": f"q{n}", "answer": f"{n}: a {'town' if n % 2 else 'fish'}",
         "human": "right" if n % 2 else "wrong"} for n in range(40)
    ]  # fmt: skip
    items = tmp_path / "items.jsonl"
    items.write_text(lines(*rows, {"prompt": "q"}))
    with JudgeEndpoint(behaviour) as server:
        (tmp_path / "judges.yaml").write_text(JUDGES.format(url=server.url))
        first = strict(judge("run", "judges.yaml", items, "--json").stdout)
        asked = sum(server.hits.values())
        again = strict(judge("run", "judges.yaml", items, "--json").stdout)
        plain = judge("run", "judges.yaml", items, "--no-probes").stdout
        assert sum(server.hits.values()) == asked == 2 * 4 * 40
    assert [(r["judge"], r["validation"]["decision"]) for r in first] == [
        ("careful", "usable"), ("lenient", "not usable"),
    ]  # fmt: skip
    assert [r["recorded_before"] for r in again] == [40, 40]
    assert [r["asked"] for r in again] == [0, 0]
    assert [row["line"] for row in first[0]["set_aside"]] == [41]
    probes = {"authority_uplift", "injection_uplift", "shielded_injection_uplift"}
    assert set(first[0]["probes"]) == probes
    assert "careful: usable" in plain
    assert "lenient: not usable" in plain
    assert "uplift" not in plain
    with closing(EventStore.open(f"sqlite:///{home / 'store.db'}")) as store:
        assert store.counts()["judge_score"] == 0  # a file's verdicts are no feedback
        assert len(store.verdicts_of(first[0]["judge_version"])) == 4 * 40


def test_bad_judges_are_refused_before_anything_is_created(judge, home, tmp_path):
    (tmp_path / "judges.yaml").write_text("judges: [{name: j}]\n")
    message = refused(judge("run", "judges.yaml", "items.jsonl", code=2))
    assert message.startswith("judges.yaml: judges.0: judge 'j' needs one of endpoint and local")
    assert not home.exists()


# Labels and the list ------------------------------------------------------------------------------


def test_labels_are_imported_once_and_bad_rows_are_told(judge, home, tmp_path):
    row = {"item_id": "i1", "dimension": "fact", "label": "right", "reviewer": "ann"}
    (tmp_path / "labels.jsonl").write_text(lines(row, {**row, "item_id": "i2"}, {"item_id": "i3"}))
    (tmp_path / "judges.yaml").write_text(JUDGES.format(url="http://127.0.0.1:9"))
    arguments = ("label", "labels.jsonl", "--judges", "judges.yaml")
    first, again = (judge(*arguments).stdout.splitlines() for _ in range(2))
    assert first[0] == "2 labels stored, 0 were there before"
    assert again[0] == "0 labels stored, 2 were there before"
    assert first[1].startswith("set aside, line 3: ")
    with closing(EventStore.open(f"sqlite:///{home / 'store.db'}")) as store:
        assert [label.item_id for label in store.records(HumanLabel)] == ["i1", "i2"]


def test_labels_that_nobody_defined_are_refused_and_unknown_items_are_named(
    judge, home, tmp_path, monkeypatch
):
    row = {"item_id": "i1", "dimension": "helpfulness", "label": "4", "reviewer": "ann"}
    odd = [{"dimension": "helpfullness"}, {"label": "good"}, {"label": 6}, {"label": "Four"}]
    (tmp_path / "labels.jsonl").write_text(lines(row, *({**row, **change} for change in odd)))
    said = judge("label", "labels.jsonl").stdout.splitlines()
    assert said[0] == "1 label stored, 0 were there before"
    assert (
        "set aside, line 2: dimension must be one of dissatisfied, factual_accuracy, harmlessness, "
        in said[1]
    )
    assert "got 'helpfullness'" in said[1]
    for line, value in zip(said[2:5], ("good", "6", "Four"), strict=True):
        assert f"option of helpfulness: 1, 2, 3, 4, 5, got '{value}'" in line
    assert said[5].startswith("1 item with labels not in the store: i1; ")
    fact = {**row, "dimension": "fact", "label": "right"}
    (tmp_path / "fact.jsonl").write_text(lines(fact))
    message = refused(judge("label", "fact.jsonl", code=2))
    assert "got 'fact'; write one of them, or define it in a file of judges" in message
    (tmp_path / "judges.yaml").write_text(JUDGES.format(url="http://127.0.0.1:9"))
    monkeypatch.setenv("RATCHET_JUDGES", str(tmp_path / "judges.yaml"))
    assert judge("label", "fact.jsonl").stdout.startswith("1 label stored")


# What people's labels may be, and replies without a verdict ---------------------------------------


def item_with(number, human):
    text = f"{number}: a {'town' if number % 2 else 'fish'}"
    return {"item_id": f"i{number}", "prompt": f"q{number}", "answer": text, "human": human}


def written_items(folder, server, *rows):
    (folder / "judges.yaml").write_text(JUDGES.format(url=server.url))
    (folder / "items.jsonl").write_text(lines(*rows))


def test_labels_in_other_letters_are_refused_before_anything_is_asked(judge, home, tmp_path):
    rows = [item_with(n, "Right" if n % 2 else "Wrong") for n in range(40)]
    unlabelled = {"prompt": "q", "answer": "without a label"}
    with JudgeEndpoint(reads_the_answer) as server:
        written_items(tmp_path, server, *rows, unlabelled)
        message = refused(judge("run", "judges.yaml", "items.jsonl", code=2))
        assert not server.hits
    assert "options of judge 'careful': wrong, right, got 'Wrong' (20), 'Right' (20)" in message


def test_odd_labels_are_set_aside_before_anything_is_asked(judge, home, tmp_path):
    rows = [item_with(n, "right" if n % 2 else "wrong") for n in range(35)]
    odd = [item_with(n, "unsure") for n in range(35, 40)]
    with JudgeEndpoint(reads_the_answer) as server:
        written_items(tmp_path, server, *rows, *odd)
        said = judge("run", "judges.yaml", "items.jsonl", "--json", "--no-probes").stdout
        assert sum(server.hits.values()) == 2 * 35  # two judges
    for report in strict(said):
        assert report["items"] == report["validation"]["items"] == 35
        assert [row["line"] for row in report["set_aside"]] == [36, 37, 38, 39, 40]
        assert "got 'unsure'; write one of them" in report["set_aside"][0]["reason"]


def without_a_verdict(text, reason):
    """A reply that ended before its verdict."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": reason}
    return Answer(raw=json.dumps({"model": "big", "choices": [choice]}).encode())


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (without_a_verdict("I think that", "length"), "cut off"),
        pytest.param(
            without_a_verdict("I cannot help with that.", "stop"),
            "no verdict in the reply",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            without_a_verdict("I cannot help with that.", "content_filter"),
            "refused",
            marks=pytest.mark.slow,
        ),
        (without_a_verdict('{"verdict": "fine"}', "stop"), "off the menu"),
    ],
)
def test_replies_without_a_verdict_are_asked_again_when_told_to(judge, home, tmp_path, reply, kind):
    says = [reply]
    rows = [item_with(n, "right" if n % 2 else "wrong") for n in range(40)]
    with JudgeEndpoint(lambda seen: says[0] or reads_the_answer(seen)) as server:
        written_items(tmp_path, server, *rows)

        def run(*more):
            arguments = ("run", "judges.yaml", "items.jsonl", "--json", "--no-probes", *more)
            return strict(judge(*arguments).stdout)[0]

        assert run()["unscored"] == {kind: 40}
        again = run("--again", "unscored")  # the server is still broken
        assert (again["asked"], again["unscored"]) == (40, {kind: 40})
        says[0] = None  # the server is repaired
        kept = run()  # paid for, so not asked again by itself
        assert (kept["asked"], kept["unscored"]) == (0, {kind: 40})
        found = run("--again", "unscored")
        assert (found["asked"], found["unscored"]) == (40, {})
        assert found["validation"]["usable"] is True
        later = run("--again", "unscored")
        assert (later["asked"], later["recorded_before"], later["unscored"]) == (0, 40, {})
        assert run()["validation"] == found["validation"]


def test_asking_again_is_for_what_has_no_score(judge, tmp_path):
    message = refused(judge("run", "judges.yaml", "items.jsonl", "--again", "all", code=2))
    assert message == "--again takes 'unscored', got 'all'"


def test_the_list_of_an_empty_home_is_empty_and_creates_nothing(judge, home):
    assert judge("list").stdout == "no judge was validated yet\n"
    assert strict(judge("list", "--json").stdout) == []
    assert not home.exists()


def test_the_list_shows_the_latest_decision_of_each_version_and_why(home, monkeypatch):
    monkeypatch.setenv("RATCHET_HOME", str(home))
    with closing(EventStore.open(f"sqlite:///{home / 'store.db'}")) as store:
        for key, decision in (("1", "usable"), ("2", "not usable")):
            store.append(
                JudgeValidation(
                    id=key, created_at=AT, judge="j", judge_version="j-1", dimension="fact",
                    decision=decision, reasons=(f"reason {key}", "another"), labels_digest="d",
                    items=40, unscored=0,
                    figures=(Figure(name="kappa", value=None, observations=0, reason="none"),),
                )
            )  # fmt: skip
    text = CliRunner().invoke(app, ["judge", "list"]).output
    assert text == "j-1  fact  not usable\n    reason 2\n    another\n"
    (found,) = strict(CliRunner().invoke(app, ["judge", "list", "--json"]).output)
    assert (found["judge_version"], found["decision"]) == ("j-1", "not usable")


# Help ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ((), ("validate", "run", "label", "list")),
        (("validate",), ("--json", "--columns", "--categories", "--weights", "--judge-family")),
        (("run",), ("--json", "--no-probes")),
        (("label",), ("reviewer",)),
        (("list",), ("--json",)),
    ],
)
def test_every_command_has_help_that_names_its_options(judge, command, says):
    text = judge(*command, "--help").stdout
    for name in says:
        assert name in text
    assert "judge" in CliRunner().invoke(app, ["--help"]).output


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "ratchet.cli", "--version"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == CliRunner().invoke(app, ["--version"]).output


def test_a_run_without_any_verdict_fails_after_it_said_why(judge, tmp_path):
    items = tmp_path / "items.jsonl"
    items.write_text(lines({"prompt": "q", "answer": "a"}))
    with JudgeEndpoint(lambda seen: Answer(400)) as server:
        (tmp_path / "judges.yaml").write_text(JUDGES.format(url=server.url))
        done = judge("run", "judges.yaml", items, "--no-probes", code=2)
    assert "failed: 1" in done.stdout
    assert "no judge gave any verdict" in done.stderr
