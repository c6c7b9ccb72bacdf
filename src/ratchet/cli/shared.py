"""What the commands share."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from ratchet.settings import Settings, load_settings


def current_settings() -> Settings:
    """Return the settings of the working folder."""
    return load_settings(os.environ, Path.cwd())


def nothing_stored(found: Settings) -> bool:
    """Tell whether the store is a file that is not there yet; opening it would create it."""
    database = found.store_url.removeprefix("sqlite:///")
    return found.store_url.startswith("sqlite") and not Path(database).exists()


def show_progress() -> None:
    """Show Ratchet's own lines of progress on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    ours = logging.getLogger("ratchet")
    ours.setLevel(logging.INFO)
    if not ours.handlers:
        ours.addHandler(handler)
