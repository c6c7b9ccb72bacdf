"""`ratchet init`: five questions, the files that they become, and what to do next."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from ratchet.cli.doctor import tell_health
from ratchet.cli.import_server import access
from ratchet.cli.saying import say, say_text
from ratchet.cli.shared import check_address, current_settings, key_of, open_tracker
from ratchet.errors import InvalidInputError, RatchetError
from ratchet.files.text import counted, printable
from ratchet.files.whole import write_whole

if TYPE_CHECKING:
    from ratchet.operate.setup import Answers


def init(
    answers: Annotated[
        Path | None,
        typer.Option(help="YAML file with the answers; nothing is asked. See docs/settings.md."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Ask nothing: present answers, and write over files.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the files, and write none.")
    ] = False,
) -> None:
    """Ask five questions, write ratchet.toml and deployments.yaml here, and check them.

    Present answers are the defaults, so that it can be run again. No file is written over unasked.

    Exit codes: 0; 1 where `ratchet doctor` finds a problem; 2 for bad answers.
    """
    from ratchet.operate.setup import Answers, files_of, present_answers

    folder = Path.cwd()
    found = present_answers(folder)
    if answers is not None:
        found |= _read(answers)
    elif not yes:
        found = _ask(found)
    given = Answers.model_validate(found)
    if given.answers_from == "server":
        check_address("address", given.address or None)
    files = files_of(given, folder)
    changed = {path: text for path, text in files.items() if _present(path) != text}
    for path, text in changed.items():
        say(f"{path.name}:")
        say_text(text)
    if dry_run:
        say("nothing was written")
        return
    _allow(changed, yes=yes, may_ask=answers is None)
    for path, text in changed.items():
        write_whole(path, text.encode())
        say(f"wrote {path}")
    if not changed:
        say("both files say so already")
    _check(given)


def _ask(found: dict[str, Any]) -> dict[str, Any]:
    """Ask the questions, with the present answers as defaults; return the answers."""
    say("1. Where do answers come from?")
    kind = _one("server, logs or elsewhere (somebody else's model)", "answers_from", found)
    what = "its address (empty: the local model)" if kind == "server" else "file, folder or URL"
    _text(what, "address", found)
    say("2. What do people say about them?")
    if kind == "server" and found["feedback"] == "scores":
        found["feedback"] = "feedback"
    said = _one("feedback (page and API), scores (in the logs) or judge", "feedback", found)
    if said == "scores":
        _text("file that says what scores mean (empty: the format does)", "scores", found)
    if said == "judge":
        _text("file with judges", "judges", found)
    say("3. What is the model?")
    if kind == "elsewhere" and found["base_model"] == "smollm2":
        found["base_model"] = ""
    _text("smollm2, or the folder of its weights (empty: nobody has them)", "base_model", found)
    _text("its name in the registry", "model_name", found)
    say("4. Where to train?")
    if not found["base_model"]:
        found["train"] = "nowhere"
    if _one("here (this machine), pool (of Prefect) or nowhere", "train", found) == "pool":
        _text("the pool's name", "pool", found)
    say("5. Who approves a new version?")
    _one("always a person, borderline (and safety) or never", "approval", found)
    names = typer.prompt(
        "their names, separated by commas (empty: anybody)",
        default=", ".join(found["approvers"]),
        show_default=bool(found["approvers"]),
    )
    found["approvers"] = tuple(name.strip() for name in names.split(",") if name.strip())
    return found


def _one(question: str, name: str, found: dict[str, Any]) -> str:
    from ratchet.operate.setup import Answers

    choices = get_args(Answers.model_fields[name].annotation)

    def known(given: str) -> str:
        if given.strip() not in choices:
            raise typer.BadParameter(f"one of {', '.join(choices)}, got {printable(given)!r}")
        return given.strip()

    found[name] = typer.prompt(question, default=found[name], value_proc=known)
    return str(found[name])


def _text(question: str, name: str, found: dict[str, Any]) -> None:
    present = printable(found[name])
    given = typer.prompt(question, default=present, show_default=bool(present))
    found[name] = "" if given.strip() == "-" else given.strip()


def _read(path: Path) -> Mapping[str, Any]:
    from ratchet.files.yaml import read_yaml

    return read_yaml(path, what="answers", holds="answers_from, feedback, train and approval")


def _present(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return None


def _allow(changed: Mapping[Path, str], *, yes: bool, may_ask: bool) -> None:
    """See that no present file is written over unasked.

    Raises:
        InvalidInputError: It would be.
    """
    over = [path for path in changed if path.exists()]
    if yes or not over:
        return
    names = " and ".join(path.name for path in over)
    if not may_ask:
        raise InvalidInputError(
            f"a file is written over only when told so, got {names} with other content; add --yes, "
            "or move it away"
        )
    typer.confirm(f"Write over {names}?", abort=True)


def _check(given: Answers) -> None:
    """Look at what was written as `ratchet doctor` does, and name the next command."""
    from ratchet.deploy.backends import KEY_VARIABLE
    from ratchet.operate.doctor import Doctor

    settings = current_settings()
    tracker, key = partial(open_tracker, settings), key_of(KEY_VARIABLE)
    found = list(Doctor(settings, datetime.now(UTC), tracker, key, os.environ).look())
    healthy = tell_health(found)
    if given.answers_from != "server":
        healthy &= _tell_source(given.address)
    say(f"next: {given.next_command}" if healthy else "next: mend this, then ratchet doctor")
    raise typer.Exit(0 if healthy else 1)


def _tell_source(address: str) -> bool:
    """Say whether the logs can be read, and in which format."""
    from ratchet.doors.importing import prepare
    from ratchet.doors.servers import is_server, server_of

    try:
        if is_server(address):
            server = server_of(address, access())
            say(f"{'ok':8} source: {server.says} of {server.door.name}")
            return True
        what = prepare(address, now=datetime.now(UTC))
    except (RatchetError, OSError) as error:
        say(f"{'problem':8} source: {printable(str(error))}")
        return False
    say(f"{'ok':8} source: {counted(len(what.files), 'file')} of {what.door.name}")
    return True
