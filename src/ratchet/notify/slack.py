"""Slack, by an incoming webhook and Block Kit.

What others chose is sent as `mrkdwn` in which `&`, `<` and `>` are escaped, as Slack asks, and
`verbatim` is set, so that no address, channel or name in it becomes a link or a call. Marks of
bold, italic and code are replaced by letters that look like them.

Answers, by Slack's documentation: 200 `ok`; 400 `invalid_payload`; 403 `action_prohibited`; 404
`no_service` or `channel_not_found`; 410 `channel_is_archived`; 429 with `Retry-After`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self
from urllib.parse import urlsplit

from ratchet.errors import SettingsError
from ratchet.files.text import clipped
from ratchet.notify.answers import posted
from ratchet.notify.messages import REPEATED, Message
from ratchet.notify.policy import is_local
from ratchet.notify.results import Result

_HEADER, _TEXT, _FIELD, _MOST_FIELDS = 150, 2_900, 1_900, 10
"""The lengths that Block Kit takes, less what escapes add at their ends."""
_MARKS = {"critical": "🔴", "warning": "🟠", "good": "🟢", "news": "🔵"}
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "*": "∗", "`": "'", "~": "∼"})
_EDGES = re.compile(r"(?<!\w)_|_(?!\w)")


@dataclass(frozen=True, slots=True)
class Slack:
    """An incoming webhook."""

    key: str
    shown: str
    _url: str = field(repr=False)

    @classmethod
    def of(cls, name: str, url: str) -> Self:
        """Return the channel of an address.

        Raises:
            SettingsError: It is no address of a webhook; the message does not show it.
        """
        parts = urlsplit(url)
        plain = parts.scheme == "http" and is_local(parts.hostname or "")
        if not parts.hostname or not (parts.scheme == "https" or plain):
            raise SettingsError(
                f"the secret of the channel {name} must be the https address of an incoming "
                "webhook, got something else; copy it from the settings of the Slack app"
            )
        return cls(name, name, url)

    def send(self, message: Message, *, now: datetime) -> Result:
        """Post a message; where Slack refuses its blocks, its text alone."""
        found = self._post(payload(message), now)
        if found.hopeless:
            found = self._post({"text": escaped(f"{message.title}\n{message.lead}")}, now)
        return found

    def _post(self, body: dict[str, Any], now: datetime) -> Result:
        content = json.dumps(body).encode()
        return posted(self._url, content, {"content-type": "application/json"}, now=now)


def payload(message: Message) -> dict[str, Any]:
    """Return a message in Block Kit, with its title as the text of the notification."""
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "emoji": False,
                                    "text": clipped(message.title, _HEADER)}},
        {"type": "section", "text": _mrkdwn(escaped(message.lead, _TEXT))},
    ]  # fmt: skip
    for name, said in message.facts[:_MOST_FIELDS]:
        text = f"*{escaped(name, 60)}*\n{escaped(said, _FIELD)}"
        blocks.append({"type": "section", "text": _mrkdwn(text)})
    links = [
        f"<{_linked(address)}|{words}>"
        for address, words in ((message.page, "Open it"), (message.runbook, "What to do"))
        if address
    ]
    if links:
        blocks.append({"type": "section", "text": _mrkdwn(" · ".join(links))})
    if message.was_cut_off:
        blocks.append({"type": "context", "elements": [_mrkdwn(REPEATED)]})
    mark = _MARKS[message.tone]
    return {"text": f"{mark} {escaped(message.title, _TEXT)}", "blocks": blocks}


def escaped(text: str, most: int = _TEXT) -> str:
    """Return a text in which Slack finds no markup, no link and nobody to call.

    >>> escaped("<!channel> & *bold* _it_ thumbs_down")
    '&lt;!channel&gt; &amp; ∗bold∗ ＿it＿ thumbs_down'
    """
    cut = text if len(text) <= most else f"{text[: most - 1]}…"
    # an escape is longer than what it stands for, so a text of nothing else is cut again
    made = _EDGES.sub("＿", cut).translate(_ESCAPES)
    return made if len(made) <= most else escaped(cut[: most // 5], most)


def _mrkdwn(text: str) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _linked(address: str) -> str:
    """Return an address so that it cannot end the link that it stands in."""
    return address.replace("&", "&amp;").replace("<", "%3C").replace(">", "%3E").replace("|", "%7C")
