"""Wrong answers that try to pass do not, and programs see nothing but their interpreter."""

import platform
from dataclasses import replace

import pytest

from ratchet.evaluation.code_execution import run_programs
from ratchet.evaluation.code_execution.answers import answer_program
from ratchet.evaluation.code_execution.sandbox import SandboxLimits
from tests.evaluation.code_execution.forgeries import FORGERIES, READERS

pytestmark = pytest.mark.usefixtures("isolation")

LIMITS = SandboxLimits(seconds=6.0, cpu_seconds=2)


def programs(forgeries):
    return [
        answer_program(one.answer, one.tests, prompt=one.prompt, entry_point=one.entry_point)
        for one in forgeries
    ]


def outcomes(forgeries):
    return [found.outcome for found in run_programs(programs(forgeries), LIMITS, workers=4)]


def test_no_wrong_answer_passes():
    ended = dict(zip(FORGERIES, outcomes(FORGERIES.values()), strict=True))
    assert len(ended) >= 30
    assert set(ended.values()) <= {"failed", "crashed", "timed out"}, ended


def test_no_program_reads_anything_of_the_machine():
    read = [program.replace("HOST", repr(platform.node())) for program in READERS.values()]
    ended = dict(zip(READERS, run_programs(read, LIMITS, workers=4), strict=True))
    assert len(ended) >= 10
    assert {found.outcome for found in ended.values()} == {"failed"}, ended


def test_the_right_answer_passes_the_tests_that_the_forgeries_are_for():
    sums = "def total(xs, *_):\n    return round(sum(xs), 9)\n"
    right = [replace(forgery, answer=sums) for forgery in of_sums().values()]
    assert len(right) >= 6
    assert set(outcomes(right)) == {"passed"}


def of_sums():
    """The forgeries whose tests ask for the sum, one for each different tests."""
    other = ("[1, 2]\n", "poly", "in candidate", "Node")
    found = {forgery.tests: forgery for forgery in FORGERIES.values()}
    return {tests: one for tests, one in found.items() if not any(o in tests for o in other)}
