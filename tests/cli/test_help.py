"""`--help`: commands by stage, each with an example that works."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest
import typer

from ratchet.cli import app

STAGES = ["Start", "Collect", "Analyze", "Improve", "Deploy", "Serve", "Look after"]
"""The order of the loop, with what comes before and after it."""
WRONG_WORDS = typer.BadParameter.__base__
"""What typer raises for an option or command that there is not."""


def commands():
    """Every command that does something, under the words that call it."""
    found = {}

    def walk(command, words):
        subcommands = getattr(command, "commands", None)
        if subcommands is None:
            found[" ".join(words)] = command
        for name, inner in (subcommands or {}).items():
            walk(inner, [*words, name])

    walk(typer.main.get_command(app), [])
    return found


COMMANDS = commands()


def resolved(words):
    """The words that name a command, and its context, out of a whole command line."""
    command, names, rest = typer.main.get_command(app), [], list(words)
    while hasattr(command, "commands"):
        context = command.make_context("ratchet", rest[:1])
        name, command, rest = command.resolve_command(context, rest)
        names.append(name)
    return " ".join(names), command.make_context(names[-1], rest)


def test_all_commands_are_seen_here():
    assert len(COMMANDS) >= 25
    assert {"demo", "gate", "judge validate", "keys create", "variants end"} <= set(COMMANDS)


def test_every_command_and_group_stands_in_the_panel_of_a_stage_and_in_their_order():
    entries = typer.main.get_command(app).commands
    panels = {name: entry.rich_help_panel for name, entry in entries.items()}
    assert {name: panel for name, panel in panels.items() if panel not in STAGES} == {}


def test_the_help_shows_the_stages_in_the_order_of_the_loop():
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, "-m", "ratchet.cli", "--help"],
        env=environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    shown = re.findall(r"^\W*(\w[\w ]*?) ─+\W*$", done.stdout, re.M)
    assert shown[0] == "Options"
    assert shown[1:] == [stage for stage in STAGES if stage in shown]
    assert {"Start", "Collect", "Analyze", "Deploy", "Serve", "Look after"} <= set(shown)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_an_example_that_parses_as_that_command(name):
    found = re.fullmatch(r"Example: ratchet (.+)", COMMANDS[name].epilog or "")
    assert found, f"`ratchet {name}` has no example in its help"
    called, context = resolved(shlex.split(found[1]))
    assert called == name
    assert context.params
    assert COMMANDS[name].help


def test_an_example_with_an_option_that_there_is_not_would_be_found():
    with pytest.raises(WRONG_WORDS):
        resolved(["alerts", "--acknowledged", "3f9a"])
    with pytest.raises(WRONG_WORDS):
        resolved(["judges", "list"])
