"""What answers the users of a home, by its settings: for flows and commands alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ratchet.deploy.adapters import AdapterShelf
from ratchet.deploy.answering import Answering
from ratchet.deploy.backends import KEY_VARIABLE
from ratchet.models.endpoint import key_from
from ratchet.settings import Settings
from ratchet.store import EventStore
from ratchet.tracking import Tracker


def answering_of(
    settings: Settings,
    store: EventStore,
    tracker: Callable[[], Tracker],
    environ: Mapping[str, str],
) -> Answering:
    """Return what versions have to answer by before users are sent to them.

    Args:
        settings: Of the home, with its backend and where adapters lie for it.
        store: The home's store.
        tracker: Opens MLflow.
        environ: Holds the backend's key.
    """
    return Answering(
        store=store,
        tracker=tracker,
        shelf=AdapterShelf(settings.home, settings.adapter_root, settings.backend_adapter_root),
        backend=settings.backend,
        key=key_from(environ, KEY_VARIABLE),
    )
