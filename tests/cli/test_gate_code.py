"""`ratchet gate` on code: a server of two models writes it, the real sandbox runs it."""

import json
import logging
import re
import shutil
import socket
import sqlite3
from collections import Counter
from fractions import Fraction
from math import comb

import pytest
from typer.testing import CliRunner

import ratchet.evaluation.code_execution.sandbox as sandbox
from ratchet.cli import app
from ratchet.errors import InvalidInputError, IsolationError, PolicyError
from tests.servers.judge_endpoint import Answer, JudgeEndpoint

pytestmark = pytest.mark.usefixtures("isolation")

# Problems of one's own: add n, with tests as HumanEval's. The model called `old` is right on every
# third, `new` on two of three.
PROBLEMS = 36
WRONG = {
    "wrong": "return x",
    "hanging": "import time\n    time.sleep(60)",
    "exit": "import os\n    os._exit(0)",
    "writing": "open(MARKER, 'w').write('x')\n    return x + N",
    "socket": "import socket\n    socket.create_connection((HOST, PORT))\n    return x + N",
    "cheat": "import builtins\n    builtins.exec = builtins.compile = print\n    return x",
}


def problem(number):
    return {
        "id": f"add/{number}",
        "prompt": f'def add{number}(x):\n    """Return x plus {number}."""\n',
        "tests": f"def check(candidate):\n    assert candidate(2) == {2 + number}\n"
        f"    assert candidate(-{number}) == 0\n",
        "entry_point": f"add{number}",
    }


def number_of(seen):
    return int(re.search(r"add(\d+)", seen.text)[1])


def solution(number, *, right, marker, port):
    if right:
        body = f"    return x + {number}\n"
        whole = f"def add{number}(x):\n{body}"
        forms = (body, body.strip(), f"Sure!\n```python\n{whole}```\nThat is it.", whole)
        return forms[number % len(forms)]
    kinds = sorted(WRONG)
    body = WRONG[kinds[number // 3 % len(kinds)]]
    for name, value in (
        ("MARKER", repr(str(marker))),
        ("HOST", "'127.0.0.1'"),
        ("PORT", str(port)),
        ("N", str(number)),
    ):
        body = body.replace(name, value)
    return f"```python\ndef add{number}(x):\n    {body}\n```"


@pytest.fixture
def outside(tmp_path):
    """What hostile code must not reach: a file that it would write, a port that it would call."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.2)
        yield tmp_path / "escaped", listening


@pytest.fixture
def examples(tmp_path):
    file = tmp_path / "problems.jsonl"
    file.write_text("".join(json.dumps(problem(n)) + "\n" for n in range(1, PROBLEMS + 1)))
    return file


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    yield lambda *words: CliRunner().invoke(app, ["gate", *map(str, words)])
    logging.getLogger("ratchet").handlers.clear()  # they write to a stream that is closed now


def pair(server):
    return "--champion", f"{server.url}#old", "--challenger", f"{server.url}#new"


def test_code_is_gated_by_the_tests_of_its_examples_in_the_sandbox(run, examples, outside):
    marker, listening = outside
    port = listening.getsockname()[1]

    def behaviour(seen):
        number = number_of(seen)
        right = number % 3 == 0 if seen.body["model"] == "old" else number % 3 != 1
        return Answer(text=solution(number, right=right, marker=marker, port=port))

    with JudgeEndpoint(behaviour) as server:
        done = run(*pair(server), "--examples", examples, "--json")
        assert all(seen.body["temperature"] == 0.0 for seen in server.seen)
        assert not any("seed" in seen.body for seen in server.seen)
        assert len(server.seen) == 2 * PROBLEMS
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    primary = report["primary"]
    assert (primary["metric"], primary["test"]) == ("pass@1", "exact McNemar test")
    assert primary["champion"] == pytest.approx(1 / 3)
    assert primary["challenger"] == pytest.approx(2 / 3)
    assert report["directions"] == {"pass@1": "higher is better", "length": "lower is better"}
    assert not marker.exists()
    with pytest.raises(TimeoutError):
        listening.accept()


def sampled(seen, rights):
    """Whether this request's answer is right: by the seed, in so many of all cases."""
    return seen.body["seed"] % 10 < rights[seen.body["model"]]


@pytest.mark.slow
def test_pass_at_k_of_sampled_answers_is_the_unbiased_estimate(run, examples, tmp_path, outside):
    marker, _ = outside
    right = Counter()

    def behaviour(seen):
        number = number_of(seen)
        is_right = sampled(seen, {"old": 2, "new": 6})
        right[seen.body["model"], number] += is_right
        return Answer(text=f"    return x + {number if is_right else 0}\n")

    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "primary: {metric: pass@1}\n"
        "guardrails: [{metric: pass@3, margin: 0.2}]\n"
        "samples: 5\ntemperature: 0.5\nseed: 11\n"
    )
    with JudgeEndpoint(behaviour) as server:
        done = run(*pair(server), "--examples", examples, "--policy", policy, "--json")
        assert len(server.seen) == 5 * 2 * PROBLEMS
        assert {seen.body["temperature"] for seen in server.seen} == {0.5}
        seeds = Counter((seen.body["model"], seen.body["seed"]) for seen in server.seen)
        assert set(seeds.values()) == {1}  # every answer has randomness of its own
    report = json.loads(done.stdout)

    def expected(model, k):
        """1 - C(n - c, k) / C(n, k) by exact fractions, the mean over problems."""
        each = [
            1 - Fraction(comb(5 - right[model, n], k), comb(5, k)) for n in range(1, PROBLEMS + 1)
        ]
        return pytest.approx(float(sum(each) / PROBLEMS))

    for k, found in ((1, report["primary"]), (3, report["guardrails"][0])):
        assert found["metric"] == f"pass@{k}"
        assert found["champion"] == expected("old", k)
        assert found["challenger"] == expected("new", k)
    assert done.exit_code == 0, done.output
    assert not marker.exists()


@pytest.mark.slow
def test_sampled_answers_are_recorded_apart_and_more_samples_add_to_them(run, examples, tmp_path):
    few = tmp_path / "few.jsonl"
    few.write_text("".join(examples.open().readlines()[:4]))
    kept = tmp_path / "scores.csv"

    def behaviour(seen):
        better = seen.body["model"] == "new" or number_of(seen) % 2
        return Answer(text=f"return x + {number_of(seen) * bool(better)}")

    with JudgeEndpoint(behaviour) as server:
        asked = []
        for words in (
            (), (), ("--samples", 2), ("--samples", 2), ("--samples", 3), ("--samples", 2),
            ("--samples", 2, "--seed", 1), ("--samples", 2, "--temperature", 0.3), (),
        ):  # fmt: skip
            server.reset()
            done = run(*pair(server), "--examples", few, "--save-scores", kept, *words)
            assert done.exit_code == 12, (done.output, done.exception)
            asked.append(len(server.seen))
    assert asked == [8, 0, 16, 0, 8, 0, 16, 16, 0]
    again = run("--scores", kept, "--json")
    assert json.loads(again.stdout)["primary"]["metric"] == "pass@1"


@pytest.mark.slow
def test_an_answer_that_is_missing_is_no_score_and_not_a_failure(run, examples):
    def behaviour(seen):
        if seen.body["model"] == "new" and number_of(seen) == 7:
            return Answer(status=400)
        return Answer(text=f"return x + {number_of(seen)}")

    with JudgeEndpoint(behaviour) as server:
        done = run(*pair(server), "--examples", examples, "--json")
    assert done.exit_code == 12
    primary = json.loads(done.stdout)["primary"]
    assert (primary["unscored_challenger"], primary["challenger"]) == (1, 1.0)


def test_where_nothing_is_isolated_nothing_is_answered(run, examples, monkeypatch):
    sandbox.require_isolation.cache_clear()
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")
    try:
        with JudgeEndpoint() as server:
            done = run(*pair(server), "--examples", examples)
            assert not server.seen
    finally:
        monkeypatch.undo()
        sandbox.require_isolation.cache_clear()
    assert isinstance(done.exception, IsolationError)  # exit code 2, as every error of Ratchet's
    assert "untrusted code runs only isolated" in str(done.exception)


@pytest.mark.parametrize(
    ("policy", "words", "error", "said"),
    [
        (
            "primary: {metric: pass@1}\nsecondary: [exact_match]",
            (),
            InvalidInputError,
            "needs targets",
        ),
        ("primary: {metric: pass@4}\nsamples: 3", (), PolicyError, "at least 4 samples"),
        ("primary: {metric: pass@4}", ("--samples", 3), PolicyError, "at least 4 samples"),
        (
            "primary: {metric: pass@1}\nsamples: 3",
            ("--samples", 4),
            InvalidInputError,
            "contradicts",
        ),
        ("primary: {metric: pass@1}\nseed: 3", (), PolicyError, "seed goes with sampling"),
        ("primary: {metric: pass@1}\nsamples: 0", (), PolicyError, "samples"),
        ("primary: {metric: pass@0}", (), InvalidInputError, "pass@1, pass@2"),
        ("primary: {metric: pass@1}", ("--temperature", 9), PolicyError, "temperature"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_anything_is_answered(
    run, examples, tmp_path, policy, words, error, said
):
    file = tmp_path / "policy.yaml"
    file.write_text(policy)
    with JudgeEndpoint() as server:
        done = run(*pair(server), "--examples", examples, "--policy", file, *words)
        assert not server.seen
    assert isinstance(done.exception, error), done.output
    assert said in str(done.exception)


def test_tests_in_some_examples_only_are_not_enough(run, examples, tmp_path):
    mixed = tmp_path / "mixed.jsonl"
    more = json.dumps({"id": "plain", "prompt": "hello", "target": "hi"}) + "\n"
    mixed.write_text(examples.read_text() + more)
    policy = tmp_path / "policy.yaml"
    policy.write_text("primary: {metric: pass@1}")
    with JudgeEndpoint() as server:
        done = run(*pair(server), "--examples", mixed, "--policy", policy)
        assert not server.seen
    assert "pass@1 needs tests in every example, got 1 of 37 without, plain first" in str(
        done.exception
    )


def test_samples_go_with_examples(run, tmp_path):
    file = tmp_path / "scores.csv"
    file.write_text("example_id,metric,champion,challenger\ne1,right,0,1\n")
    done = run("--scores", file, "--samples", 3)
    assert isinstance(done.exception, InvalidInputError)
    assert "--examples" in str(done.exception)


def test_a_local_model_is_sampled_and_its_code_is_run(run, examples, tiny_model, tmp_path):
    few = tmp_path / "few.jsonl"
    few.write_text("".join(examples.open().readlines()[:3]))
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    pair_of_one = ("--champion", tiny_model, "--challenger", copy)
    done = run(
        *pair_of_one, "--examples", few, "--samples", 3, "--temperature", 2.0,
        "--max-new-tokens", 4,
    )  # fmt: skip
    assert done.exit_code == 10, (done.output, done.exception)
    assert "same artefact: the digests are the same" in done.stdout
    with sqlite3.connect(tmp_path / "home" / "gate-answers.db") as database:
        found = database.execute("select decoding, count(*) from answers group by 1").fetchall()
    assert sorted(found) == [(f"sampled-t2-seed0-{n}-4-lines", 3) for n in range(3)]
