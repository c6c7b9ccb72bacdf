"""A webhook that gets JSON, signed as Standard Webhooks says (https://www.standardwebhooks.com).

The receiver checks `webhook-signature` with the shared key, refuses a `webhook-timestamp` that is
old, and drops a `webhook-id` that it has seen: a message is sent again under the same id where it
is not known whether it arrived.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from ratchet.errors import SettingsError
from ratchet.notify.answers import posted
from ratchet.notify.messages import Message
from ratchet.notify.results import Result

_PREFIX = "whsec_"
_SHORTEST = 24
"""Bytes of a key at least, as the specification recommends."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address that gets JSON."""

    key: str
    shown: str
    url: str
    _key: bytes = field(repr=False)

    @classmethod
    def of(cls, name: str, url: str, secret: str) -> Self:
        """Return the channel of an address and a key.

        Raises:
            SettingsError: The key is none; the message does not show it.
        """
        try:
            key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not secret.startswith(_PREFIX) or len(key) < _SHORTEST:
            raise SettingsError(
                f"the secret of the channel {name} must be whsec_ and at least {_SHORTEST} random "
                "bytes in base64, got something else; make one: "
                "python -c 'import base64, os; "
                'print("whsec_" + base64.b64encode(os.urandom(32)).decode())\''
            )
        return cls(name, name, url, key)

    def send(self, message: Message, *, now: datetime) -> Result:
        """Post a message."""
        content = json.dumps(body(message), ensure_ascii=False).encode("utf-8", "replace")
        stamp = str(int(now.timestamp()))
        headers = {
            "content-type": "application/json",
            "webhook-id": message.id,
            "webhook-timestamp": stamp,
            "webhook-signature": signature(self._key, message.id, stamp, content),
        }
        return posted(self.url, content, headers, now=now)


def body(message: Message) -> dict[str, Any]:
    """Return what a program is told."""
    return {
        "id": message.id,
        "kind": message.kind,
        "tone": message.tone,
        "title": message.title,
        "text": message.lead,
        "facts": [{"name": name, "value": said} for name, said in message.facts],
        "page": message.page,
        "runbook": message.runbook,
        "about": message.thread,
        "data": dict(message.data),
    }


def signature(key: bytes, message_id: str, timestamp: str, content: bytes) -> str:
    """Return the signature of a body: version 1, HMAC-SHA256 in base64."""
    signed = f"{message_id}.{timestamp}.".encode() + content
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
