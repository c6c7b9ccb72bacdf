"""Slack, by a server on loopback that answers as its documentation says."""

from __future__ import annotations

from datetime import timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.errors import SettingsError
from ratchet.notify.slack import Slack, escaped, payload
from tests.notify.conftest import NOW, Inbox, message

HOSTILE = "<!channel> <https://evil.example|the runbook> & *bold* _it_ ~gone~ `code` @everyone"


def channel(slack: Inbox) -> Slack:
    return Slack.of("team", slack.url("services/T0/B0/T0SECRETTOKEN"))


def test_an_alert_reads_well_and_opens_the_right_pages(slack: Inbox) -> None:
    result = channel(slack).send(message(), now=NOW)
    assert result.arrived
    (body,) = slack.bodies
    assert body["text"] == "🔴 New critical alert: thumbs down of support-router/2"
    texts = [block["text"]["text"] for block in body["blocks"]]
    assert texts[0] == "New critical alert: thumbs down of support-router/2"
    assert texts[1].startswith("support-router/2: thumbs down 31.0% where 12.0% is normal")
    facts = dict(text.split("\n", 1) for text in texts[2:-1])
    assert facts == {
        "*How much*": "31.0 % (27.0 % to 35.0 %), normal is 12.0 %; 1,481 observations",
        "*Since*": "2026-11-24 07:30 UTC, about 2 hours ago",
        "*Touched*": "users of support-router/2",
        "*What to do*": "roll back to support-router/1: it began with this release",
        "*How sure*": "the board as a whole raises a false alarm at most once in 30 days",
    }
    assert texts[-1] == (
        "<https://ratchet.example/alerts/alert-1|Open it> · "
        "<https://ratchet.example/runbooks/board|What to do>"
    )


def test_what_others_chose_is_no_markup_and_calls_nobody(slack: Inbox) -> None:
    hostile = dict.fromkeys(("message", "action", "certainty", "note", "by"), HOSTILE)
    assert channel(slack).send(message(**hostile), now=NOW).arrived
    (body,) = slack.bodies
    for block in body["blocks"][1:-1]:
        text = block["text"]["text"]
        own = text.split("\n", 1)[-1] if text.startswith("*") else text
        assert block["text"]["verbatim"] is True
        assert "<" not in own
        assert ">" not in own
        assert not set("*`~") & set(own)
        assert "_it_" not in own
    assert "&lt;!channel&gt;" in body["blocks"][1]["text"]["text"]


@given(st.text(max_size=4_000), st.integers(20, 3_000))
def test_an_escaped_text_has_no_control_character_of_slack_and_fits(text: str, most: int) -> None:
    made = escaped(text, most)
    assert len(made) <= most
    bare = made.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")
    assert not set("<>&*`~") & set(bare)


def test_a_text_that_is_too_long_for_slack_is_shortened_until_it_is_taken(slack: Inbox) -> None:
    long = {"message": "& " * 5_000, "action": "x" * 9_000, "model_version": "v" * 200}
    assert channel(slack).send(message(**long), now=NOW).arrived
    assert len(slack.received) == 1  # its blocks were taken


def test_blocks_that_slack_refuses_are_replaced_by_the_text_alone(slack: Inbox) -> None:
    slack.answers = [(400, {}, "invalid_blocks")]
    result = channel(slack).send(message(), now=NOW)
    assert result.arrived
    first, second = slack.bodies
    assert "blocks" in first
    assert set(second) == {"text"}
    assert "thumbs down" in second["text"]


@pytest.mark.parametrize(
    ("status", "said", "hopeless"),
    [(404, "no_service", False), (410, "channel_is_archived", False), (500, "rollup_error", False),
     (403, "action_prohibited", False)],
)  # fmt: skip
def test_a_refusal_says_what_slack_said_and_is_tried_again(
    slack: Inbox, status: int, said: str, hopeless: bool
) -> None:
    slack.answers = [(status, {}, said)]
    result = channel(slack).send(message(), now=NOW)
    assert (result.arrived, result.hopeless, result.said) == (False, hopeless, f"{status} {said}")


def test_a_payload_that_slack_refuses_either_way_is_hopeless(slack: Inbox) -> None:
    slack.answers = [(400, {}, "invalid_payload"), (400, {}, "invalid_payload")]
    result = channel(slack).send(message(), now=NOW)
    assert (result.arrived, result.hopeless) == (False, True)


@pytest.mark.parametrize(
    ("said", "wait"),
    [
        ("30", timedelta(seconds=30)),
        (format_datetime(NOW + timedelta(minutes=2), usegmt=True), timedelta(minutes=2)),
        ("99999999999", timedelta(hours=6)),
        ("-5", None),
        ("soon", None),
        (format_datetime(NOW - timedelta(minutes=2), usegmt=True), timedelta(0)),
    ],
)
def test_too_many_requests_say_how_long_to_wait(
    slack: Inbox, said: str, wait: timedelta | None
) -> None:
    slack.answers = [(429, {"Retry-After": said}, "rate_limited")]
    assert channel(slack).send(message(), now=NOW).again_after == wait


def test_nothing_that_is_told_of_a_failure_holds_the_address() -> None:
    dead = Slack.of("team", "http://127.0.0.1:1/services/T0SECRETTOKEN")
    result = dead.send(message(), now=NOW)
    assert not result.arrived
    assert "SECRET" not in f"{result} {dead!r}".upper().replace("HOLDS SECRET", "")


@pytest.mark.parametrize("address", ["", "T0SECRET", "http://hooks.example/T0SECRET", "ftp://h/x"])
def test_what_is_no_address_of_a_webhook_is_refused_without_being_shown(address: str) -> None:
    with pytest.raises(SettingsError, match="incoming webhook") as refused:
        Slack.of("team", address)
    assert "T0SECRET" not in str(refused.value)


def test_a_message_whose_first_try_was_cut_off_says_so() -> None:
    from dataclasses import replace

    blocks = payload(replace(message(), was_cut_off=True))["blocks"]
    assert blocks[-1]["elements"][0]["text"].startswith("Sent again")
