"""Mail by SMTP over TLS: plain text with the same as HTML.

Messages of one alert stand in one thread, and a message that is sent again has the id that it had.
A header takes one line: `email` refuses a break in it, and none comes that far.
"""

from __future__ import annotations

import smtplib
import ssl
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from typing import Final

from ratchet.files.text import one_line, printable
from ratchet.notify.messages import Message, plain_text
from ratchet.notify.policy import MailChannel
from ratchet.notify.results import Result
from ratchet.records import digest
from ratchet.views.pages.messages import message_page

_SECONDS: Final = 15.0
_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_SUBJECT = 200


class Mail:
    """Mail to some people."""

    def __init__(self, name: str, config: MailChannel, password: str | None) -> None:
        self.key = self.shown = name
        self._config, self._password = config, password

    def send(self, message: Message, *, now: datetime) -> Result:
        """Hand a message to the server."""
        try:
            refused = self._hand_over(mail(message, self._config, now=now))
        except smtplib.SMTPResponseException as error:
            reply = error.smtp_error
            text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else str(reply)
            return Result(False, printable(f"{error.smtp_code} {text}", 120))
        except smtplib.SMTPRecipientsRefused as error:
            return Result(False, f"refused for {_codes(error.recipients)}")
        except ssl.SSLError as error:
            return Result(False, printable(f"no encryption: {error.reason or error}", 120))
        except (smtplib.SMTPException, OSError) as error:
            said = getattr(error, "strerror", None) or ""
            return Result(False, printable(f"{type(error).__name__} {said}".strip(), 120))
        return Result(True, f"refused for {_codes(refused)}" if refused else "")

    def _hand_over(self, made: EmailMessage) -> dict[str, tuple[int, bytes]]:
        config = self._config
        port = config.port or _PORTS[config.tls]
        trust = ssl.create_default_context(cafile=str(config.ca) if config.ca else None)
        server: smtplib.SMTP
        if config.tls == "tls":
            server = smtplib.SMTP_SSL(config.host, port, timeout=_SECONDS, context=trust)
        else:
            server = smtplib.SMTP(config.host, port, timeout=_SECONDS)
        with server:
            if config.tls == "starttls":
                server.starttls(context=trust)
            if config.user is not None and self._password is not None:
                server.login(config.user, self._password)
            return server.send_message(made)


def mail(message: Message, config: MailChannel, *, now: datetime) -> EmailMessage:
    """Return a message as a mail."""
    domain = config.sender.rpartition("@")[2]
    made = EmailMessage(policy=SMTP)
    made["From"] = Address("Ratchet", addr_spec=config.sender)
    made["To"] = [Address(addr_spec=one) for one in config.to]
    made["Subject"] = one_line(message.title)[:_SUBJECT]
    made["Date"] = now
    made["Message-ID"] = _id(message.id, domain)
    made["References"] = _id(message.thread, domain)
    made["Auto-Submitted"] = "auto-generated"
    if message.tone == "critical":
        made["Importance"] = "high"
    made.set_content(plain_text(message))
    made.add_alternative(message.html or message_page(**_shown(message)), subtype="html")
    return made


def _shown(message: Message) -> dict[str, object]:
    names = ("tone", "title", "lead", "facts", "page", "runbook", "was_cut_off")
    return {name: getattr(message, name) for name in names}


def _id(key: str, domain: str) -> str:
    return f"<{digest(key)[:40]}@{domain}>"


def _codes(refused: dict[str, tuple[int, bytes]]) -> str:
    """Return how many recipients were refused, and how; not who they are."""
    codes = sorted({code for code, _ in refused.values()})
    return f"{len(refused)} recipients ({', '.join(map(str, codes))})"
