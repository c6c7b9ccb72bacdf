"""What the commands share: settings, the store, and options that mean the same everywhere."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ratchet.errors import InvalidInputError
from ratchet.files.logs import Format, log_handler
from ratchet.files.text import printable
from ratchet.settings import Settings, load_settings

if TYPE_CHECKING:
    from ratchet.deploy.answering import Answering
    from ratchet.store import EventStore
    from ratchet.store.history import History
    from ratchet.tracking import Tracker

MOST_NAME_CHARACTERS = 200


def finite(option: typer.CallbackParam, value: float | None) -> float | None:
    """Refuse a number that is infinite or none, which no limit of an option excludes.

    Raises:
        InvalidInputError: It is.
    """
    if value is not None and not math.isfinite(value):
        raise InvalidInputError(
            f"{_shown_name(option)} must be a finite number, got {value}; leave the option out for "
            "its default"
        )
    return value


def one_line_name(option: typer.CallbackParam, value: str) -> str:
    """Refuse a name that is longer than a line of text, or holds what steers a terminal.

    Raises:
        InvalidInputError: It is, or does.
    """
    if len(value) > MOST_NAME_CHARACTERS or not value.isprintable():
        raise InvalidInputError(
            f"{_shown_name(option)} must be one line of at most {MOST_NAME_CHARACTERS} printable "
            f"characters, got {len(value)} characters: {printable(value)!r}; shorten or correct it"
        )
    return value


def one_line_or_none(option: typer.CallbackParam, value: str | None) -> str | None:
    """Refuse a name as `one_line_name` does, where one is given; an empty one is none.

    Raises:
        InvalidInputError: It is longer than a line of text, or holds what steers a terminal.
    """
    if value is not None and not value.strip():
        raise InvalidInputError(
            f"{_shown_name(option)} must be a name, got nothing; leave the option out"
        )
    return None if value is None else one_line_name(option, value)


def readable_text(option: typer.CallbackParam, value: str) -> str:
    """Refuse a text that is not UTF-8: no store can keep it.

    Raises:
        InvalidInputError: It is none.
    """
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidInputError(
            f"{_shown_name(option)} must be UTF-8, got {printable(value)!r}; type it again"
        )
    return value


def _shown_name(option: typer.CallbackParam) -> str:
    return option.opts[0] if option.param_type_name == "option" else str(option.name).upper()


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
By = Annotated[str, typer.Option(help="Your name; default: $USER.", callback=one_line_name)]
Note = Annotated[str, typer.Option(help="Why; kept with what you did.", callback=readable_text)]


def current_settings() -> Settings:
    """Return the settings of the working folder."""
    return load_settings(os.environ, Path.cwd())


def key_of(variable: str) -> str | None:
    """Return the key that a variable of the environment holds, or the file that it names."""
    from ratchet.models.endpoint import key_from

    return key_from(os.environ, variable)


def check_address(option: str, url: str | None) -> None:
    """Refuse what is no address of a server.

    Raises:
        InvalidInputError: It is none.
    """
    from ratchet.models.endpoint import server_address

    if url is None:
        return
    try:
        server_address(url)
    except InvalidInputError as error:
        raise InvalidInputError(f"{option}: {error}") from error
    if not url.isprintable() or " " in url:
        raise InvalidInputError(
            f"{option} must be an address without spaces or line breaks, got {printable(url)!r}; "
            "correct it, for example http://127.0.0.1:8001"
        )


def person(by: str) -> str:
    """Return who gave a command: the name of `--by`, else the user of the system."""
    return by or os.environ.get("USER", "somebody")


def existing_store() -> EventStore | None:
    """Open the home's store; None where its file does not exist, and none is created."""
    from ratchet.operate.opening import open_store

    settings = current_settings()
    database = settings.store_url.partition(":///")[2]
    if settings.store_url.startswith("sqlite") and not Path(database).exists():
        return None
    return open_store(settings)


def required_store(what: str) -> EventStore:
    """Open the home's store, which a command cannot do without.

    Args:
        what: What needs it, with its article.

    Raises:
        InvalidInputError: There is none.
    """
    store = existing_store()
    if store is None:
        raise InvalidInputError(
            f"{what} needs a home folder with a store, got none in "
            f"{current_settings().home.name!r}; run it where `ratchet demo`, `ratchet serve` or "
            "`ratchet ingest` ran, or set RATCHET_HOME"
        )
    return store


def created_store() -> EventStore:
    """Open the home's store; home and store are created where they are missing."""
    from ratchet.operate.opening import open_store

    settings = current_settings()
    settings.make_home()
    return open_store(settings)


def open_history(of: EventStore | None = None) -> History:
    """Open the history that the settings name; nothing is created.

    Args:
        of: The store whose history it is; None where one that is gone is told of otherwise.

    Raises:
        ConflictError: The store knows of a history there, and it is gone.
    """
    from ratchet.store.history import History

    return History.open(current_settings().history, of=of)


def show_progress(form: Format = "text") -> None:
    """Show Ratchet's own lines of progress on standard error."""
    handler = log_handler(form, "%(message)s")
    ours = logging.getLogger("ratchet")
    ours.setLevel(logging.INFO)
    if not ours.handlers:
        ours.addHandler(handler)


def open_tracker(settings: Settings) -> Tracker:
    """Open the home's MLflow; that takes seconds, so only where it is needed."""
    from ratchet.tracking import Tracker

    return Tracker(
        settings.tracking_uri, artifacts=settings.artifacts, model_name=settings.model_name
    )


def open_answering(settings: Settings, store: EventStore) -> Answering:
    """Return what versions have to answer by before users are sent to them."""
    from ratchet.operate.answering import answering_of

    return answering_of(settings, store, lambda: open_tracker(settings), os.environ)
