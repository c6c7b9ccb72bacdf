"""Opening the store that settings name, as flows and commands do."""

from __future__ import annotations

from ratchet.settings import Settings
from ratchet.store import EventStore
from ratchet.store.prices import load_prices


def open_store(settings: Settings) -> EventStore:
    """Open a home's store, with the prices that the settings name.

    Raises:
        SettingsError: The store belongs to another assistant.
        InvalidInputError: The store or the file of prices does not open.
    """
    prices = load_prices(settings.prices)
    return EventStore.open(settings.store_url, assistant=settings.model_name, prices=prices)
