"""One stage of the loop in this process, told in words: `ratchet collect`, `train` and so on.

python -m ratchet.flows._command collect OPTIONS      # JSON
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from ratchet.analyze.alert_steps import open_alerts
from ratchet.errors import InvalidInputError, RatchetError, WaitingError
from ratchet.files.text import finding, shown_text
from ratchet.flows._runtime import workspace
from ratchet.flows._waiting import result_of
from ratchet.flows.analyze import AnalyzeOptions, analyze
from ratchet.flows.collect import CollectOptions, collect
from ratchet.flows.deploy import DeployOptions, deploy
from ratchet.flows.improve import ImproveOptions, improve
from ratchet.flows.rollout import RolloutOptions, rollout
from ratchet.improve.training.finetune import result_in
from ratchet.records import (
    AlertEvent,
    Analysis,
    Candidate,
    Cycle,
    Decision,
    ExampleSet,
    Release,
    TrainingSet,
    derive_id,
)
from ratchet.store.arrivals import count_answers
from ratchet.store.cycles import cycle_window
from ratchet.views.text.stages import (
    analyzed_text,
    collected_text,
    gated_text,
    looked_text,
    trained_text,
    watched_text,
)

Options = TypeVar("Options", bound=BaseModel)
_OF_RUNS = ("prefect.flow_runs", "prefect.task_runs")


def options_of(kind: type[Options], given: str) -> Options:
    """Read options of a flow, in JSON.

    Raises:
        InvalidInputError: One is wrong.
    """
    try:
        return kind.model_validate_json(given)
    except ValidationError as error:
        raise InvalidInputError(f"options, {finding(error, 200)}; correct it") from error


def _collect(given: str) -> str:
    options = options_of(CollectOptions, given)
    key = str(result_of(collect(options, return_state=True)))
    store = workspace().store
    cycle = store.get(Cycle, key)
    assert cycle is not None  # the flow has just stored it, or goes on with it
    examples = store.get(ExampleSet, cycle.example_set_id)
    asked = len(examples.examples) if examples else 0
    return collected_text(cycle, count_answers(store, cycle_window(cycle)), asked)


def _analyze(given: str) -> str:
    options = options_of(AnalyzeOptions, given)
    key = str(result_of(analyze(options, return_state=True)))
    store = workspace().store
    analysis = store.get(Analysis, key) if key else None
    if analysis is None:
        return watched_text(open_alerts(store.records(AlertEvent, latest=1_000)))
    return analyzed_text(analysis)


def _train(given: str) -> str:
    options = options_of(ImproveOptions, given)
    key = str(result_of(improve(options, return_state=True)))
    store = workspace().store
    candidate = store.get(Candidate, key)
    assert candidate is not None  # the flow has just stored it
    training_set = store.get(TrainingSet, candidate.training_set_id)
    cycle = store.get(Cycle, candidate.cycle_id)
    assert training_set is not None
    assert cycle is not None
    result = result_in(workspace().settings.home.joinpath(candidate.path))
    lengths = result.lengths_said if result is not None and result.maximum_tokens else ""
    return trained_text(training_set, candidate, cycle.champion, lengths)


def _gate(given: str) -> str:
    options = options_of(DeployOptions, given)
    key = str(result_of(deploy(options, return_state=True)))
    store = workspace().store
    decision = store.get(Decision, key)
    assert decision is not None  # the flow has just stored it, or knew it
    return gated_text(decision, store.get(Release, derive_id("release", key)))


def _look(given: str) -> str:
    options = options_of(RolloutOptions, given)
    return looked_text(str(rollout(options)))


STAGES: dict[str, Callable[[str], str]] = {
    "collect": _collect,
    "analyze": _analyze,
    "train": _train,
    "gate": _gate,
    "rollout": _look,
}


def main(arguments: list[str]) -> int:
    """Run a stage and print what it did; nothing new to do is no failure."""
    stage, given = arguments
    return told(partial(STAGES[stage], given), waits="nothing to do yet")


def told(run: Callable[[], str], *, waits: str) -> int:
    """Print what a run says, or why it waits or fails; return the exit code.

    Args:
        run: Gives the words.
        waits: How the line of one that waits begins.
    """
    for handler in logging.getLogger().handlers:  # Prefect's, on the terminal
        handler.addFilter(_is_news)
    try:
        sys.stdout.write(f"\n{shown_text(run())}\n")
    except WaitingError as error:
        sys.stdout.write(f"\n{waits}: {shown_text(str(error))}\n")
    except RatchetError as error:
        sys.stderr.write(f"\nratchet: {shown_text(str(error))}\n")
        return 2
    return 0


def _is_news(record: logging.LogRecord) -> bool:
    """Tell whether a line says more than the error of ours that is told when the run has ended.

    Prefect logs it with a traceback, once for each flow and task that it passes through; its UI
    shows these lines all the same.
    """
    if not record.name.startswith(_OF_RUNS):
        return True
    error = record.exc_info[1] if record.exc_info else None
    ended = record.getMessage().startswith("Finished in state Failed(")
    return not ended and not isinstance(error, RatchetError)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
