"""The flow deploy with a set of code: the answers are run against their tests, and that decides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ratchet.evaluation.paired import decoding_name, question_digest
from ratchet.records import CODE_TOKENS, Example, ExampleSet, Message
from tests.flows.prefect_home import new_home
from tests.flows.test_approval_flow import Waiting, filled

pytestmark = [
    pytest.mark.slow, pytest.mark.timeout(400), pytest.mark.usefixtures("isolation"),
]  # fmt: skip

PROBLEMS = tuple(
    Example(
        id=f"code-{number}",
        messages=(Message(role="user", content=f"Write add{number}(x): x plus {number}."),),
        target="",
        tests=f"assert add{number}(1) == {number + 1}\nassert add{number}(-5) == {number - 5}",
        entry_point=f"add{number}",
    )
    for number in range(40)
)
RIGHT = {"digest-base": 20, "digest-1": 40, "digest-2": 2}  # problems that a model solves


class Coding(Waiting):
    """Models that route messages and write code of several lines."""

    def record(self, digest: str, right: int) -> None:
        frozen = self.home.store.get(ExampleSet, self.regression.example_set_id)
        assert frozen is not None
        labels = {
            question_digest(example): example.target if place < right else "no idea"
            for part in (self.examples, frozen.examples)
            for place, example in enumerate(part)
        }
        code = {
            question_digest(example): f"```python\ndef {example.entry_point}(x):\n"
            f"    y = {place if place < RIGHT[digest] else 0.5}\n    return x + y\n```"
            for place, example in enumerate(PROBLEMS)
        }
        for given, one_line in ((labels, True), (code, False)):
            name = decoding_name(CODE_TOKENS, one_line=one_line)
            self.home.store.add_answers(digest, name, given, dict.fromkeys(given, 0.1))


def test_a_set_of_code_guards_and_is_run(tmp_path: Path, served_once: Path) -> None:
    file = tmp_path / "code.jsonl"
    rows = [
        {
            "id": one.id, "prompt": one.prompt, "tests": one.tests,
            "entry_point": one.entry_point,
        }
        for one in PROBLEMS
    ]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rule = {"metric": "pass@1", "examples": "code", "margin": 0.1}
    home = new_home(tmp_path, served_once)
    with home.serving() as environ:
        coding = filled(home, environ, Coding)
        coding.propose(2, 90)
        changes = {"approval": "never", "guardrails": [rule], "secondary": []}
        worse = coding.deploy({"code": str(file)}, **changes)
        coding.propose(1, 90)
        better = coding.deploy({"code": str(file)}, **changes)
    # the routed messages are 30 against 90 of 120 right in both cases: the code decides
    assert (worse.verdict, better.verdict) == ("reject", "promote")
    for decision, solved in ((worse, 2), (better, 40)):
        found = decision.measured[1]
        assert (found.name, found.examples) == ("pass@1 on code", 40)
        assert (found.champion, found.challenger) == (0.5, solved / 40)
        assert found.higher_is_better
    assert "pass@1 on code is worse by more than 0.1" in worse.reasons[0]
