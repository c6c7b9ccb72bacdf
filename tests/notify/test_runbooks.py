"""Every kind of alert has a runbook, and every command of one is a command."""

from __future__ import annotations

import shlex
from typing import Any, get_args

import pytest
import typer

from ratchet.cli import app
from ratchet.notify.runbooks import KINDS, RUNBOOKS, WEEKLY
from ratchet.records import AlertEvent
from tests.notify.conftest import message


def test_every_kind_that_a_record_may_have_has_a_runbook() -> None:
    kinds = get_args(AlertEvent.model_fields["kind"].annotation)
    assert len(kinds) >= 6
    assert set(kinds) < set(RUNBOOKS)
    assert set(KINDS) == {*RUNBOOKS, WEEKLY}


@pytest.mark.parametrize("kind", RUNBOOKS)
def test_a_runbook_says_what_it_means_what_to_look_at_and_what_to_do(kind: str) -> None:
    runbook = RUNBOOKS[kind]
    assert len(runbook.means) > 100
    assert len(runbook.look) >= 2
    assert len(runbook.do) >= 2
    assert runbook.commands


@pytest.mark.parametrize("kind", get_args(AlertEvent.model_fields["kind"].annotation))
def test_every_message_about_an_alert_leads_to_its_runbook(kind: str) -> None:
    assert message(kind=kind).runbook == f"https://ratchet.example/runbooks/{kind}"


@pytest.mark.parametrize(
    "command", [command for book in RUNBOOKS.values() for command, _ in book.commands]
)
def test_every_command_of_a_runbook_parses(command: str) -> None:
    words = shlex.split(command)
    assert words[0] == "ratchet"
    group: Any = typer.main.get_command(app)
    with group.make_context("ratchet", words[1:]) as context:
        name, found, rest = group.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        with found.make_context(name, list(rest), parent=context) as inner:
            left = [*getattr(inner, "_protected_args", ()), *inner.args]
            if left and hasattr(found, "resolve_command"):
                name, found, rest = found.resolve_command(inner, left)
                found.make_context(name, list(rest), parent=inner)
