"""`ratchet gate` over models that call tools: asked with them, and promoted by exact calls."""

import json
import sqlite3
from contextlib import closing

import pytest

from ratchet.models import model_digest, prepare_base_model
from tests.cli.test_gate_models import pair, run
from tests.models.weights_by_hand import saying
from tests.servers.judge_endpoint import Answer, JudgeEndpoint

__all__ = ["run"]
EXAMPLES = 60
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {field: {"type": kind}},
                "required": [field],
            },
        },
    }
    for name, field, kind in (("rate_book", "stars", "integer"), ("find_film", "place", "string"))
]
POLICY = """
primary: {metric: call_exact_match}
secondary: [tool_name_match, argument_f1, call_validity, unparsable_call_rate]
"""


def right_call(number):
    if number % 2:
        return "rate_book", {"stars": number % 7}
    return "find_film", {"place": f"town {number}"}


def calls(name, arguments):
    function = {"name": name, "arguments": json.dumps(arguments)}
    return [{"id": "c1", "type": "function", "function": function}]


@pytest.fixture
def examples(tmp_path):
    file = tmp_path / "examples.jsonl"
    rows = [
        {"id": n, "prompt": f"command {n}", "tools": TOOLS, "tool_calls": calls(*right_call(n))}
        for n in range(EXAMPLES)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def policy(tmp_path):
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    return file


def behaviour(seen):
    """The new model returns the right call apart; the old one writes a wrong one as text."""
    assert seen.body["tools"] == TOOLS
    number = int(seen.text.rpartition(" ")[2])
    name, arguments = right_call(number)
    if seen.body["model"] == "new":
        message = {"content": None, "tool_calls": calls(name, arguments)}
    else:
        wrong = json.dumps({"name": name, "arguments": {"stars": "none"}})
        message = {"content": f"<tool_call>\n{wrong}\n</tool_call>"}
    return Answer(raw=json.dumps({"choices": [{"message": message}]}).encode())


def test_the_model_that_calls_right_is_promoted_by_exact_calls(run, examples, policy):
    with JudgeEndpoint(behaviour) as server:
        words = (*pair(f"{server.url}/v1"), "--examples", examples, "--policy", policy, "--json")
        done = run(*words)
        assert done.exit_code == 0, done.output
        report = json.loads(done.stdout)
        assert server.hits.total() == 2 * EXAMPLES
        assert run(*words).exit_code == 0
        assert server.hits.total() == 2 * EXAMPLES  # recorded answers are not asked for again
    assert report["verdict"] == "promote"
    shown = {report["primary"]["metric"]: report["primary"]}
    shown |= {one["metric"]: one for one in report["secondary"]}
    found = {name: (one["champion"], one["challenger"]) for name, one in shown.items()}
    assert found == {
        "call_exact_match": (0.0, 1.0),
        "tool_name_match": (1.0, 1.0),
        "argument_f1": (0.0, 1.0),
        "call_validity": (0.0, 1.0),  # stars must be an integer, and a place is missing
        "unparsable_call_rate": (0.0, 0.0),
    }


def test_the_better_champion_is_kept(run, examples, policy):
    with JudgeEndpoint(behaviour) as server:
        words = (*pair(f"{server.url}/v1", "new", "old"), "--examples", examples)
        done = run(*words, "--policy", policy, "--json")
    assert (done.exit_code, json.loads(done.stdout)["verdict"]) == (11, "reject")


@pytest.mark.parametrize("name", ["smallbase", "other"])
def test_the_setting_gives_its_template_to_the_base_model_alone(
    run, tiny_model, tmp_path, monkeypatch, name
):
    """A model in this process, whose own template knows no tools, and which calls one."""
    pieces = ("<tool_call>", '{"name": "rate_book", ', '"arguments": {"stars": 3}}', "</tool_call>")
    base = saying(tiny_model, tmp_path / "smallbase", *pieces)
    saying(tiny_model, tmp_path / "other", *pieces)
    monkeypatch.setenv("RATCHET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RATCHET_BASE_MODEL", str(base))
    monkeypatch.setenv("RATCHET_CHAT_TEMPLATE", "hermes")
    file = tmp_path / "examples.jsonl"
    rows = [
        {"id": n, "prompt": f"command {n}", "tools": TOOLS, "tool_calls": calls(*right_call(n))}
        for n in (3, 5, 10, 17)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    policy = tmp_path / "policy.yaml"
    policy.write_text("primary: {metric: call_exact_match}\n")
    done = run(
        *("--champion", tmp_path / name, "--challenger", tmp_path / name),
        *("--examples", file, "--policy", policy, "--json"),
    )
    if name == "other":
        assert done.exit_code not in (0, 10, 11)
        assert "RATCHET_CHAT_TEMPLATE=hermes" in str(done.exception)
        return
    assert done.exit_code == 10, done.output
    with closing(sqlite3.connect(tmp_path / "home" / "gate-answers.db")) as answers:
        recorded = answers.execute("SELECT model_digest, answer FROM answers").fetchall()
    digest = model_digest(prepare_base_model(str(base), tmp_path / "cache", "hermes"))
    assert recorded == [(digest, "".join(pieces))] * len(rows)
