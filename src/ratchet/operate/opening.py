"""Opening the store that settings name, as flows and commands do."""

from __future__ import annotations

from ratchet.errors import SettingsError
from ratchet.settings import Settings, without_password
from ratchet.store import EventStore
from ratchet.store.checking import read_schema
from ratchet.store.prices import load_prices


def open_store(settings: Settings) -> EventStore:
    """Open a home's store, with the prices that the settings name.

    Raises:
        SettingsError: The store belongs to another assistant, or is not the one that is expected.
        InvalidInputError: The store or the file of prices does not open.
    """
    check_expected(settings)
    prices = load_prices(settings.prices)
    return EventStore.open(settings.store_url, assistant=settings.model_name, prices=prices)


def check_expected(settings: Settings) -> None:
    """See that the store is the one that the settings expect; nothing is made or changed.

    A flow run that was started on another machine, with a home of its own, would else work on an
    empty store and end well.

    Raises:
        SettingsError: It is another one, or there is none.
        InvalidInputError: The store does not open.
    """
    if settings.store_id is None:
        return
    schema = read_schema(settings.store_url)
    found = None if schema is None else schema.identity
    if found == settings.store_id:
        return
    where = without_password(settings.store_url)
    raise SettingsError(
        f"this was started for the store {settings.store_id}, got "
        f"{'no store' if found is None else f'the store {found}'} at {where}; set "
        "RATCHET_STORE_URL here to the address of that store, or where the store is meant to be "
        "this one run `ratchet up` with it, which writes its identity into the deployments"
    )
