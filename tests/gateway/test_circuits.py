"""When a version is left alone, and when it is tried again."""

from __future__ import annotations

import pytest

from ratchet.gateway.circuits import OPEN_SECONDS, RECENT_SECONDS, Circuits, Counts

KEY = ("backend", "m/2")


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def circuits(clock):
    return Circuits(clock)


def fail(circuits, callers):
    for caller in callers:
        circuits.attempt(KEY, caller, False)


def test_a_version_is_left_alone_once_several_callers_were_failed_by_it(circuits):
    fail(circuits, "aab")
    assert not circuits.is_open(KEY)
    fail(circuits, "c")
    assert circuits.is_open(KEY)
    assert not circuits.is_open(("backend", "m/1"))


def test_a_few_failures_among_many_answers_leave_it_in_service(circuits):
    for caller in "defghijk":
        circuits.attempt(KEY, caller, True)
    fail(circuits, "abc")
    assert not circuits.is_open(KEY)
    fail(circuits, "lmnop")
    assert circuits.is_open(KEY)  # eight of sixteen


def test_old_failures_do_not_count(circuits, clock):
    fail(circuits, "ab")
    clock.now += RECENT_SECONDS + 1.0
    fail(circuits, "c")
    assert not circuits.is_open(KEY)
    assert circuits.versions() == {"m/2": Counts(0, 1)}


def test_after_a_while_one_request_tries_it_and_an_answer_brings_it_back(circuits, clock):
    fail(circuits, "abc")
    clock.now += OPEN_SECONDS
    assert [circuits.is_open(KEY) for _ in range(3)] == [False, True, True]
    fail(circuits, "d")
    assert circuits.is_open(KEY)
    clock.now += OPEN_SECONDS
    assert not circuits.is_open(KEY)
    circuits.attempt(KEY, "e", True)
    assert [circuits.is_open(KEY) for _ in range(3)] == [False] * 3


def test_what_was_repaired_is_asked_at_once(circuits):
    fail(circuits, "abc")
    circuits.close(KEY)
    assert not circuits.is_open(KEY)


def test_names_that_callers_make_up_do_not_fill_the_memory(circuits):
    for number in range(5_000):
        circuits.attempt(("backend", f"made-up-{number}"), "a", False)
    assert len(circuits.versions()) <= 1_000
