"""Fences: whoever holds leases writes only while they are still its own.

A process that was stopped, or that a network cut off, may go on after another took over what it
held, and does not know. So each transaction that writes first looks, in the same transaction,
whether the leases are still those that were taken. On PostgreSQL the rows are locked until it ends:
a lease is not taken over in the middle of a transaction of its holder, and is renewed meanwhile.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import sqlalchemy as sa

from ratchet.errors import LeaseLostError

_LEASES = sa.table("leases", sa.column("name"), sa.column("holder"), sa.column("fence"))


@dataclass(frozen=True, slots=True)
class Fence:
    """A lease as it was taken.

    Attributes:
        name: Of the lease.
        holder: Who took it.
        number: How many times it was taken before and then; each taking has its own.
    """

    name: str
    holder: str
    number: int


@dataclass(slots=True)
class HeldLease:
    """A lease that a store object holds.

    Attributes:
        fence: As it was taken.
        times: How often it was taken again and not yet given back.
        ended: Set when it is given back; whoever renews it ends then.
    """

    fence: Fence
    times: int = 1
    ended: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True)
class Held:
    """The leases that a store object holds, by name, and the lock of who changes them."""

    leases: dict[str, HeldLease] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


def make_table(metadata: sa.MetaData) -> sa.Table:
    """Return the table of leases: a row a name, which stays when the lease is given back."""
    return sa.Table(
        "leases",
        metadata,
        sa.Column("name", sa.String(80), primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("taken_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),  # 0: given back
        sqlite_with_rowid=False,
    )


def check_fences(connection: sa.Connection, held: Held) -> None:
    """See that leases are still those that were taken, until the transaction ends.

    Raises:
        LeaseLostError: One was taken over.
    """
    fences = [lease.fence for lease in tuple(held.leases.values())]
    if not fences:
        return
    names = [fence.name for fence in fences]
    query = sa.select(_LEASES).where(_LEASES.c.name.in_(names)).order_by(_LEASES.c.name)
    rows = connection.execute(query.with_for_update(read=True, key_share=True))
    standing = {Fence(*row) for row in rows}
    for fence in fences:
        if fence not in standing:
            raise LeaseLostError(
                f"only who holds {fence.name!r} may write, got a process that another one took "
                "over from, as one that had not renewed it for a minute; "
                "nothing of this was stored, run it again"
            )
