"""Code that models write, run against tests in a sandbox: pass@k.

executions = run_programs([humaneval_program(problem, answer) for answer in answers])
pass_at_k(len(executions), sum(e.outcome == "passed" for e in executions), 1)
"""

from __future__ import annotations

import logging
import math
import operator
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ratchet.errors import InvalidInputError
from ratchet.evaluation.code_execution.sandbox import (
    Execution,
    Program,
    SandboxLimits,
    require_isolation,
    run_isolated,
)
from ratchet.evaluation.scored import Scored, mean_scored

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 10.0


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Chance that at least one of k answers passes, estimated from more answers without bias.

    1 - C(n - c, k) / C(n, k) for c of n answers that pass: the share of all choices of k among the
    n that hold one that passes. To plug the share c / n into 1 - (1 - p)^k instead is biased.

    Units: counts in, a probability out.
    Assumptions: independent answers to one problem.
    Error rate: none: the estimate is unbiased. Of several problems take the mean, and intervals
    over problems.
    When not to use: with k above n, where nothing unbiased exists.

    Args:
        samples: Answers n, at least k.
        correct: How many pass, 0 to n.
        k: How many may be tried, at least 1.

    Raises:
        InvalidInputError: A number is out of range or not whole.

    Example:
        >>> round(pass_at_k(10, 3, 5), 4)
        0.9167

    References:
        Chen, M., et al. (2021). Evaluating large language models trained on code. arXiv:2107.03374.
    """
    try:
        samples, correct, k = (operator.index(number) for number in (samples, correct, k))
    except TypeError:
        raise InvalidInputError(
            f"samples, correct and k must be whole numbers, got {samples!r}, {correct!r}, {k!r}"
        ) from None
    if not (0 <= correct <= samples and 1 <= k <= samples):
        raise InvalidInputError(
            f"correct must be in [0, samples] and k in [1, samples], got {correct} and {k} of "
            f"{samples}; draw at least k answers"
        )
    if samples - correct < k:
        return 1.0
    return 1.0 - math.prod((samples - correct - tried) / (samples - tried) for tried in range(k))


def run_programs(
    programs: Sequence[str | Program],
    limits: SandboxLimits | None = None,
    *,
    workers: int | None = None,
) -> list[Execution]:
    """Run programs in a sandbox each, several at a time.

    Args:
        programs: Answers with their tests, or sources that say of themselves how they ended.
        limits: What each may use.
        workers: Boxes at a time; twice the cores where left out, since hanging ones wait.

    Returns:
        An execution for each, in order.

    Raises:
        IsolationError: The machine does not isolate; nothing was run.
    """
    require_isolation()
    at_once = workers or 2 * (os.cpu_count() or 1)
    executions: list[Execution] = []
    said = started = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        for execution in pool.map(lambda program: run_isolated(program, limits), programs):
            executions.append(execution)
            if time.monotonic() - said > PROGRESS_SECONDS:
                said = time.monotonic()
                left = (said - started) / len(executions) * (len(programs) - len(executions))
                logger.info(
                    "ran %d of %d programs, %.0f s left", len(executions), len(programs), left
                )
    return executions


def humaneval_program(problem: Mapping[str, str], completion: str) -> Program:
    """Return a completion of a problem in HumanEval's form with the problem's tests.

    Args:
        problem: With prompt, test and entry_point.
        completion: What the model wrote after the prompt.
    """
    tests, entry_point = problem["test"], problem["entry_point"]
    return Program(
        (f"{problem['prompt']}{completion}\n",),
        f"{tests}\ncheck({entry_point})\n",
        f"{problem['prompt'].rstrip()}\n",
        entry_point,
    )


def pass_rate(outcomes: Sequence[Sequence[Execution]], k: int = 1) -> Scored:
    """Return pass@k of each problem, from the executions of its answers; none without answers.

    Raises:
        InvalidInputError: A problem has answers, but fewer than k.
    """
    values = [
        pass_at_k(len(found), sum(one.outcome == "passed" for one in found), k) if found else np.nan
        for found in outcomes
    ]
    return mean_scored(f"pass@{k}", values)
