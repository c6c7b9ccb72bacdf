"""Answers of chat models as programs, run in the sandbox."""

import pytest

from ratchet.evaluation.code_execution.answers import answer_code, answer_program
from ratchet.evaluation.code_execution.sandbox import SandboxLimits, run_isolated

pytestmark = pytest.mark.usefixtures("isolation")

PROMPT = 'from typing import List\n\ndef total(xs: List[int]) -> int:\n    """Return the sum."""\n'
CHECK = "def check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0\n"
ASSERTS = "assert total([1, 2]) == 3\nassert total([]) == 0"
WHOLE = "def total(xs):\n    return sum(xs)\n"
LIMITS = SandboxLimits(seconds=20.0, cpu_seconds=10)


def outcome(answer, tests=CHECK, prompt=PROMPT, entry_point="total"):
    program = answer_program(answer, tests, prompt=prompt, entry_point=entry_point)
    return run_isolated(program, LIMITS).outcome


@pytest.mark.parametrize(
    "answer",
    [
        "    return sum(xs)\n",  # goes on from the prompt, as HumanEval's completions
        "return sum(xs)",  # the same, stripped
        "out = 0\n    for x in xs:\n        out += x\n    return out",  # stripped of several lines
        "out = 0\nfor x in xs:\n    out += x\nreturn out",  # without its indentation
        "    return sum(xs)\n\n\nprint(total([4]))",
        WHOLE,
        "from __future__ import annotations\n" + WHOLE,
        "def helper(xs):\n    return sum(xs)\n\ndef total(xs):\n    return helper(xs)",
        f"Here it is:\n\n```python\n{WHOLE}```\n\nCall it so:\n```python\ntotal(None)\n```",
        f"First a helper.\n```py\nx = 1\n```\nThen:\n```\n{WHOLE}```",
        f"```python\n{WHOLE}",  # cut off before the fence is closed
        f"```text\nnot this\n```\n```Python3\n{WHOLE}```",
        f"{WHOLE}\nif __name__ == '__main__':\n    raise SystemExit(total(input()))\n",
        "def total(xs: List[int]) -> int:\n    return sum(xs)\n",  # uses the prompt's import
    ],
)
def test_right_answers_pass_in_every_form(answer):
    assert outcome(answer) == "passed"


@pytest.mark.parametrize("answer", [WHOLE, f"```python\n{WHOLE}```", "total = sum"])
def test_tests_without_check_are_run_as_they_are(answer):
    assert outcome(answer, ASSERTS, "Write total, the sum of a list.", None) == "passed"
    assert outcome(answer, ASSERTS, "Write `total`.", "total") == "passed"


def test_a_prompt_in_chat_may_hold_the_code_that_it_begins():
    prompt = f"Complete this function:\n```python\n{PROMPT}```\nOnly the code, please."
    for answer in ("return sum(xs)", "def total(xs: List[int]):\n    return sum(xs)"):
        assert outcome(answer, prompt=prompt) == "passed"


@pytest.mark.parametrize(
    "answer",
    [
        "", "I cannot help with that.", "return 0", "```python\n```", "def total(xs): return 1",
        "def other(xs):\n    return sum(xs)", "\x00", "def total(xs:\n", "raise SystemExit(0)",
        "import os\nos._exit(0)", "exit()",
        # what should not get around the tests
        "import builtins\nbuiltins.exec = builtins.compile = print\ndef total(xs): return 1",
        "def check(candidate): pass\ndef total(xs): return 1",
        'def total(xs): return 1\nx = """', "def total(xs): return 1\nimport sys; sys.exit()",
        "main = exec = compile = print\ndef total(xs): return 1",
        "def total(xs): return 1\n__name__ = '__main__'\ndel check",
    ],
)  # fmt: skip
def test_wrong_and_hostile_answers_do_not_pass(answer):
    assert outcome(answer) != "passed"
    assert outcome(answer, ASSERTS, "Write total.", None) != "passed"


def test_the_code_of_an_answer_is_the_block_that_defines_what_is_tested():
    answer = "```python\nx = 1\n```\n```python\ndef f(): pass\n```"
    assert answer_code(answer) == "x = 1\n"
    assert answer_code(answer, "f") == "def f(): pass\n"
    assert answer_code(answer, "ff") == "x = 1\n"
    assert answer_code("    return 1") == "    return 1"
