"""What the commands share."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.settings import Settings, load_settings

if TYPE_CHECKING:
    from ratchet.tracking import Tracker


def current_settings() -> Settings:
    """Return the settings of the working folder."""
    return load_settings(os.environ, Path.cwd())


def nothing_stored(found: Settings) -> bool:
    """Tell whether the store is a file that is not there yet; opening it would create it."""
    database = found.store_url.partition(":///")[2]
    return found.store_url.startswith("sqlite") and not Path(database).exists()


def show_progress() -> None:
    """Show Ratchet's own lines of progress on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    ours = logging.getLogger("ratchet")
    ours.setLevel(logging.INFO)
    if not ours.handlers:
        ours.addHandler(handler)


def open_tracker(found: Settings) -> Tracker:
    """Open the home's MLflow; that takes seconds, so only where it is needed."""
    from ratchet.tracking import Tracker

    return Tracker(found.tracking_uri, artifacts=found.artifacts, model_name=found.model_name)
