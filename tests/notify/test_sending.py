"""From an alert to the people: routes, repetition, mutes, failures, and death in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ratchet.analyze.alert_steps import next_step
from ratchet.errors import InvalidInputError
from ratchet.notify.channels import open_channels
from ratchet.notify.messages import Message, alert_message
from ratchet.notify.muting import mute, muted_at, mutes, unmute
from ratchet.notify.outgoing import AGAIN, Routes, put_alerts
from ratchet.notify.policy import AlertPolicy
from ratchet.notify.sending import LEASE, backoff, send_due
from ratchet.records import AlertEvent, Delivery
from ratchet.store import EventStore
from ratchet.store.outbox import GIVEN_UP, OVERTAKEN, SENT, WAITING, Outgoing, latest_of, take
from tests.notify.conftest import NOW, PAGES, Clock, Inbox, alert, listening

SECRET = "whsec_" + "VDBTRUNSRVRUMFNFQ1JFVFQwU0VDUkVUVDBTRUNSRVQ="


class Home:
    """A store, a policy with one or two webhooks, and the passes that a schedule makes."""

    def __init__(self, store: EventStore, clock: Clock, policy: dict[str, Any]) -> None:
        self.store, self.clock = store, clock
        self.policy = AlertPolicy.model_validate(policy)
        self.routes = Routes.of(self.policy, [])
        self.channels = open_channels(self.policy, (), {"MY_SECRET": SECRET})

    def add(self, event: AlertEvent) -> AlertEvent:
        self.store.append(event)
        return event

    def pass_(self) -> dict[str, int]:
        put_alerts(self.store, self.routes, self.clock())
        return dict(send_due(self.store, self.channels, self.compose, self.clock))

    def compose(self, taken: Outgoing, now: Any) -> Message | None:
        event = self.store.get(AlertEvent, taken.about)
        if event is None or muted_at(mutes(self.store), event, now) is not None:
            return None
        again = taken.kind == AGAIN
        return alert_message(event, key=taken.id, links=PAGES, now=now, again=again)


def webhook(inbox: Inbox) -> dict[str, str]:
    return {"type": "webhook", "url": inbox.url(), "secret": "MY_SECRET"}


@pytest.fixture
def home(store: EventStore, clock: Clock, inbox: Inbox) -> Callable[..., Home]:
    def make(**route: Any) -> Home:
        policy = {
            "channels": {"desk": webhook(inbox)},
            "routes": [{"name": "all", "to": ["desk"], **route}],
        }
        return Home(store, clock, policy)

    return make


def titles(inbox: Inbox) -> list[str]:
    return [body["title"].partition(":")[0] for body in inbox.bodies]


# Once ---------------------------------------------------------------------------------------------


def test_each_step_is_told_once_however_many_passes_there_are(
    home: Callable[..., Home], inbox: Inbox, clock: Clock
) -> None:
    here = home()
    opened = here.add(alert())
    for _ in range(3):
        here.pass_()
        clock.pass_(minutes=5)
    here.add(next_step(opened, "resolved", clock(), by=None, note="back to normal"))
    here.pass_()
    assert titles(inbox) == ["New critical alert", "Critical alert is over"]
    deliveries = here.store.records(Delivery)
    assert [one.delivered for one in deliveries] == [True, True]
    assert {one.channel for one in deliveries} == {"desk"}


def test_two_routes_to_one_channel_tell_it_once(store: EventStore, clock: Clock) -> None:
    with listening() as inbox:
        here = Home(store, clock, {
            "channels": {"desk": webhook(inbox)},
            "routes": [
                {"name": "a", "to": ["desk"]},
                {"name": "b", "to": ["desk"], "kinds": ["board"]},
            ],
        })  # fmt: skip
        here.add(alert())
        here.pass_()
        assert len(inbox.received) == 1


def test_who_was_told_of_a_critical_alert_is_told_that_it_is_less_and_over(
    home: Callable[..., Home], inbox: Inbox, clock: Clock
) -> None:
    here = home(severity="critical")
    here.add(alert(id="other", alert_id="alert-2", severity="warning"))
    opened = here.add(alert())
    clock.pass_(hours=1)
    changes = {"id": "e2", "change": "updated", "severity": "warning", "created_at": clock()}
    lower = here.add(opened.model_copy(update=changes))
    clock.pass_(hours=1)
    here.add(next_step(lower, "resolved", clock(), by="ada", note="mended"))
    here.pass_()
    assert titles(inbox) == ["New critical alert", "Alert changed", "Alert is over"]


def test_what_is_older_than_a_day_is_no_news(home: Callable[..., Home], inbox: Inbox) -> None:
    here = home()
    here.add(alert(created_at=NOW - timedelta(hours=25)))
    here.add(alert(id="e2", alert_id="a2", created_at=NOW - timedelta(hours=23)))
    here.pass_()
    assert len(inbox.received) == 1


def test_what_an_earlier_version_delivered_is_not_sent_again(
    home: Callable[..., Home], inbox: Inbox
) -> None:
    from ratchet.notify.outgoing import message_id

    here = home()
    here.add(alert())
    here.store.append(Delivery(id=message_id("event-1", "desk"), created_at=NOW,
                               event_id="event-1", channel="desk", delivered=True))  # fmt: skip
    here.pass_()
    assert inbox.received == []


# Again --------------------------------------------------------------------------------------------


def test_an_alert_is_repeated_until_somebody_looks_after_it(
    home: Callable[..., Home], inbox: Inbox, clock: Clock
) -> None:
    here = home(repeat_hours=1)
    opened = here.add(alert())
    for _ in range(25):  # two hours of passes
        here.pass_()
        clock.pass_(minutes=5)
    assert titles(inbox) == [
        "New critical alert", "Critical alert still open after 3 hours",
        "Critical alert still open after 4 hours",
    ]  # fmt: skip
    here.add(next_step(opened, "acknowledged", clock(), by="ada", note=None))
    for _ in range(40):
        here.pass_()
        clock.pass_(minutes=5)
    assert titles(inbox)[3:] == ["Critical alert is looked after"]


def test_without_an_interval_nothing_is_repeated(
    home: Callable[..., Home], inbox: Inbox, clock: Clock
) -> None:
    here = home()
    here.add(alert())
    for _ in range(5):
        here.pass_()
        clock.pass_(hours=5)
    assert len(inbox.received) == 1


def test_after_a_pause_of_the_schedule_one_repetition_comes_and_not_all_that_were_missed(
    home: Callable[..., Home], inbox: Inbox, clock: Clock
) -> None:
    here = home(repeat_hours=1)
    here.add(alert())
    here.pass_()
    clock.pass_(hours=12)
    here.pass_()
    here.pass_()
    assert len(inbox.received) == 2


# Muted --------------------------------------------------------------------------------------------


def test_what_is_muted_is_told_once_the_mute_is_over_if_it_is_still_open(
    home: Callable[..., Home], inbox: Inbox, clock: Clock
) -> None:
    here = home()
    mute(here.store, "board", hours=2, by="ada", reason="the vendor moves", now=clock())
    clock.pass_(minutes=1)
    stays = here.add(alert(created_at=clock()))
    ends = here.add(alert(id="e2", alert_id="alert-2", created_at=clock()))
    here.pass_()
    clock.pass_(minutes=30)
    here.add(next_step(ends, "resolved", clock(), by=None, note=None))
    here.pass_()
    assert inbox.received == []
    kept = latest_of(here.store, "desk", OVERTAKEN, most=9)
    assert {one.said for one in kept} == {"muted by ada until 2026-11-24 11:30 UTC"}
    clock.pass_(hours=2)
    here.pass_()
    here.pass_()
    assert [body["about"] for body in inbox.bodies] == [stays.alert_id]
    assert titles(inbox) == ["Critical alert still open after 4 hours"]


def test_a_mute_of_one_alert_leaves_the_others_and_can_be_ended(
    home: Callable[..., Home], inbox: Inbox, clock: Clock
) -> None:
    here = home(repeat_hours=1)
    here.add(alert(id="e1", alert_id="aaa"))
    here.add(alert(id="e2", alert_id="bbb"))
    here.pass_()
    mute(here.store, "aa", hours=24, by="ada", reason="known", now=clock())
    clock.pass_(hours=1, minutes=1)
    here.pass_()
    assert [body["about"] for body in inbox.bodies] == ["aaa", "bbb", "bbb"]
    unmute(here.store, "aa", by="bob", reason="not known after all", now=clock())
    here.pass_()
    assert [body["about"] for body in inbox.bodies][3:] == ["aaa"]


def test_a_message_that_waits_when_its_alert_is_muted_is_not_sent(
    home: Callable[..., Home], inbox: Inbox, clock: Clock
) -> None:
    here = home()
    here.add(alert())
    inbox.answers = [(503, {}, "")]
    assert here.pass_() == {"put off": 1}
    mute(here.store, "alert-1", hours=1, by="ada", reason="known", now=clock())
    clock.pass_(minutes=2)
    assert here.pass_() == {"overtaken": 1}
    assert len(inbox.received) == 1


@pytest.mark.parametrize(
    ("about", "hours", "reason", "said"),
    [("zzz", 1.0, "x", "names 0 alerts"), ("", 1.0, "x", "names 0 alerts"),
     ("all", 0.0, "x", "more than 0"), ("all", 9999.0, "x", "at most 744 hours"),
     ("all", float("nan"), "x", "more than 0"), ("all", 1.0, " ", "must have a reason")],
)  # fmt: skip
def test_a_mute_names_something_has_an_end_and_a_reason(
    store: EventStore, about: str, hours: float, reason: str, said: str
) -> None:
    store.append(alert())
    with pytest.raises(InvalidInputError, match=said):
        mute(store, about, hours=hours, by="ada", reason=reason, now=NOW)


def test_what_is_not_muted_cannot_be_unmuted(store: EventStore) -> None:
    with pytest.raises(InvalidInputError, match="names 0"):
        unmute(store, "all", by="ada", reason="x", now=NOW)


# Failures -----------------------------------------------------------------------------------------


def test_a_failure_is_recorded_and_tried_again_later_and_later_in_order(
    home: Callable[..., Home], inbox: Inbox, clock: Clock
) -> None:
    here = home()
    opened = here.add(alert())
    inbox.answers = [(503, {}, "down"), (503, {}, "down")]
    assert here.pass_() == {"put off": 1}
    here.add(next_step(opened, "resolved", clock(), by=None, note=None))
    assert here.pass_() == {"put off": 1}  # the second one is asked alone, and fails
    clock.pass_(seconds=119)
    here.pass_()
    clock.pass_(seconds=2)
    here.pass_()
    assert titles(inbox)[-2:] == ["New critical alert", "Critical alert is over"]
    records = here.store.records(Delivery)
    assert [one.delivered for one in records] == [False, False, True, True]
    assert records[0].reason == "503 down"


def test_the_wait_doubles_up_to_an_hour() -> None:
    minutes = [backoff(n) / timedelta(minutes=1) for n in range(1, 10)]
    assert minutes == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_server_that_asks_to_wait_is_not_asked_before(
    home: Callable[..., Home], inbox: Inbox, clock: Clock
) -> None:
    here = home()
    here.add(alert())
    inbox.answers = [(429, {"Retry-After": "600"}, "rate_limited")]
    here.pass_()
    for _ in range(11):
        clock.pass_(seconds=50)
        here.pass_()
    assert len(inbox.received) == 1
    clock.pass_(seconds=51)
    here.pass_()
    assert len(inbox.received) == 2


def test_one_dead_channel_keeps_nothing_from_the_others(store: EventStore, clock: Clock) -> None:
    with listening() as inbox:
        dead = {"type": "webhook", "url": "http://127.0.0.1:1/", "secret": "MY_SECRET"}
        here = Home(store, clock, {
            "channels": {"dead": dead, "desk": webhook(inbox)},
            "routes": [{"name": "all", "to": ["dead", "desk"]}],
        })  # fmt: skip
        for number in range(20):
            here.add(alert(id=f"e{number}", alert_id=f"a{number}"))
        done = here.pass_()
        assert done == {"put off": 1, "sent": 20}


def test_after_a_day_a_message_is_given_up_and_that_is_kept(
    home: Callable[..., Home], clock: Clock, inbox: Inbox
) -> None:
    here = home()
    here.add(alert())
    inbox.answers = [(503, {}, "down")] * 100
    for _ in range(60):
        here.pass_()
        clock.pass_(minutes=30)
    (lost,) = latest_of(here.store, "desk", GIVEN_UP, most=9)
    assert lost.said == "it is no news any more; the last try said: 503 down"
    assert here.store.records(Delivery)[-1].reason == f"given up: {lost.said}"
    assert latest_of(here.store, "desk", WAITING) == []
    assert len(inbox.received) < 40


def test_a_channel_that_left_the_policy_is_told_of_nothing_more(
    home: Callable[..., Home], inbox: Inbox, clock: Clock
) -> None:
    here = home()
    here.add(alert())
    inbox.answers = [(503, {}, "down")]
    here.pass_()
    clock.pass_(minutes=2)
    assert dict(send_due(here.store, {}, here.compose, clock)) == {"given up": 1}


# Death in between ---------------------------------------------------------------------------------

CHILD = """
import sys
from datetime import datetime
from ratchet.store import EventStore
from tests.notify import test_sending as t
from tests.notify.conftest import Clock, Inbox
clock = Clock()
clock.now = datetime.fromisoformat(sys.argv[3])
inbox = Inbox(port=int(sys.argv[2]))
store = EventStore.open(sys.argv[1], clock=clock)
home = t.Home(store, clock, {"channels": {"desk": t.webhook(inbox)},
              "routes": [{"name": "all", "to": ["desk"]}]})
print(home.pass_(), flush=True)
"""


def child(url: str, inbox: Inbox, clock: Clock) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", CHILD, url, str(inbox.port), clock().isoformat()]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=dict(os.environ))


def test_killed_before_the_answer_a_message_is_sent_again_under_its_id(
    store: EventStore, tmp_path: Path, clock: Clock
) -> None:
    """The process dies by SIGKILL after the server has the message and before it answers."""
    store.append(alert())
    url = f"sqlite:///{tmp_path / 'store.db'}"
    held: list[subprocess.Popen[str]] = []

    def kill(_body: bytes) -> tuple[int, str]:
        if held:
            process = held.pop()
            process.send_signal(signal.SIGKILL)
            process.wait()
        return 200, "ok"

    with listening(kill) as inbox:
        process = child(url, inbox, clock)
        held.append(process)
        assert process.wait(60) == -signal.SIGKILL
        here = Home(store, clock, {"channels": {"desk": webhook(inbox)},
                                   "routes": [{"name": "all", "to": ["desk"]}]})  # fmt: skip
        assert here.pass_() == {}  # the lease is not over: it may be on its way
        clock.pass_(minutes=4)
        assert here.pass_() == {"sent": 1}
        assert here.pass_() == {}
        first, second = (headers["webhook-id"] for _, headers, _ in inbox.received)
        assert first == second
    (kept,) = here.store.records(Delivery)
    assert kept.delivered
    assert latest_of(store, "desk", SENT)[0].attempts == 2


def test_passes_at_the_same_time_send_each_message_once(
    store: EventStore, tmp_path: Path, clock: Clock
) -> None:
    for number in range(30):
        store.append(alert(id=f"e{number}", alert_id=f"a{number}"))
    url = f"sqlite:///{tmp_path / 'store.db'}"

    def slow(_body: bytes) -> tuple[int, str]:
        time.sleep(0.02)
        return 200, "ok"

    with listening(slow) as inbox:
        processes = [child(url, inbox, clock) for _ in range(2)]
        done = [process.communicate(timeout=120)[0] for process in processes]
        assert all(process.returncode == 0 for process in processes), done
        ids = [headers["webhook-id"] for _, headers, _ in inbox.received]
    assert len(ids) == len(set(ids)) == 30


def test_a_try_that_lost_its_lease_ends_nothing(store: EventStore, clock: Clock) -> None:
    from ratchet.notify.outgoing import message_id
    from ratchet.store.outbox import end, put

    made = Outgoing(id=message_id("event-1", "desk"), kind="step", about="event-1", channel="desk",
                    created_at=NOW, expires_at=NOW + timedelta(days=1))  # fmt: skip
    put(store, [made, made])
    first = take(store, now=clock(), lease=LEASE)
    clock.pass_(minutes=4)
    second = take(store, now=clock(), lease=LEASE)
    assert first is not None
    assert second is not None
    assert (first.was_cut_off, second.was_cut_off) == (False, True)
    assert not end(store, first, GIVEN_UP, now=clock())
    assert end(store, second, SENT, now=clock())
    assert take(store, now=clock() + timedelta(days=9), lease=LEASE) is None
