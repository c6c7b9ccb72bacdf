"""`ratchet init`: five answers become two files, which settings and deployments read."""

from __future__ import annotations

import io
import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from ratchet.deployments import read_deployments
from ratchet.settings import load_settings
from tests.cli.in_process import run_in_process
from tests.doors.bringing import GOLDEN

LANGFUSE = GOLDEN / "langfuse"


def init(folder: Path, *words: object, typed: str = "") -> subprocess.CompletedProcess[str]:
    """Run it in a folder, with what a person types."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.StringIO(typed))
        environment = {"RATCHET_CACHE": str(folder / "cache")}
        return run_in_process("init", *words, folder=folder, environment=environment)


def answers(folder: Path, **given: Any) -> Path:
    path = folder / "answers.yaml"
    path.write_text(yaml.safe_dump(given), "utf-8")
    return path


def test_with_the_defaults_the_local_model_answers_and_a_person_approves(tmp_path: Path) -> None:
    done = init(tmp_path, "--yes")
    assert done.returncode == 0, done.stderr
    assert tomllib.loads((tmp_path / "ratchet.toml").read_text("utf-8")) == {
        "model_name": "support-router", "base_model": "smollm2", "deployments": "deployments.yaml",
    }  # fmt: skip
    ours = read_deployments(load_settings({}, tmp_path).deployments)
    assert ours.options == {"deploy": {"approval": "always"}}
    assert done.stdout.endswith("next: ratchet serve\n")
    assert "deployments:" in done.stdout, "the checks of `ratchet doctor` are told"


def test_what_a_person_types_is_asked_in_five_questions(tmp_path: Path) -> None:
    typed = "\n".join([
        "srver", "server", "http://127.0.0.1:9", "feedback", "/models/desk", "desk", "pool", "gpu",
        "borderline", "Ana Lima, bob", "",
    ])  # fmt: skip
    done = init(tmp_path, typed=typed)
    assert done.returncode == 1, "the folder of the weights is not there"
    assert "one of server, logs, elsewhere, got 'srver'" in done.stdout + done.stderr
    assert [number for number in range(9) if f"{number}. W" in done.stdout] == [1, 2, 3, 4, 5]
    settings = load_settings({}, tmp_path)
    assert settings.backend == ("http://127.0.0.1:9",)
    assert (settings.base_model, settings.model_name) == ("/models/desk", "desk")
    assert settings.approvers == ("Ana Lima", "bob")
    ours = read_deployments(settings.deployments)
    assert (ours.training_pool, ours.options_of("deploy")) == ("gpu", {"approval": "borderline"})
    assert "mend this" in done.stdout


def test_logs_of_somebody_elses_model_are_brought_in_and_nothing_is_trained(tmp_path: Path) -> None:
    given = answers(
        tmp_path, answers_from="elsewhere", address=str(LANGFUSE), feedback="scores",
        base_model="", train="nowhere",
    )  # fmt: skip
    done = init(tmp_path, "--answers", given)
    assert done.returncode == 0, done.stdout + done.stderr
    ours = read_deployments(load_settings({}, tmp_path).deployments)
    assert ours.options_of("collect") == {"sources": [{"source": str(LANGFUSE)}]}
    assert ours.schedules == {"loop": False, "collect": True}
    assert "files of langfuse" in done.stdout
    assert done.stdout.endswith("next: ratchet collect --dry-run\n")


def test_a_second_run_finds_the_present_answers_and_changes_nothing(tmp_path: Path) -> None:
    given = answers(
        tmp_path, answers_from="logs", address=str(LANGFUSE), feedback="scores", train="pool",
        pool="gpu", approval="never", approvers=["ana"],
    )  # fmt: skip
    assert init(tmp_path, "--answers", given).returncode == 0
    before = {path: path.read_bytes() for path in tmp_path.glob("*.*")}
    again = init(tmp_path, typed="\n" * 20)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "[logs]" in again.stdout
    assert "both files say so already" in again.stdout
    assert {path: path.read_bytes() for path in tmp_path.glob("*.*")} == before


def test_files_are_written_over_only_when_told_so_and_what_else_they_say_stays(
    tmp_path: Path,
) -> None:
    own = 'model_name = "desk"\nembedding = "words"\nnotify = ["json://127.0.0.1/"]\n'
    (tmp_path / "ratchet.toml").write_text(own, "utf-8")
    given = answers(tmp_path, approvers=["ana"])
    refused = init(tmp_path, "--answers", given)
    assert (refused.returncode, "add --yes" in refused.stderr) == (2, True)
    declined = init(tmp_path, typed="\n" * 9 + "n\n")
    assert declined.returncode == 1
    shown = init(tmp_path, "--answers", given, "--dry-run")
    assert "nothing was written" in shown.stdout
    assert (tmp_path / "ratchet.toml").read_text("utf-8") == own
    assert not (tmp_path / "deployments.yaml").exists()
    assert init(tmp_path, "--answers", given, "--yes").returncode == 0
    settings = load_settings({}, tmp_path)
    assert (settings.model_name, settings.embedding) == ("desk", "words")
    assert (settings.notify, settings.approvers) == (("json://127.0.0.1/",), ("ana",))


@pytest.mark.parametrize(("given", "rule"), [
    ({"answers_from": "logs"}, "got none; give a file"),
    ({"answers_from": "cloud"}, "answers_from"),
    ({"feedback": "judge"}, "name it as judges"),
    ({"train": "pool"}, "name it as pool"),
    ({"base_model": ""}, "train nowhere"),
    ({"address": "not an address"}, "address"),
    ({"model_name": "a\nb"}, "model_name"),
])  # fmt: skip
def test_answers_that_do_not_hold_together_are_refused_and_nothing_is_written(
    tmp_path: Path, given: dict[str, Any], rule: str
) -> None:
    done = init(tmp_path, "--answers", answers(tmp_path, **given))
    assert (done.returncode, rule in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "ratchet.toml").exists()


def test_logs_that_cannot_be_read_are_a_problem(tmp_path: Path) -> None:
    given = answers(tmp_path, answers_from="logs", address=str(tmp_path / "none.jsonl"))
    done = init(tmp_path, "--answers", given)
    assert done.returncode == 1
    assert "problem  source" in done.stdout


def test_texts_with_quotes_and_backslashes_are_read_as_they_were_given(tmp_path: Path) -> None:
    name = 'Zoë "the\\gate" 猫'
    assert init(tmp_path, "--answers", answers(tmp_path, approvers=[name])).returncode == 0
    assert load_settings({}, tmp_path).approvers == (name,)
    assert json.loads(load_settings({}, tmp_path).environment()["RATCHET_APPROVERS"]) == [name]
