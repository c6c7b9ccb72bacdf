import itertools
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.errors import InvalidInputError
from ratchet.evaluation.code_execution import (
    humaneval_program,
    pass_at_k,
    pass_rate,
    run_programs,
)
from ratchet.evaluation.code_execution.sandbox import Execution, SandboxLimits


def test_pass_at_k_gives_the_published_figures(published_numbers):
    examples = published_numbers["passk"]["examples"]
    assert len(examples) == 4
    for samples, correct, k, printed in examples:
        assert round(pass_at_k(samples, correct, k), 10) == printed


@given(
    st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n)))
)
def test_pass_at_k_is_the_share_of_all_choices_with_a_right_answer(numbers):
    samples, correct, k = numbers
    choices = list(itertools.combinations([True] * correct + [False] * (samples - correct), k))
    assert pass_at_k(samples, correct, k) == pytest.approx(sum(map(any, choices)) / len(choices))


def test_pass_at_k_of_many_answers_is_stable():
    exact = 1 - math.comb(99_000, 100) / math.comb(100_000, 100)
    assert pass_at_k(100_000, 1_000, 100) == pytest.approx(exact)


@pytest.mark.parametrize("numbers", [(5, 6, 1), (5, -1, 1), (5, 1, 0), (5, 1, 6), (5, 0.5, 1)])
def test_counts_that_cannot_be_are_refused(numbers):
    with pytest.raises(InvalidInputError, match="got"):
        pass_at_k(*numbers)


def test_pass_rate_is_by_problem_and_none_without_answers():
    good, bad = Execution("passed", "", 0.1), Execution("failed", "", 0.1)
    scored = pass_rate([[good, bad], [bad, bad], []], k=1)
    assert scored.values[:2].tolist() == [0.5, 0.0]
    assert math.isnan(scored.values[2])
    assert scored.whole == 0.25


def test_the_published_example_samples_come_out_right(isolation, shared_data, published_numbers):
    folder = shared_data / "humaneval"
    problem = json.loads((folder / "example_problem.jsonl").read_text("utf-8"))
    samples = [
        json.loads(line)
        for line in (folder / "example_samples.jsonl").read_text("utf-8").splitlines()
    ]
    programs = [humaneval_program(problem, sample["completion"]) for sample in samples]
    executions = run_programs(programs, SandboxLimits(seconds=1.5))
    printed = published_numbers["passk"]["human_eval_example_samples_pass1"]
    assert len(samples) == 6
    assert pass_rate([executions]).whole == printed
