"""The event store. See `ratchet.store.events`."""

from ratchet.store.events import Added, EventStore, Window
from ratchet.store.exposures import Failures, count_users, read_exposures, read_failures
from ratchet.store.reading import EVER
from ratchet.store.tables import MIGRATIONS

__all__ = [
    "EVER",
    "MIGRATIONS",
    "Added",
    "EventStore",
    "Failures",
    "Window",
    "count_users",
    "read_exposures",
    "read_failures",
]
