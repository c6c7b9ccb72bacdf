"""What Apprise reaches: real Apprise against a real web server."""

from __future__ import annotations

import logging
import socket

import pytest

from ratchet.errors import SettingsError
from ratchet.notify.channels import address_channels
from ratchet.notify.others import check_addresses
from tests.notify.conftest import NOW, Inbox, message


def address(inbox: Inbox, path: str = "alerts") -> str:
    return f"json://127.0.0.1:{inbox.port}/{path}"


def test_a_message_arrives_as_text_with_its_links(inbox: Inbox) -> None:
    (channel,) = address_channels([address(inbox)])
    assert channel.send(message(), now=NOW).arrived
    assert channel.shown == "json"
    (body,) = inbox.bodies
    assert body["title"] == "New critical alert: thumbs down of support-router/2"
    assert body["type"] == "failure"
    lines = body["message"].splitlines()
    assert lines[0].startswith("support-router/2: thumbs down 31.0%")
    assert "What to do: roll back to support-router/1: it began with this release" in lines
    assert "Open it: https://ratchet.example/alerts/alert-1" in lines


@pytest.mark.parametrize(
    ("change", "severity", "kind"),
    [("opened", "critical", "failure"), ("opened", "warning", "warning"),
     ("resolved", "critical", "success")],
)  # fmt: skip
def test_a_resolved_alert_is_good_news_and_others_are_as_bad_as_they_are(
    inbox: Inbox, change: str, severity: str, kind: str
) -> None:
    (channel,) = address_channels([address(inbox)])
    channel.send(message(change=change, severity=severity), now=NOW)
    assert inbox.bodies[0]["type"] == kind


def test_a_server_error_and_one_that_is_not_there_did_not_arrive(inbox: Inbox) -> None:
    inbox.answers = [(500, {}, "")]
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        dead = f"json://127.0.0.1:{taken.getsockname()[1]}/alerts"
        for channel in address_channels([address(inbox), dead]):
            result = channel.send(message(), now=NOW)
            assert (result.arrived, result.said) == (False, "Apprise could not deliver it")


def test_text_that_looks_like_markup_arrives_as_it_is(inbox: Inbox) -> None:
    hostile = 'answers about <b>"refunds"</b> & {{ 7 * 7 }} größer als ✓ \\n'
    (channel,) = address_channels([address(inbox)])
    channel.send(message(message=hostile), now=NOW)
    assert inbox.bodies[0]["message"].splitlines()[0] == hostile


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


def test_neither_a_channel_nor_the_log_shows_the_address(
    inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    inbox.answers = [(500, {}, "")]
    secret = f"json://ada:T0SECRETTOKEN@127.0.0.1:{inbox.port}/path-T0SECRETTOKEN"
    with caplog.at_level(logging.INFO):
        (channel,) = address_channels([secret])
        result = channel.send(message(), now=NOW)
    assert "SECRET" not in f"{caplog.text} {channel!r} {result}".upper()
