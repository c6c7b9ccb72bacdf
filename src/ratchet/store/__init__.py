"""The event store. See `ratchet.store.events`."""

from ratchet.store.events import Added, EventStore, Window
from ratchet.store.exposures import count_users, read_exposures
from ratchet.store.tables import MIGRATIONS

__all__ = ["MIGRATIONS", "Added", "EventStore", "Window", "count_users", "read_exposures"]
