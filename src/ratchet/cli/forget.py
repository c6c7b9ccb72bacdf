"""`ratchet forget`: erase a user's data, and name what was trained on it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ratchet.cli.saying import say
from ratchet.cli.shared import (
    By,
    Note,
    current_settings,
    open_history,
    open_tracker,
    person,
    required_store,
)
from ratchet.errors import InvalidInputError
from ratchet.files.text import counted, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratchet.operate.forgetting import Everywhere
    from ratchet.records import DataExport


def forget(
    user: Annotated[str, typer.Argument(help="The user's id, as it came with the interactions.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Really erase; without it, only preview.")
    ] = False,
    by: By = "",
    note: Note = "",
) -> None:
    """Erase what a user said and the training sets that hold it; list the adapters made of it."""
    from ratchet.operate.forgetting import Everywhere
    from ratchet.records import Release
    from ratchet.store.held import held

    if not user.strip():  # as a text of theirs it would be in every row
        raise InvalidInputError(
            f"a user must be named by their id, got {user!r}; give it as it came with interactions"
        )
    store, settings = required_store("forgetting a user"), current_settings()
    history = open_history(store)
    found = held(store, settings.home, user, in_history=history.user_data(user))
    traced = found.traced
    release = store.latest(Release)
    if not yes:
        say(f"{counted(len(traced.interaction_ids), 'interaction')} would be erased")
        _print_made(traced.folders, traced.versions, release.champion if release else None)
        _print_exports(found.exports)
        say("nothing was changed; add --yes to erase")
        return
    from ratchet.servers import answering_prefect

    everywhere = Everywhere(
        store,
        settings,
        now=datetime.now(UTC),
        prefect=answering_prefect(settings),
        tracker=lambda: open_tracker(settings),
    )
    record = everywhere.forget(user, history, by=person(by), reason=note)
    say(
        f"erased: {counted(record.interactions, 'interaction')}, "
        f"{counted(record.feedback, 'piece')} of feedback, "
        f"{counted(record.verdicts, 'verdict or row set aside', 'verdicts and rows set aside')}, "
        f"texts in {counted(record.records, 'record')}, and "
        "the same rows of history"
    )
    _print_made(record.training_sets, record.versions, release.champion if release else None)
    for name in record.example_sets:
        say(f"evaluation set {name} holds a text of this user: freeze a new one without it")
    if record.examples:
        say(
            f"{counted(record.examples, 'question')} taken out of evaluation sets made of "
            "what users said"
        )
    _print_elsewhere(everywhere)
    _print_exports(found.exports)
    if record.runs:
        say(f"{counted(everywhere.copies, 'copy', 'copies')} of training sets deleted in MLflow")


def _print_exports(exports: Sequence[DataExport]) -> None:
    for one in exports:
        say(
            f"not reached: {one.kind} that {one.by} exported on {one.created_at:%F} to "
            f"{one_line(one.out)} may hold some of it; delete it there"
        )


def _print_elsewhere(everywhere: Everywhere) -> None:
    swept = everywhere.swept
    say(
        f"outside the store: {counted(everywhere.log_lines, 'line')} of the gateway's log, "
        "texts in "
        f"{counted(swept.files, 'file')} and {counted(swept.rows, 'row')} of databases; "
        f"{counted(swept.deleted, 'file')} deleted"
    )
    for line in swept.left:
        say(f"not erased: {one_line(line)}")


def _print_made(folders: tuple[str, ...], versions: tuple[str, ...], champion: str | None) -> None:
    for name in folders:
        say(f"training set {name} holds some of it")
    for version in versions:
        say(f"adapter {version} was trained on it{' (champion)' if version == champion else ''}")
    if champion in versions:
        say("the champion cannot forget: run `ratchet rollback`, or train again without it")
