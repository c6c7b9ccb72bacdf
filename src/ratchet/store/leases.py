"""Leases: one process at a time does a work over a store, on whatever machine.

    with hold(store, PRUNING):
        ...

A lease is a row. It is taken in one transaction, renewed by a thread, and free again when it is
given back, when its process is gone from this machine, or when it was not renewed for a minute.
PostgreSQL's clock counts there, this machine's on SQLite, whose file is no other machine's. What a
holder writes after it lost a lease is refused (`ratchet.store.fences`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from ratchet.errors import BusyError
from ratchet.store.connections import unpooled
from ratchet.store.copying import connected, sqlite_path
from ratchet.store.fences import Fence, HeldLease
from ratchet.store.holders import Holder
from ratchet.store.rows import microseconds
from ratchet.store.tables import LEASES
from ratchet.store.transactions import Transactions, insert_if_new

logger = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
"""So long a lease stands that is not renewed."""
_RENEWALS = 4  # in that time
_POLL_SECONDS = 0.5

LOOP, TRAINING = "loop", "training"
PASS = "pass over what is new"
"""What `analyze` does every five minutes."""
ANALYSIS = "analysis of a cycle"
LOOK = "look at a rollout"
RELEASE = "release of a challenger"
GOLDEN = "version of the golden set"
PRUNING = "pruning"


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as it stands.

    Attributes:
        holder: The process that took it last; None where the row cannot be read.
        note: What it said of itself.
        is_free: Whether it may be taken: given back, too old, or its process is gone.
        expires_at: Until when it stands, by the clock that all holders see.
    """

    name: str
    holder: Holder | None
    note: str
    is_free: bool
    expires_at: int


def read_leases(connection: sa.Connection) -> dict[str, Lease]:
    """Return the leases of a store that were ever taken, by name."""
    moment = _moment(connection)
    rows = connection.execute(sa.select(LEASES).where(LEASES.c.fence > 0))
    return {row.name: _lease(row, moment) for row in rows}


def leases_at(url: str) -> dict[str, Lease]:
    """Return the leases of a store by name, without changing it; none where there is no store.

    Raises:
        InvalidInputError: It does not open.
    """
    path = sqlite_path(url)
    if path is not None and not path.exists():
        return {}
    with connected(url) as connection:
        is_there = sa.inspect(connection).has_table(LEASES.name)
        return read_leases(connection) if is_there else {}


@contextmanager
def hold(
    store: Transactions,
    name: str,
    *,
    note: str = "",
    wait: float | None = 0.0,
    outlast: bool = False,
    seconds: float = LEASE_SECONDS,
) -> Iterator[None]:
    """Hold a lease; who holds it by the same store object may take it again.

    Args:
        store: The store. What it writes meanwhile is written under the lease.
        name: Of the work, in words: another process is told that one at a time may run.
        note: Kept with the lease.
        wait: Seconds to wait for another holder; None for as long as it takes.
        outlast: Whether to wait longer for one of another machine, until it renews the lease, or
            has not for so long that it counts as lost.
        seconds: So long the lease stands when the process is stopped.

    Raises:
        BusyError: Another process holds it.
    """
    taken = _awaited(store, name, note, wait, seconds, outlast=outlast)
    if taken is not None:
        renewing = (store, taken, seconds)
        threading.Thread(target=_renew, args=renewing, daemon=True, name=f"lease {name}").start()
    try:
        yield
    finally:
        _leave(store, name)


def _awaited(
    store: Transactions,
    name: str,
    note: str,
    wait: float | None,
    seconds: float,
    *,
    outlast: bool,
) -> HeldLease | None:
    """Take a lease as soon as it is free; None where this store object holds it already."""
    rule = f"one {name} at a time may run over a store"
    deadline, told = None if wait is None else time.monotonic() + wait, False
    first: Lease | None = None
    while True:
        with store.held.lock:
            if name in store.held.leases:
                store.held.leases[name].times += 1
                return None
            fence = _take(store, name, note, seconds)
            if fence is not None:
                store.held.leases[name] = HeldLease(fence)
                return store.held.leases[name]
        standing = _standing(store, name)
        first, is_over = first or standing, deadline is not None and time.monotonic() >= deadline
        if is_over and not (outlast and standing == first and _may_be_lost(standing)):
            raise BusyError(
                f"{rule}, got another ({_in_words(standing)}); wait for it, or give this one a "
                "store of its own (RATCHET_HOME, and RATCHET_STORE_URL where you set it)"
            )
        if not told:
            logger.info("%s: waiting for another (%s)", rule, _in_words(standing))
            told = True
        time.sleep(_POLL_SECONDS)


def _take(store: Transactions, name: str, note: str, seconds: float) -> Fence | None:
    """Take a lease where it is free, in one transaction."""
    mine = LEASES.c.name == name
    with store.reading() as connection:  # first, since it makes no writer wait
        known = connection.execute(sa.select(LEASES).where(mine)).one_or_none()
        if known is not None and not _lease(known, _moment(connection)).is_free:
            return None
    with _writing(store) as connection:
        first = {"holder": "", "note": "", "fence": 0, "taken_at": 0, "expires_at": 0}
        connection.execute(insert_if_new(connection, LEASES), first | {"name": name})
        # a row that is locked is one whose holder writes or renews just now
        locked = sa.select(LEASES).where(mine).with_for_update(skip_locked=True)
        row = connection.execute(locked).one_or_none()
        moment = _moment(connection)
        if row is None or not _lease(row, moment).is_free:
            return None
        fence = Fence(name, Holder.this().written, row.fence + 1)
        taken = {"holder": fence.holder, "note": note, "fence": fence.number, "taken_at": moment}
        expires = moment + int(seconds * 1e6)
        connection.execute(sa.update(LEASES).where(mine).values(**taken, expires_at=expires))
        return fence


def _leave(store: Transactions, name: str) -> None:
    """Give a lease back, unless it was taken more often than it was given back."""
    with store.held.lock:
        lease = store.held.leases[name]
        lease.times -= 1
        if lease.times:
            return
        lease.ended.set()
        del store.held.leases[name]
        try:
            _set_end(store, lease.fence, seconds=None)
        except Exception as error:  # of the database or its driver: it grows too old by itself
            logger.warning("%r is not given back: %s", name, error)


def _renew(store: Transactions, lease: HeldLease, seconds: float) -> None:
    """Renew a lease until it is given back or was lost; a database that is away is asked again."""
    name = lease.fence.name
    while not lease.ended.wait(seconds / _RENEWALS):
        try:
            if not _set_end(store, lease.fence, seconds=seconds) and not lease.ended.is_set():
                logger.warning("%r was taken over; nothing is stored any more", name)
                return
        except Exception as error:  # of the database or its driver
            logger.warning("%r is not renewed: %s", name, error)


def _set_end(store: Transactions, fence: Fence, *, seconds: float | None) -> bool:
    """Say how long a lease stands from now on, None: it does no longer; False: it is another's."""
    own = sa.and_(
        LEASES.c.name == fence.name,
        LEASES.c.holder == fence.holder,
        LEASES.c.fence == fence.number,
        LEASES.c.expires_at > 0,  # not given back meanwhile
    )
    with _writing(store) as connection:
        end = 0 if seconds is None else _moment(connection) + int(seconds * 1e6)
        changed = connection.execute(sa.update(LEASES).where(own).values(expires_at=end))
        return bool(changed.rowcount)


def _standing(store: Transactions, name: str) -> Lease | None:
    with store.reading() as connection:
        return read_leases(connection).get(name)


def _may_be_lost(lease: Lease | None) -> bool:
    """Whether nobody here can tell that the holder lives: a lease that is not renewed ends soon."""
    return lease is not None and lease.holder is not None and not lease.holder.is_here


def _in_words(lease: Lease | None) -> str:
    return lease.holder.in_words if lease and lease.holder else "a process that has just taken it"


def _lease(row: sa.Row[Any], moment: int) -> Lease:
    holder = Holder.of(row.holder)
    is_free = row.expires_at <= moment or (holder is not None and holder.is_gone)
    return Lease(row.name, holder, row.note, is_free, row.expires_at)


def _moment(connection: sa.Connection) -> int:
    """Return the time, in microseconds since 1970, of the clock that all holders see."""
    if connection.dialect.name == "sqlite":
        return microseconds(datetime.now(UTC))
    clock = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    return int(connection.exec_driver_sql(clock).scalar_one())


@contextmanager
def _writing(store: Transactions) -> Iterator[sa.Connection]:
    """A transaction beside the one that this thread may have open, on a connection of its own."""
    with store.reading() as opened:
        engine = opened.engine
    with unpooled(engine).connect() as connection:
        connection.execution_options(ratchet_begin="BEGIN IMMEDIATE")
        with connection.begin():
            yield connection
