"""What a stage command shows on the terminal of a run that fails."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from ratchet.errors import InvalidInputError
from ratchet.flows._command import told


@pytest.fixture
def terminal() -> Iterator[io.StringIO]:
    """A handler of the root logger, as Prefect's for the terminal is one."""
    shown = io.StringIO()
    handler = logging.StreamHandler(shown)
    logging.getLogger().addHandler(handler)
    yield shown
    logging.getLogger().removeHandler(handler)


def failing(error: Exception) -> str:
    """Log an error as Prefect 3.9 does for a task and its flow, and raise it."""
    try:
        raise error
    except Exception as raised:
        for name, what in (
            ("prefect.task_runs", "Task run failed with exception: %r"),
            ("prefect.flow_runs", "Encountered exception during execution: %r"),
        ):
            logging.getLogger(name).exception(what, raised)
            logging.getLogger(name).error("Finished in state Failed('%s')", raised)
        raise


def test_an_error_of_ours_is_told_once_and_without_a_traceback(terminal, capsys) -> None:
    assert told(lambda: failing(InvalidInputError("a rule, got 5")), waits="waiting") == 2
    assert capsys.readouterr().err == "\nratchet: a rule, got 5\n"
    assert terminal.getvalue() == ""


def test_a_defect_shows_where_it_happened(terminal) -> None:
    with pytest.raises(ZeroDivisionError):
        told(lambda: failing(ZeroDivisionError("by zero")), waits="waiting")
    assert "Traceback" in terminal.getvalue()
    assert "in failing" in terminal.getvalue()


def test_what_a_run_says_and_warns_of_shows(terminal) -> None:
    def run() -> str:
        logging.getLogger("ratchet").error("a row was set aside")
        logging.getLogger("prefect.flow_runs").warning("a warning")
        return "done"

    assert told(run, waits="waiting") == 0
    assert terminal.getvalue() == "a row was set aside\na warning\n"
