"""What Apprise reaches: chats, telephones and a hundred services more. Its only importer.

What an alert says is sent as text, one line a sentence. Apprise escapes it where a message is HTML;
in chats nothing of it is markup, a link in disguise or a call to everybody (`in_chat`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ratchet.errors import SettingsError
from ratchet.notify.messages import Message, plain_text
from ratchet.notify.results import Result

if TYPE_CHECKING:
    import apprise

_AS_IT_IS = ("json", "xml", "form", "mailto")
"""How the addresses begin of what shows or reads a text as it is; all others are chats."""
_IN_CHAT = str.maketrans("<>[]@`*", "‹›［］＠'∗")


@dataclass(frozen=True, slots=True)
class OtherChannel:
    """One address of Apprise."""

    key: str
    shown: str
    _address: str = field(repr=False)

    def send(self, message: Message, *, now: datetime) -> Result:  # noqa: ARG002
        """Send a message by Apprise, which says no more than whether it arrived."""
        import apprise

        kinds = {
            "critical": apprise.NotifyType.FAILURE,
            "warning": apprise.NotifyType.WARNING,
            "good": apprise.NotifyType.SUCCESS,
            "news": apprise.NotifyType.INFO,
        }
        title, text = message.title, plain_text(message)
        if not self._address.lower().startswith(_AS_IT_IS):
            title, text = in_chat(title), in_chat(text)
        arrived = _target(self._address).notify(
            title=title,
            body=text,
            body_format=apprise.NotifyFormat.TEXT,
            notify_type=kinds[message.tone],
        )
        return Result(bool(arrived), "" if arrived else "Apprise could not deliver it")


def check_addresses(addresses: Sequence[str], what: str = "") -> None:
    """Refuse an address that Apprise does not understand, without showing it.

    Args:
        addresses: The addresses.
        what: What they are called; those of RATCHET_NOTIFY by their number.

    Raises:
        SettingsError: Apprise does not understand one.
    """
    for number, address in enumerate(addresses, 1):
        if len(_target(address)) != 1:
            raise SettingsError(
                f"{what or f'notify address {number}'} must be one URL that Apprise knows, got "
                f"{_kind(address)}; for example slack://..., mailtos://... or json://host/path"
            )


def in_chat(text: str) -> str:
    """Return a text in which chats find no markup, no link in disguise and nobody to call.

    >>> in_chat("<!channel> [here](https://evil.example) @everyone")
    '‹!channel› ［here］(https://evil.example) ＠everyone'
    """
    return text.translate(_IN_CHAT)


def _target(address: str) -> apprise.Apprise:
    """Return an Apprise target; it is empty where Apprise does not understand the address."""
    import apprise

    # Apprise's log quotes addresses that it cannot read, secrets and all.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    target = apprise.Apprise()
    target.add(address)
    return target


def _kind(address: str) -> str:
    """Describe an address without showing it: a kind that Apprise does not know may be a secret."""
    from apprise.manager_plugins import NotificationManager

    kind, mark, _ = address.partition("://")
    untyped: Any = NotificationManager
    known = bool(mark) and kind.lower() in untyped().schemas()
    return f"one of kind {kind.lower()!r}" if known else "one of an unknown kind"
