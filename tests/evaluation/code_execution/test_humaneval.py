import json
import logging

import pytest
from typer.testing import CliRunner

from ratchet.cli import app
from ratchet.evaluation.code_execution.sandbox import SandboxLimits
from tests.benchmarks.humaneval_sandbox import GOAL_SECONDS, run_all
from tests.evaluation.code_execution.planted_code import read_problems
from tests.servers.judge_endpoint import Answer, JudgeEndpoint


@pytest.mark.slow
def test_good_solutions_of_all_problems_pass_no_other_does_and_nothing_escapes(
    isolation, shared_data
):
    run = run_all(shared_data, SandboxLimits(seconds=2.0, cpu_seconds=1), workers=4)
    assert run.misjudged == []
    assert run.escapes == []
    assert sum(run.ends.values()) == 4 * 164
    assert run.ends["good", "passed"] == 164
    assert run.ends["hanging", "timed out"] == 164
    print(f"\n{run.seconds:.0f} s")
    assert run.seconds <= GOAL_SECONDS


@pytest.mark.slow
def test_right_solutions_pass_through_the_gates_command_in_the_forms_that_models_give(
    isolation, shared_data, tmp_path, monkeypatch
):
    """The canonical solutions as chat models write them are pass@1 = 1, half of them is half."""
    problems = {problem["prompt"]: problem for problem in read_problems(shared_data)}
    file = tmp_path / "humaneval.jsonl"
    rows = [
        {
            "id": problem["task_id"], "prompt": prompt, "tests": problem["test"],
            "entry_point": problem["entry_point"],
        }
        for prompt, problem in problems.items()
    ]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    places = {prompt: place for place, prompt in enumerate(problems)}

    def behaviour(seen):
        place, problem = places[seen.text], problems[seen.text]
        if seen.body["model"] == "half" and place % 2:
            return Answer(text="    return 'a wrong answer'")
        body, whole = problem["canonical_solution"], seen.text + problem["canonical_solution"]
        forms = (body, body.strip(), f"Here:\n```python\n{whole}```", whole)
        return Answer(text=forms[place // 2 % len(forms)])

    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    with JudgeEndpoint(behaviour) as server:
        pair = ("--champion", f"{server.url}#half", "--challenger", f"{server.url}#all")
        done = CliRunner().invoke(app, ["gate", *pair, "--examples", str(file), "--json"])
    logging.getLogger("ratchet").handlers.clear()  # they write to a stream that is closed now
    assert done.exit_code == 0, done.output
    primary = json.loads(done.stdout)["primary"]
    assert (primary["champion"], primary["challenger"]) == (0.5, 1.0)
