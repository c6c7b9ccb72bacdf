"""Mail, by a real SMTP server on loopback with TLS and a password."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from ratchet.notify.mail import Mail
from tests.notify.conftest import NOW, PASSWORD, Post, message, post_office


def channel(post: Post, password: str = PASSWORD, **changes: object) -> Mail:
    return Mail("duty", post.config(**changes), password)


def parts(post: Post, number: int = 0) -> tuple[str, str]:
    """The plain text and the HTML of a mail."""
    found = {part.get_content_type(): part.get_content() for part in post.mails[number].walk()
             if not part.is_multipart()}  # fmt: skip
    return found["text/plain"], found["text/html"]


def words(page: str) -> str:
    """The text of a page."""
    return unescape(re.sub(r"<[^>]+>", " ", page))


def test_a_mail_is_encrypted_signed_in_and_says_the_same_as_text_and_as_html(post: Post) -> None:
    assert channel(post).send(message(), now=NOW).arrived
    (mail,) = post.mails
    assert (post.encrypted, post.signed_in, post.to) == ([True], [True], [["ada@example.org"]])
    assert mail["Subject"] == "New critical alert: thumbs down of support-router/2"
    assert mail["From"] == "Ratchet <ratchet@example.org>"
    assert mail["Importance"] == "high"
    assert mail["Auto-Submitted"] == "auto-generated"
    text, page = parts(post)
    for said in (
        "31.0 % (27.0 % to 35.0 %), normal is 12.0 %",
        "2026-11-24 07:30 UTC, about 2 hours ago",
        "users of support-router/2",
        "roll back to support-router/1",
        "a false alarm at most once in 30 days",
    ):
        assert said in text
        assert said in words(page)
    assert "Open it: https://ratchet.example/alerts/alert-1" in text
    assert re.findall(r'<a [^>]*href="([^"]*)"', page) == [
        "https://ratchet.example/alerts/alert-1", "https://ratchet.example/runbooks/board"
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")  # all of it is TLS
def test_tls_from_the_first_byte_on(certificate: tuple[Path, Path]) -> None:
    with post_office(certificate, implicit=True) as post:
        assert channel(post, tls="tls").send(message(), now=NOW).arrived
        assert post.encrypted == [True]


def test_a_certificate_that_nobody_vouches_for_gets_no_password(post: Post) -> None:
    result = channel(post, ca=None).send(message(), now=NOW)
    assert not result.arrived
    assert result.said.startswith("no encryption")
    assert post.mails == []


HOSTILE = "a\r\nBcc: evil@example.org\r\n\r\n<script>alert(1)</script>"


def test_no_text_becomes_a_header_or_markup(post: Post) -> None:
    hostile = dict.fromkeys(("message", "action", "certainty", "note", "by"), HOSTILE)
    result = channel(post).send(message(**hostile, model_version=HOSTILE, signal=HOSTILE), now=NOW)
    assert result.arrived
    (mail,) = post.mails
    known = {"from", "to", "subject", "date", "message-id", "references", "auto-submitted",
             "importance", "mime-version", "content-type"}  # fmt: skip
    assert {name.lower() for name in mail.keys()} == known  # noqa: SIM118
    assert post.to == [["ada@example.org"]]
    text, page = parts(post)
    assert re.findall(r"<(script|img|iframe)", page) == []
    assert "<script>alert(1)</script>" in text  # as it is, where nothing runs
    assert not any(line.startswith("Bcc") for line in text.splitlines())


def test_messages_of_one_alert_are_a_thread_and_one_that_is_sent_again_has_its_id(
    post: Post,
) -> None:
    again = replace(message("m-1"), was_cut_off=True)
    for one in (message("m-1"), again, message("m-2", id="event-2", change="updated")):
        assert channel(post).send(one, now=NOW).arrived
    first, repeated, other = post.mails
    assert first["Message-ID"] == repeated["Message-ID"] != other["Message-ID"]
    assert len({mail["References"] for mail in post.mails}) == 1
    assert "you may see this twice" in parts(post, 1)[0]


@pytest.mark.parametrize("reply", ["451 try again later", "552 too large"])
def test_what_the_server_says_is_kept(post: Post, reply: str) -> None:
    post.replies = [reply]
    result = channel(post).send(message(), now=NOW)
    assert (result.arrived, result.said) == (False, reply)


def test_who_is_not_known_is_counted_and_the_others_get_it(post: Post) -> None:
    post.refused = {"gone@example.org"}
    both = channel(post, to=["ada@example.org", "gone@example.org"]).send(message(), now=NOW)
    assert (both.arrived, both.said) == (True, "refused for 1 recipients (550)")
    none = channel(post, to=["gone@example.org"]).send(message(), now=NOW)
    assert (none.arrived, none.said) == (False, "refused for 1 recipients (550)")


def test_a_wrong_password_is_told_without_it(post: Post, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        result = channel(post, "T0SECRETWRONG").send(message(), now=NOW)
    assert not result.arrived
    assert result.said.startswith("535")
    assert "SECRETWRONG" not in f"{result} {caplog.text}"


def test_a_server_that_is_not_there_is_a_failure() -> None:
    result = Mail("duty", Post(port=1).config(ca=None), PASSWORD).send(message(), now=NOW)
    assert (result.arrived, result.said) == (False, "ConnectionRefusedError Connection refused")
