"""One process at a time, on whatever machine: real processes on real databases."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Thread

import pytest
import sqlalchemy as sa

from ratchet.errors import BusyError, LeaseLostError
from ratchet.records import CycleEnd
from ratchet.store import EventStore
from ratchet.store.holders import Holder
from ratchet.store.leases import LEASE_SECONDS, LOOP, hold, leases_at
from ratchet.store.tables import LEASES

OpenStore = Callable[[], EventStore]
WORK = "work of a test"
PROCESS = f"""
import json, sys
from datetime import UTC, datetime
from ratchet.errors import BusyError, LeaseLostError
from ratchet.records import CycleEnd
from ratchet.store import EventStore
from ratchet.store.leases import hold

url, seconds = sys.argv[1], float(sys.argv[2])
store = EventStore.open(url)

def say(*words):
    print(*words, flush=True)

def end(key):
    store.append(CycleEnd(id=key, created_at=datetime.now(UTC), outcome="finished"))

def race():
    try:
        with hold(store, {WORK!r}, seconds=seconds):
            say("mine")
            sys.stdin.readline()
    except BusyError:
        say("busy")

say("ready")
for line in sys.stdin:
    exec(json.loads(line))
"""


class Process:
    """A process that has the store open and runs statements."""

    def __init__(self, url: str, seconds: float = LEASE_SECONDS) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", PROCESS, url, str(seconds)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.heard() == "ready"

    def tell(self, statement: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(json.dumps(statement) + "\n")
        self.popen.stdin.flush()

    def heard(self) -> str:
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().strip()

    def hold(self) -> None:
        self.tell(f"entered = hold(store, {WORK!r}, seconds=seconds); entered.__enter__()")
        self.tell("say('held')")
        assert self.heard() == "held"


@contextmanager
def process(url: str, seconds: float = LEASE_SECONDS) -> Iterator[Process]:
    started = Process(url, seconds)
    try:
        yield started
    finally:
        started.popen.kill()
        started.popen.wait(30)
        for pipe in (started.popen.stdin, started.popen.stdout):
            assert pipe is not None
            pipe.close()


def ended(key: str) -> CycleEnd:
    return CycleEnd(id=key, created_at=datetime(2026, 3, 2, tzinfo=UTC), outcome="finished")


def expires(store: EventStore) -> int:
    with store.reading() as connection:
        query = sa.select(LEASES.c.expires_at).where(LEASES.c.name == WORK)
        return int(connection.execute(query).scalar_one())


# Taking -------------------------------------------------------------------------------------------


@pytest.mark.mostly_slow("sqlite")
def test_two_processes_that_race_fifty_times_never_both_have_it_nor_neither(
    store_url: str,
) -> None:
    with process(store_url) as one, process(store_url) as other:
        for _ in range(50):
            one.tell("race()")
            other.tell("race()")
            said = {one: one.heard(), other: other.heard()}
            assert sorted(said.values()) == ["busy", "mine"]
            next(who for who, word in said.items() if word == "mine").tell("")


def test_who_holds_it_takes_it_again_and_gives_it_back_with_the_last_one(
    open_store: OpenStore,
) -> None:
    store, other = open_store(), open_store()
    with hold(store, WORK):
        with hold(store, WORK), hold(store, WORK):
            pass
        with pytest.raises(BusyError, match=rf"one {WORK} at a time.*process {os.getpid()}\)"):
            hold(other, WORK).__enter__()
        with hold(other, "another work"):
            pass
    with hold(other, WORK):
        pass


def test_an_error_gives_it_back(open_store: OpenStore) -> None:
    store, other = open_store(), open_store()

    def fails() -> None:
        with hold(store, WORK):
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fails()
    with hold(other, WORK):
        pass


def test_who_waits_gets_it_when_it_is_given_back(open_store: OpenStore) -> None:
    store, other = open_store(), open_store()
    order: list[str] = []

    def waits() -> None:
        with hold(other, WORK, wait=None):
            order.append("other")

    waiting = Thread(target=waits)
    with hold(store, WORK):
        waiting.start()
        with pytest.raises(BusyError):
            hold(open_store(), WORK, wait=1.0).__enter__()
        order.append("first")
    waiting.join(30)
    assert order == ["first", "other"]


def test_two_threads_of_one_process_share_it(open_store: OpenStore) -> None:
    store, other = open_store(), open_store()
    entered = hold(store, WORK)
    taken = Thread(target=entered.__enter__)
    taken.start()
    taken.join(30)
    with hold(store, WORK):
        entered.__exit__(None, None, None)
        with pytest.raises(BusyError):
            hold(other, WORK).__enter__()
    with hold(other, WORK):
        pass


# Holders that are gone ----------------------------------------------------------------------------


def test_a_killed_holder_on_this_machine_frees_it_at_once(
    store_url: str, open_store: OpenStore
) -> None:
    store = open_store()
    with process(store_url) as holder:
        holder.hold()
        with pytest.raises(BusyError, match=rf"process {holder.popen.pid}\)"):
            hold(store, WORK).__enter__()
        holder.popen.send_signal(signal.SIGKILL)
        time.sleep(0.5)  # dead, and not yet fetched by its parent
        with hold(store, WORK):
            assert expires(store) > 0


def test_one_of_another_machine_is_waited_for_as_long_as_its_lease_stands(
    open_store: OpenStore,
) -> None:
    store, other = open_store(), open_store()
    held_elsewhere(store, seconds=2.0)
    with pytest.raises(BusyError, match=r"process 1 on gpu-1"):
        hold(other, WORK).__enter__()
    with hold(other, WORK, wait=20.0):
        assert leases_at(url_of(other))[WORK].note == ""


def test_one_of_another_machine_that_may_be_lost_is_waited_for_until_it_renews(
    open_store: OpenStore,
) -> None:
    store, other = open_store(), open_store()
    held_elsewhere(store, seconds=2.0)
    with hold(other, WORK, outlast=True):  # it never renewed: it was lost
        assert Holder.of(str(read_holder(other))) == Holder.this()

    def renew() -> None:
        time.sleep(1.0)
        with store.atomic() as connection:
            row = sa.update(LEASES).where(LEASES.c.name == WORK)
            connection.execute(row.values(expires_at=LEASES.c.expires_at + 1_000_000))

    held_elsewhere(store, seconds=60.0)
    renewing, began = Thread(target=renew), time.monotonic()
    renewing.start()
    with pytest.raises(BusyError, match=r"process 1 on gpu-1"):
        hold(other, WORK, outlast=True).__enter__()
    assert 0.9 < time.monotonic() - began < 20.0
    renewing.join()


def test_one_of_this_machine_that_lives_is_not_waited_for(open_store: OpenStore) -> None:
    store, other = open_store(), open_store()
    with hold(store, WORK):
        began = time.monotonic()
        with pytest.raises(BusyError, match="got another"):
            hold(other, WORK, outlast=True).__enter__()
        assert time.monotonic() - began < 10.0


def held_elsewhere(store: EventStore, *, seconds: float) -> None:
    """Leave a lease of another machine, which stands: who gave it back did not hold it any more."""
    elsewhere = Holder(machine="another", host="gpu-1", pid=1, started="5").written
    with hold(store, WORK, seconds=seconds), store.atomic() as connection:
        connection.execute(sa.update(LEASES).values(holder=elsewhere))


def read_holder(store: EventStore) -> object:
    with store.reading() as connection:
        return connection.execute(sa.select(LEASES.c.holder)).scalar_one()


def url_of(store: EventStore) -> str:
    with store.reading() as connection:
        return connection.engine.url.render_as_string(hide_password=False)


def test_a_process_number_that_was_given_anew_is_another_process() -> None:
    this = Holder.this()
    assert not this.is_gone
    assert Holder.of(this.written) == this
    if sys.platform == "linux":
        assert Holder(this.machine, this.host, this.pid, "1").is_gone
    assert not Holder("another", this.host, 2**22, "1").is_gone  # who knows
    assert Holder(this.machine, this.host, 2**22 + 1, "1").is_gone  # above Linux' largest number


@pytest.mark.parametrize("written", ["", "{", "[]", json.dumps({"pid": 1})])
def test_a_row_of_another_form_is_nobodys(written: str) -> None:
    assert Holder.of(written) is None


# Fences -------------------------------------------------------------------------------------------


def test_a_stopped_holder_stores_nothing_after_another_took_over(
    store_url: str, open_store: OpenStore
) -> None:
    store = open_store()
    with process(store_url, seconds=2.0) as holder:
        holder.hold()
        holder.tell("end('before'); say('stored')")
        assert holder.heard() == "stored"
        holder.popen.send_signal(signal.SIGSTOP)
        with hold(store, WORK, wait=30.0):
            store.append(ended("other"))
            holder.popen.send_signal(signal.SIGCONT)
            holder.tell("try: end('after')\nexcept LeaseLostError as error: say(error)")
            assert holder.heard().startswith(f"only who holds '{WORK}' may write")
        assert [one.id for one in store.records(CycleEnd)] == ["before", "other"]


def test_a_holder_that_lost_it_is_told_and_may_write_again_once_it_left(
    open_store: OpenStore,
) -> None:
    store, other = open_store(), open_store()
    with hold(store, WORK):
        with other.atomic() as connection:  # as if it had not been renewed for a minute
            connection.execute(sa.update(LEASES).values(expires_at=1))
        store.append(ended("stands"))  # too old, but nobody took over
        with hold(other, WORK):
            with pytest.raises(LeaseLostError, match=f"who holds '{WORK}' may write"):
                store.append(ended("lost"))
            other.append(ended("theirs"))
        with pytest.raises(LeaseLostError):  # also after the other one gave it back
            store.append(ended("lost"))
    store.append(ended("later"))
    assert [one.id for one in store.records(CycleEnd)] == ["stands", "theirs", "later"]


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)  # elsewhere they take turns
def test_nobody_takes_over_in_the_middle_of_a_transaction_which_is_renewed_meanwhile(
    open_store: OpenStore,
) -> None:
    store, other = open_store(), open_store()
    with hold(store, WORK, seconds=1.0), store.atomic():
        before = expires(other)
        time.sleep(1.5)
        assert expires(other) > before
        with pytest.raises(BusyError):
            hold(other, WORK).__enter__()


def test_a_lease_is_renewed_while_it_is_held(open_store: OpenStore) -> None:
    store, other = open_store(), open_store()
    with hold(store, WORK, seconds=1.0):
        time.sleep(2.5)
        with pytest.raises(BusyError):
            hold(other, WORK).__enter__()
    assert expires(other) == 0


def test_leases_are_read_without_a_store_being_made(open_store: OpenStore, store_url: str) -> None:
    store = open_store()
    assert leases_at(store_url) == {}
    with hold(store, LOOP, note="run-1"):
        lease = leases_at(store_url)[LOOP]
        assert (lease.note, lease.is_free, lease.holder) == ("run-1", False, Holder.this())
    assert leases_at(store_url)[LOOP].is_free
