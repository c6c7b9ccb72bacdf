"""`ratchet gate`, as CI calls it."""

import json
import os
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
from typer.testing import CliRunner

from ratchet.cli import app
from ratchet.errors import InvalidInputError
from tests.cli.in_process import run_in_process

HEAD = "example_id,metric,champion,challenger\n"


@pytest.fixture
def run(tmp_path):
    return partial(
        run_in_process,
        "gate",
        folder=tmp_path,
        environment={"RATCHET_HOME": str(tmp_path / "home")},
    )


@pytest.fixture
def called(tmp_path, monkeypatch):
    """The same with the exception that ended it."""
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    return lambda *words: CliRunner().invoke(app, ["gate", *map(str, words)])


def scores(path, *, losses, wins, ties, metric="exact_match"):
    pairs = [(1, 0)] * losses + [(0, 1)] * wins + [(1, 1)] * ties
    rows = [f"e{n},{metric},{one},{two}\n" for n, (one, two) in enumerate(pairs)]
    path.write_text(HEAD + "".join(rows))
    return path


@pytest.mark.parametrize(
    ("losses", "wins", "ties", "verdict", "code"),
    [
        (20, 60, 220, "promote", 0),
        (20, 22, 958, "hold", 10),
        (60, 20, 220, "reject", 11),
        (10, 14, 26, "inconclusive", 12),
    ],
)
def test_the_exit_code_is_the_verdict(run, tmp_path, losses, wins, ties, verdict, code):
    file = scores(tmp_path / "scores.csv", losses=losses, wins=wins, ties=ties)
    done = run("--scores", file)
    assert done.returncode == code, done.stderr
    assert done.stdout.startswith(f"{verdict}: ")


def test_a_process_of_its_own_ends_with_the_exit_code(tmp_path):
    file = scores(tmp_path / "scores.csv", losses=60, wins=20, ties=220)
    done = subprocess.run(
        [sys.executable, "-m", "ratchet.cli", "gate", "--scores", str(file)],
        cwd=tmp_path, env=os.environ | {"RATCHET_HOME": str(tmp_path / "home")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 11, done.stderr
    assert done.stdout.startswith("reject: ")


def test_json_holds_the_evidence(run, tmp_path):
    file = scores(tmp_path / "scores.csv", losses=10, wins=14, ties=26)
    done = run("--scores", file, "--json")
    report = json.loads(done.stdout)
    assert report["verdict"] == "inconclusive"
    assert report["examples_needed"] > 50
    assert report["primary"]["metric"] == "exact_match"


def test_a_policy_decides_and_its_errors_are_bad_input(run, tmp_path):
    file = scores(tmp_path / "scores.csv", losses=20, wins=60, ties=220)
    policy = tmp_path / "policy.yaml"
    policy.write_text("primary: {metric: exact_match, margin: 0.2}\napproval: always\n")
    assert run("--scores", file, "--policy", policy).returncode == 10
    policy.write_text("primary: {metric: exact_match}\napproval: always\n")
    waits = run("--scores", file, "--policy", policy)
    assert waits.returncode == 10
    assert "waits for a person" in waits.stdout
    assert run("--scores", file, "--policy", policy, "--approved-by", "ana").returncode == 0
    policy.write_text("primary: {metric: exact_match}\napproval: sometimes\nlevel: 1\n")
    wrong = run("--scores", file, "--policy", policy)
    assert wrong.returncode == 2
    assert "approval" in wrong.stderr
    assert "level" in wrong.stderr


def test_judges_that_the_policy_asks_for_must_be_usable(run, tmp_path):
    file = scores(tmp_path / "scores.csv", losses=20, wins=60, ties=220)
    policy = tmp_path / "policy.yaml"
    policy.write_text("primary: {metric: exact_match}\njudges: [helpful]\n")
    assert run("--scores", file, "--policy", policy).returncode == 12
    done = run("--scores", file, "--policy", policy, "--usable-judge", "helpful")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--scores", "nowhere.csv"), "must be a readable file, got 'nowhere.csv'"),
        (("--scores", "empty.csv"), "must hold rows with example_id"),
        (("--scores", "scores.csv", "--earlier", "many"), "--earlier"),
        (("--scores", "scores.csv", "--earlier", "100"), "looks"),
        (("--scores", "scores.csv", "--policy", "nowhere.yaml"), "got no nowhere.yaml"),
        ((), "--scores"),
    ],
)
def test_bad_input_is_one_error_and_exit_code_2(run, tmp_path, words, said):
    scores(tmp_path / "scores.csv", losses=20, wins=60, ties=220)
    (tmp_path / "empty.csv").write_text("")
    done = run(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_hundred_thousand_examples_with_five_metrics_are_gated_in_seconds(run, tmp_path):
    rng = np.random.default_rng(0)
    file, size = tmp_path / "scores.csv", 100_000
    with file.open("w") as out:
        out.write("example_id,metric,champion,challenger,user_id,cluster\n")
        for metric in range(5):
            one = rng.normal(size=size)
            pairs = zip(one.tolist(), (one + rng.normal(0.02, 1, size)).tolist(), strict=True)
            out.writelines(
                f"e{n},m{metric},{a:.6g},{b:.6g},u{n % 20_000},c{n % 20}\n"
                for n, (a, b) in enumerate(pairs)
            )
    began = time.monotonic()
    stated = [word for metric in range(5) for word in ("--higher-is-better", f"m{metric}")]
    done = run("--scores", file, *stated)
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stdout + done.stderr
    assert seconds < 15.0  # alone it takes 2 s, on a loaded machine several times that


# Directions ---------------------------------------------------------------------------------------


def worse(path, metric, *, higher_is_worse):
    """200 rows on which the challenger is clearly worse where more, or less, of it is worse."""
    rng = np.random.default_rng(3)
    champion = rng.gamma(2.0, 1.0, 200)
    challenger = champion + (1.0 if higher_is_worse else -1.0) * rng.uniform(0.2, 1.0, 200)
    pairs = zip(champion.tolist(), challenger.tolist(), strict=True)
    path.write_text(
        HEAD + "".join(f"e{n},{metric},{a:.6g},{b:.6g}\n" for n, (a, b) in enumerate(pairs))
    )
    return path


@pytest.mark.parametrize(
    "metric",
    ["wer", "latency", "toxicity", "loss", "cer", "error", "refusals", "latency_p99_ms",
     "Eval Loss", "perplexity", "word-error-rate", "cost"],
)  # fmt: skip
def test_a_challenger_with_more_of_what_should_be_less_is_not_promoted(called, tmp_path, metric):
    file = worse(tmp_path / "scores.csv", metric, higher_is_worse=True)
    done = called("--scores", file)
    assert done.exit_code == 11, done.output
    assert "lower is better" in done.stdout
    done = called("--scores", file, "--json")
    assert json.loads(done.stdout)["directions"] == {metric: "lower is better"}


@pytest.mark.parametrize(
    "metric",
    ["right", "correct", "win", "score", "accuracy", "passed", "F1", "em", "rouge-2", "BLEU",
     "pass@5", "pass_at_1"],
)  # fmt: skip
def test_a_challenger_with_less_of_what_should_be_more_is_not_promoted(called, tmp_path, metric):
    done = called("--scores", worse(tmp_path / "scores.csv", metric, higher_is_worse=False))
    assert done.exit_code == 11, done.output
    assert "higher is better" in done.stdout


@pytest.mark.parametrize("metric", ["m7", "helpfulness", "loss_gain", "1-wer", "-wer", "χ"])
def test_a_metric_whose_direction_nobody_states_is_bad_input(run, tmp_path, metric):
    file = worse(tmp_path / "scores.csv", metric, higher_is_worse=True)
    done = run("--scores", file)
    assert done.returncode == 2
    for word in (metric, "--higher-is-better", "--lower-is-better"):
        assert word in done.stderr
    assert not done.stdout


def test_an_option_or_a_policy_states_the_direction(called, tmp_path):
    file = worse(tmp_path / "scores.csv", "m7", higher_is_worse=True)
    assert called("--scores", file, "--higher-is-better", "m7").exit_code == 0
    assert called("--scores", file, "--lower-is-better", "m7").exit_code == 11
    policy = tmp_path / "policy.yaml"
    for stated, code in (("true", 0), ("false", 11)):
        policy.write_text(f"primary: {{metric: m7, higher_is_better: {stated}}}\n")
        assert called("--scores", file, "--policy", policy).exit_code == code
    policy.write_text("primary: {metric: m7}\n")
    assert isinstance(called("--scores", file, "--policy", policy).exception, InvalidInputError)
    words = ("--policy", policy, "--lower-is-better", "m7")
    assert called("--scores", file, *words).exit_code == 11
    policy.write_text("primary: {metric: m7}\nlower_is_better: [m7]\n")
    assert called("--scores", file, "--policy", policy).exit_code == 11


@pytest.mark.parametrize(
    ("metric", "policy", "words", "said"),
    [
        ("wer", "", ("--higher-is-better", "wer"), "contradicts its name"),
        ("accuracy", "", ("--lower-is-better", "accuracy"), "contradicts its name"),
        ("m7", "", ("--lower-is-better", "m7", "--higher-is-better", "m7"), "one direction"),
        ("m7", "", ("--lower-is-better", "m8"), "must name a metric that is decided on"),
        (
            "m7",
            "primary: {metric: m7, higher_is_better: false}",
            ("--higher-is-better", "m7"),
            "contradicts the policy",
        ),
        ("m7", "primary: {metric: m7}\nsecondary: [m8]", ("--lower-is-better", "m7"), "for m8"),
    ],
)
def test_directions_that_contradict_each_other_are_told(
    called, tmp_path, metric, policy, words, said
):
    file = worse(tmp_path / "scores.csv", metric, higher_is_worse=True)
    if policy:
        (tmp_path / "policy.yaml").write_text(policy)
        words = (*words, "--policy", tmp_path / "policy.yaml")
    done = called("--scores", file, *words)
    assert isinstance(done.exception, InvalidInputError)
    assert said in str(done.exception)


def test_a_name_that_leaves_it_open_may_be_turned_and_a_policy_that_turns_a_sure_one_is_told(
    called, tmp_path
):
    file = worse(tmp_path / "scores.csv", "length", higher_is_worse=True)
    assert called("--scores", file).exit_code == 11
    assert called("--scores", file, "--higher-is-better", "length").exit_code == 0
    file = worse(tmp_path / "scores.csv", "wer", higher_is_worse=True)
    (tmp_path / "policy.yaml").write_text("primary: {metric: wer, higher_is_better: true}\n")
    done = called("--scores", file, "--policy", tmp_path / "policy.yaml")
    assert done.exit_code == 0
    assert "the policy says that higher is better of wer" in done.stderr
    assert "higher is better" in done.stdout


def test_the_direction_is_said_where_nothing_was_weighed_too(called, tmp_path):
    rows = "".join(f"e{n},wer,1,0,x,x\n" for n in range(50))
    file = tmp_path / "scores.csv"
    file.write_text(HEAD.strip() + ",champion_output,challenger_output\n" + rows)
    done = called("--scores", file)
    assert done.exit_code == 10
    assert "same artefact" in done.stdout
    assert "wer: lower is better" in done.stdout
