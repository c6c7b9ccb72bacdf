"""Webhooks that are signed: checked by the library of the specification, and by its example."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook as Receiver
from standardwebhooks.webhooks import WebhookVerificationError

from ratchet.errors import SettingsError
from ratchet.notify.webhook import Webhook, signature
from tests.notify.conftest import NOW, Inbox, alert, message

SECRET = "whsec_" + base64.b64encode(b"T0SECRET" * 4).decode()


def test_the_signature_is_the_one_of_the_specifications_example() -> None:
    """The values are those of its reference libraries' tests (standard-webhooks, `test_sign`)."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_receiver_trusts_what_is_signed_and_nothing_else(inbox: Inbox) -> None:
    """The receiver's library refuses what is older than five minutes."""
    sent = Webhook.of("desk", inbox.url(), SECRET).send(message(), now=datetime.now(UTC))
    assert sent.arrived
    ((_, headers, body),) = inbox.received
    assert Receiver(SECRET).verify(body, headers) == json.loads(body)
    with pytest.raises(WebhookVerificationError):
        Receiver(SECRET).verify(body.replace(b"31.0", b"13.0"), headers)
    other = "whsec_" + base64.b64encode(b"another key" * 3).decode()
    with pytest.raises(WebhookVerificationError):
        Receiver(other).verify(body, headers)


def test_a_program_is_told_the_same_as_people_and_the_record(inbox: Inbox) -> None:
    Webhook.of("desk", inbox.url(), SECRET).send(message(), now=NOW)
    (body,) = inbox.bodies
    assert (body["kind"], body["tone"], body["about"]) == ("board", "critical", "alert-1")
    assert body["page"] == "https://ratchet.example/alerts/alert-1"
    assert body["facts"][0]["name"] == "How much"
    assert body["data"] == alert().canonical()


def test_a_message_that_is_sent_again_has_the_id_that_it_had(inbox: Inbox) -> None:
    for _ in range(2):
        Webhook.of("desk", inbox.url(), SECRET).send(message("m-1"), now=NOW)
    first, second = (headers["webhook-id"] for _, headers, _ in inbox.received)
    assert first == second == "m-1"


def test_a_redirect_is_not_followed(inbox: Inbox) -> None:
    inbox.answers = [(302, {"Location": inbox.url("elsewhere")}, "")]
    assert not Webhook.of("desk", inbox.url(), SECRET).send(message(), now=NOW).arrived
    assert len(inbox.received) == 1


@pytest.mark.parametrize(
    "secret", ["", "T0SECRET", "whsec_", "whsec_T0SE", "whsec_***", SECRET[6:]]
)
def test_a_weak_or_broken_key_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(SettingsError, match="at least 24 random bytes") as refused:
        Webhook.of("desk", "https://desk.example/hook", secret)
    assert "T0SE" not in str(refused.value)
