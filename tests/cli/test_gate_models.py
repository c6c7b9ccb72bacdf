"""`ratchet gate --champion --challenger --examples`, over a server of two models and a tiny one."""

import json
import logging
import shutil
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from ratchet.cli import app
from ratchet.errors import InvalidInputError, ModelError

EXAMPLES = 120


@contextmanager
def server(right, busy=(), keys=None):
    """Serve models that answer as many examples right as `right` says; None is down.

    The first request to a model that is `busy` is told to come again; `keys` gets the idempotency
    keys.
    """
    asked, keys = Counter(), [] if keys is None else keys

    class Handler(BaseHTTPRequestHandler):
        wbufsize = -1  # headers and body in one packet: no waiting for acknowledgements

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked[body["model"]] += 1
            keys.append(self.headers["Idempotency-Key"])
            number = int(body["messages"][-1]["content"].rpartition(" ")[2])
            good = right[body["model"]]
            text = f"queue {number % 8}" if good is not None and number < good else "no idea"
            reply = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
            first = body["model"] in busy and asked[body["model"]] == 1
            self.send_response(503 if first else 404 if good is None else 200)
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_arguments):
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 64  # eight ask at once, each on a connection of its own

    httpd = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}/v1", asked
    finally:
        httpd.shutdown()
        httpd.server_close()


@pytest.fixture
def examples(tmp_path):
    file = tmp_path / "examples.jsonl"
    rows = [
        {"id": n, "prompt": f"where goes {n}", "target": f"queue {n % 8}", "cluster": f"c{n % 2}"}
        for n in range(EXAMPLES)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))

    def called(*words):
        return CliRunner().invoke(app, ["gate", *map(str, words)])

    yield called
    logging.getLogger("ratchet").handlers.clear()  # they write to a stream that is closed now


def pair(url, one="old", two="new"):
    return "--champion", f"{url}#{one}", "--challenger", f"{url}#{two}"


@pytest.mark.mostly_slow("60-100-0-promote")
@pytest.mark.parametrize(
    ("old", "new", "code", "verdict"),
    [(60, 100, 0, "promote"), (100, 60, 11, "reject"), (60, 60, 10, "hold")],
)
def test_two_models_of_a_server_are_gated(run, examples, old, new, code, verdict):
    with server({"old": old, "new": new}) as (url, _):
        done = run(*pair(url), "--examples", examples, "--json")
    assert done.exit_code == code, done.output
    report = json.loads(done.stdout)
    assert report["verdict"] == verdict
    if verdict == "hold":
        assert report["reasons"] == ["same artefact: every answer is identical"]
        return
    assert (report["primary"]["champion"], report["primary"]["challenger"]) == (
        pytest.approx(old / EXAMPLES), pytest.approx(new / EXAMPLES),
    )  # fmt: skip
    assert [one["cluster"] for one in report["guardrails"]] == ["c0", "c1"]
    assert [one["metric"] for one in report["secondary"]] == ["token_f1", "length"]
    assert report["secondary"][1]["higher_is_better"] is False


@pytest.mark.slow
def test_recorded_answers_are_not_asked_for_again_unless_told_so(run, examples):
    keys = []
    with server({"old": 60, "new": 100}, keys=keys) as (url, asked):
        for fresh, times in (((), 1), ((), 1), (("--fresh",), 2)):
            assert run(*pair(url), "--examples", examples, *fresh).exit_code == 0
            assert asked == {"old": times * EXAMPLES, "new": times * EXAMPLES}
    # asked anew under other keys, so that a gateway that keeps its replies asks its model too
    assert len(set(keys)) == len(keys) == 4 * EXAMPLES


@pytest.mark.slow
def test_an_answer_that_fails_for_a_moment_is_asked_again(run, examples):
    with server({"old": 60, "new": 100}, busy={"new"}) as (url, asked):
        done = run(*pair(url), "--examples", examples)
    assert done.exit_code == 0, done.output
    assert asked["old"] == EXAMPLES
    assert asked["new"] == EXAMPLES + 1


def test_an_evaluation_that_was_interrupted_goes_on(run, examples, tmp_path):
    half = tmp_path / "half.jsonl"
    half.write_text("".join(line for line in examples.open().readlines()[:50]))
    with server({"old": 60, "new": 100}) as (url, asked):
        run(*pair(url), "--examples", half)
        assert run(*pair(url), "--examples", examples).exit_code == 0
        assert asked == {"old": EXAMPLES, "new": EXAMPLES}


@pytest.mark.slow
def test_what_was_decided_on_can_be_kept_and_gated_again(run, examples, tmp_path):
    kept = tmp_path / "scores.csv"
    with server({"old": 60, "new": 100}) as (url, _):
        first = run(*pair(url), "--examples", examples, "--json", "--save-scores", kept)
    again = run("--scores", kept, "--json")
    assert again.exit_code == first.exit_code == 0
    one, two = json.loads(first.stdout), json.loads(again.stdout)
    assert one["primary"] == two["primary"]
    assert one["guardrails"] == two["guardrails"]


def test_a_model_that_the_server_does_not_have_is_an_error_and_no_sheet_is_written(
    run, examples, tmp_path
):
    with server({"old": 60, "new": None}) as (url, _):
        gated = run(*pair(url), "--examples", examples)
        handed_out = run(*pair(url), "--examples", examples, "--to-label", tmp_path / "sheet.csv")
    for done in (gated, handed_out):
        assert isinstance(done.exception, ModelError)
        assert "#new must answer what it is asked, got no answer" in str(done.exception)
        assert "must know the model 'new', got HTTP 404" in str(done.exception)
    assert not (tmp_path / "sheet.csv").exists()


def test_examples_without_targets_are_gated_on_a_win_rate_which_needs_a_judge(run, tmp_path):
    file = tmp_path / "open.jsonl"
    rows = [{"id": n, "prompt": f"why {n}"} for n in range(EXAMPLES)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with server({"old": 60, "new": 100}) as (url, asked):
        done = run(*pair(url), "--examples", file)
        assert "win_rate needs a judge of pairs, got none" in str(done.exception)
        written = run(
            *pair(url), "--examples", file, "--policy", "open-ended", "--to-label",
            tmp_path / "sheet.csv",
        )  # fmt: skip
    assert written.exit_code == 0, written.output
    assert asked == {"old": EXAMPLES, "new": EXAMPLES}
    assert (tmp_path / "sheet.csv").exists()


def test_a_policy_may_ask_for_the_floor_and_for_length(run, examples, tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "primary: {metric: exact_match}\nbeat_constant_answer: true\n"
        "guardrails: [{metric: length, margin: 0.1, relative: true}]\n"
    )
    with server({"old": 0, "new": 20}) as (url, _):
        done = run(*pair(url), "--examples", examples, "--policy", policy, "--json")
    assert done.exit_code == 11
    # 20 of 120 right, of 8 balanced queues: the constant answer is right on 15
    assert "most common answer" in json.loads(done.stdout)["reasons"][0]


@pytest.mark.parametrize(
    ("words", "error", "expected"),
    [
        ((), InvalidInputError, "give --scores, or all of"),
        (("--scores", "s.csv", "--champion", "x"), InvalidInputError, "got both"),
        (("--champion", "a", "--challenger", "b"), InvalidInputError, "got no --examples"),
        (("--examples", "e.jsonl"), InvalidInputError, "got no --champion and no --challenger"),
        ((), InvalidInputError, "got neither"),
        (
            ("--champion", "nowhere", "--challenger", "b", "--examples", "examples.jsonl"),
            InvalidInputError,
            "a model must be a folder",
        ),
        (
            ("--champion", "http://x", "--challenger", "b", "--examples", "examples.jsonl"),
            InvalidInputError,
            "must name its model after #",
        ),
        (
            ("--champion", "localhost:8000#m", "--challenger", "b", "--examples", "examples.jsonl"),
            InvalidInputError,
            "with its scheme, such as http://localhost:8000, got 'localhost:8000'",
        ),
        (
            (
                *("--champion", "http://x#m", "--challenger", "b", "--examples", "examples.jsonl"),
                *("--api-key-variable", "sk-secret-0123"),
            ),
            InvalidInputError,
            "the name of an environment variable, not the key itself",
        ),
        (
            (
                *("--champion", "http://x#m", "--challenger", "b"),
                *("--examples", "examples.jsonl", "--api-key-variable", "NO_SUCH_KEY"),
            ),
            ModelError,
            "NO_SUCH_KEY",
        ),
    ],
)
def test_bad_words_are_one_clear_error(run, examples, words, error, expected):
    done = run(*words)
    assert isinstance(done.exception, error)
    assert expected in str(done.exception)
    assert "sk-secret" not in str(done.exception)


def test_a_metric_that_there_is_not_is_refused_before_anything_is_asked(run, examples, tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text("primary: {metric: helpfulness}\n")
    with server({"old": 60, "new": 100}) as (url, asked):
        done = run(*pair(url), "--examples", examples, "--policy", policy)
    assert "a metric must be one of exact_match" in str(done.exception)
    assert not asked


def test_two_folders_of_one_model_are_the_same_artefact(run, examples, tiny_model, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    few = tmp_path / "few.csv"
    few.write_text("id,prompt,target\n" + "".join(f"{n},say {n},x\n" for n in range(8)))
    words = ("--champion", tiny_model, "--challenger", copy, "--examples", few)
    done = run(*words, "--max-new-tokens", 4)
    assert done.exit_code == 10, done.output
    assert "same artefact: the digests are the same" in done.stdout
