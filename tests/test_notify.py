"""Alerts reach people: real Apprise against a real web server."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from ratchet.errors import SettingsError
from ratchet.notify import check_addresses, deliver, delivery_id, text_of, title_of
from ratchet.records import AlertEvent

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)


@dataclass
class Inbox:
    """A web server that keeps what it is sent and answers with `status`."""

    status: int = 200
    received: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    port: int = 0

    def address(self, path: str = "alerts") -> str:
        return f"json://127.0.0.1:{self.port}/{path}"


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    kept = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept.received.append((self.path, json.loads(body)))
            self.send_response(kept.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.port = int(server.server_address[1])
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield kept
    server.shutdown()
    server.server_close()
    thread.join()


def alert(**changes: Any) -> AlertEvent:
    values = {
        "id": "event-1", "alert_id": "alert-1", "created_at": NOW, "change": "opened",
        "kind": "board", "severity": "critical", "model_version": "support-router/2",
        "signal": "thumbs_down", "since": NOW - timedelta(hours=2), "value": 0.31, "lower": 0.27,
        "upper": 0.35, "expected": 0.12, "observations": 481,
        "certainty": "the board as a whole raises a false alarm at most once in 30 days",
        "message": "support-router/2: thumbs down 31.0% where 12.0% is normal, "
        "since about 2026-11-24 07:30 UTC, 481 observations",
        "action": "roll back to support-router/1: it began with this release",
    }  # fmt: skip
    return AlertEvent.model_validate(values | changes)


def test_an_opened_alert_says_what_since_when_how_sure_and_what_to_do(inbox: Inbox) -> None:
    (delivery,) = deliver([alert()], [inbox.address()], sent=(), now=NOW)
    assert delivery.id == delivery_id(alert(), inbox.address())
    ((path, body),) = inbox.received
    assert path.rstrip("/") == "/alerts"
    assert body["title"] == "support-router/2: thumbs down, new alert (critical)"
    assert body["type"] == "failure"
    what, sure, todo = body["message"].splitlines()
    assert what == alert().message
    assert "since about 2026-11-24 07:30 UTC" in what
    assert sure == f"How sure: {alert().certainty}"
    assert todo == f"What to do: {alert().action}"
    assert (delivery.delivered, delivery.channel, delivery.event_id) == (True, "json", "event-1")
    assert delivery.created_at == NOW


def test_what_was_delivered_is_not_sent_again(inbox: Inbox) -> None:
    first = deliver([alert()], [inbox.address()], sent=(), now=NOW)
    again = deliver([alert()], [inbox.address()], sent={first[0].id}, now=LATER)
    assert again == ()
    assert len(inbox.received) == 1


def test_the_next_step_of_the_same_alert_is_sent(inbox: Inbox) -> None:
    (first,) = deliver([alert()], [inbox.address()], sent=(), now=NOW)
    updated = alert(id="event-2", change="updated", created_at=LATER)
    deliver([alert(), updated], [inbox.address()], sent={first.id}, now=LATER)
    assert [body["title"] for _, body in inbox.received] == [
        "support-router/2: thumbs down, new alert (critical)",
        "support-router/2: thumbs down, alert changed (critical)",
    ]  # fmt: skip


def test_a_server_error_is_kept_as_not_delivered_and_tried_again(inbox: Inbox) -> None:
    inbox.status = 500
    (failed,) = deliver([alert()], [inbox.address()], sent=(), now=NOW)
    assert not failed.delivered
    (again,) = deliver([alert()], [inbox.address()], sent=(), now=LATER)
    assert again.id != failed.id  # both tries are kept in the journal
    inbox.status = 200
    (arrived,) = deliver([alert()], [inbox.address()], sent=(), now=LATER)
    assert arrived.delivered
    assert deliver([alert()], [inbox.address()], sent={arrived.id}, now=LATER) == ()
    assert len(inbox.received) == 3


def test_a_server_that_is_not_there_is_kept_as_not_delivered() -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"json://127.0.0.1:{taken.getsockname()[1]}/alerts"
        (failed,) = deliver([alert()], [address], sent=(), now=NOW)
    assert not failed.delivered


@pytest.mark.parametrize(("age", "sent"), [(timedelta(hours=24), 1), (timedelta(hours=25), 0)])
def test_what_is_older_than_a_day_is_not_sent_to_a_new_address(
    inbox: Inbox, age: timedelta, sent: int
) -> None:
    old = alert(created_at=NOW - age)
    assert len(deliver([old], [inbox.address()], sent=(), now=NOW)) == sent
    assert len(inbox.received) == sent


@pytest.mark.parametrize(
    ("change", "severity", "kind", "says"),
    [
        ("opened", "critical", "failure", "new alert (critical)"),
        ("opened", "warning", "warning", "new alert (warning)"),
        ("acknowledged", "critical", "failure", "alert acknowledged (critical)"),
        ("resolved", "critical", "success", "alert resolved (critical)"),
        ("resolved", "warning", "success", "alert resolved (warning)"),
    ],
)
def test_a_resolved_alert_is_good_news_and_others_are_as_bad_as_they_are(
    inbox: Inbox, change: str, severity: str, kind: str, says: str
) -> None:
    deliver([alert(change=change, severity=severity)], [inbox.address()], sent=(), now=NOW)
    ((_, body),) = inbox.received
    assert (body["type"], body["title"]) == (kind, f"support-router/2: thumbs down, {says}")


def test_the_note_of_a_step_names_who_made_it() -> None:
    by_ada = alert(change="acknowledged", by="ada", note="looking at it")
    assert text_of(by_ada).splitlines()[3] == "ada: looking at it"
    by_itself = alert(change="resolved", note="back to normal")
    assert text_of(by_itself).splitlines()[-1] == "Ratchet: back to normal"
    slow = alert(signal="latency_seconds_p99", model_version="m/7")
    assert title_of(slow) == "m/7: latency seconds p99, new alert (critical)"


@pytest.mark.parametrize("action", ["", "roll back to support-router/1"])
def test_a_resolved_alert_asks_for_nothing_also_where_an_older_record_still_does(
    action: str,
) -> None:
    lines = text_of(alert(change="resolved", action=action, note="back to normal")).splitlines()
    assert lines == [
        alert().message, f"How sure: {alert().certainty}", "Ratchet: back to normal"
    ]  # fmt: skip


def test_every_address_gets_each_alert_once_whichever_of_them_fails(inbox: Inbox) -> None:
    addresses = [inbox.address("team"), inbox.address("duty"), "json://127.0.0.1:1/nobody"]
    warning = alert(id="event-2", alert_id="alert-2", severity="warning")
    tried = deliver([alert(), warning], addresses, sent=(), now=NOW)
    assert len({delivery.id for delivery in tried}) == 6
    assert sorted(path.strip("/") for path, _ in inbox.received) == ["duty", "duty", "team", "team"]
    sent = {delivery.id for delivery in tried if delivery.delivered}
    assert len(sent) == 4
    again = deliver([alert(), warning], addresses, sent=sent, now=LATER)
    assert [delivery.delivered for delivery in again] == [False, False]
    assert len(inbox.received) == 4


def test_without_addresses_nothing_is_sent() -> None:
    assert deliver([alert()], [], sent=(), now=NOW) == ()


def test_text_that_looks_like_markup_arrives_as_it_is(inbox: Inbox) -> None:
    hostile = 'answers about <b>"refunds"</b> & {{ 7 * 7 }} größer als ✓ \\n'
    deliver([alert(message=hostile)], [inbox.address()], sent=(), now=NOW)
    ((_, body),) = inbox.received
    assert body["message"].splitlines()[0] == hostile


@pytest.mark.parametrize(
    "address",
    [
        "slack://T0SECRETTOKEN",
        "carrier-pigeon://T0SECRETTOKEN@loft/7",
        "T0SECRETTOKEN",
        "T0SECRETTOKEN:more",
        "T0SECRETTOKEN://host",
        "://T0SECRETTOKEN",
        "mailtos://ada:T0SECRETTOKEN@",
        "",
    ],
)
def test_a_bad_address_is_one_clear_error_without_its_secret(
    address: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(SettingsError) as refused:
        check_addresses(["json://127.0.0.1/fine", address])
    message = str(refused.value)
    assert message.startswith("notify address 2 must be one URL that Apprise knows, got ")
    assert "json://host/path" in message
    assert refused.value.__cause__ is None
    printed = capfd.readouterr()
    for shown in (message, caplog.text, printed.out, printed.err):
        assert "SECRET" not in shown.upper()


def test_the_kind_of_a_bad_address_is_named_where_apprise_knows_it() -> None:
    with pytest.raises(SettingsError, match="of kind 'slack'"):
        check_addresses(["slack://nothing"])


def test_good_addresses_are_let_through() -> None:
    check_addresses([])
    slack = "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    check_addresses(["json://127.0.0.1/fine", "mailtos://ada:word@example.org", slack])


def test_two_addresses_in_one_are_refused_because_one_that_fails_would_repeat_the_other() -> None:
    with pytest.raises(SettingsError, match="notify address 1 must be one URL"):
        check_addresses(["json://127.0.0.1/a,json://127.0.0.1/b"])


def test_neither_a_delivery_nor_the_log_shows_the_address(
    inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    inbox.status = 500
    address = f"json://ada:T0SECRETTOKEN@127.0.0.1:{inbox.port}/path-T0SECRETTOKEN"
    with caplog.at_level(logging.INFO):
        (delivery,) = deliver([alert()], [address], sent=(), now=NOW)
    assert "did not reach json" in caplog.text
    for shown in (caplog.text, delivery.model_dump_json()):
        assert "SECRET" not in shown.upper()
