"""Who is told of what: channels, routes and reminders, read from YAML.

    channels:
      team: {type: slack, url: RATCHET_SLACK_SECRET}
      duty: {type: mail, host: smtp.example.org, user: ratchet, password: RATCHET_SMTP_PASSWORD,
             from: ratchet@example.org, to: [ada@example.org]}
      desk: {type: webhook, url: "https://desk.example.org/hook", secret: RATCHET_DESK_SECRET}
      phone: {type: apprise, url: RATCHET_PHONE_SECRET}
    routes:
      - {name: urgent, severity: critical, to: [team, duty, phone], repeat_hours: 1}
      - {name: rest, to: [team], repeat_hours: 24}
      - {name: week, kinds: [weekly], to: [duty]}
    reminders: {approval_hours: 4, labels_hours: 24, again_hours: 24}

A secret stands in a variable of the environment, which the file names (or in the file that the
variable with `_FILE` at its end names). Without a file everybody in RATCHET_NOTIFY is told of every
alert, and of nothing else.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from ratchet.errors import InvalidInputError
from ratchet.files.text import printable
from ratchet.files.yaml import read_yaml
from ratchet.notify.runbooks import ALERT_KINDS, KINDS, WEEKLY
from ratchet.processes import is_secret
from ratchet.records.monitoring import Severity

_HOLDS = ("channels", "routes", "reminders")
_ERRORS_SHOWN: Final = 8
_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
_Hours = Annotated[float, Field(gt=0.0, le=24.0 * 31, allow_inf_nan=False)]


def _variable(text: str) -> str:
    known = text.isidentifier() and text.isupper()
    if not known or not is_secret(text, "x"):
        raise ValueError(
            "a secret must stand in a variable of the environment whose name holds SECRET, KEY, "
            "TOKEN or PASSWORD, such as RATCHET_SLACK_SECRET; write that name here and the secret "
            "nowhere in this file"
        )
    return text


def _mailbox(text: str) -> str:
    name, _, domain = text.rpartition("@")
    if not text.isascii() or not text.isprintable() or set(text) & set(' ,;:<>()[]"\\'):
        domain = ""
    if not name or not domain:
        raise ValueError("an address must look like ada@example.org")
    return text


def is_local(host: str) -> bool:
    """Tell whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _web_address(text: str) -> str:
    parts = urlsplit(text)
    plain = parts.scheme == "http" and is_local(parts.hostname or "")
    if not parts.hostname or not (parts.scheme == "https" or plain) or not text.isprintable():
        raise ValueError("an address must begin with https:// (http:// on this machine alone)")
    if parts.username or parts.password:
        raise ValueError("an address must hold no name and no password; sign in by the signature")
    return text


Variable = Annotated[str, AfterValidator(_variable)]
Mailbox = Annotated[str, AfterValidator(_mailbox)]


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class SlackChannel(_Config):
    """An incoming webhook of Slack.

    Attributes:
        url: Name of the variable that holds its address, which is a secret.
    """

    type: Literal["slack"]
    url: Variable


class MailChannel(_Config):
    """Mail by an SMTP server.

    Attributes:
        tls: `starttls`, or `tls` from the first byte on; `none` on this machine alone.
        port: None for 587 with `starttls`, 465 with `tls`, 25 with none.
        user: Who signs in; None where the server asks nobody.
        password: Name of the variable that holds the password.
        sender: `from` in the file.
        to: Who gets it.
        ca: Certificates that are believed, in PEM; None for those of the machine.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, populate_by_name=True
    )

    type: Literal["mail"]
    host: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[\w.:-]+$")]
    tls: Literal["starttls", "tls", "none"] = "starttls"
    port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    user: str | None = None
    password: Variable | None = None
    sender: Mailbox = Field(alias="from")
    to: Annotated[tuple[Mailbox, ...], Field(min_length=1)]
    ca: Path | None = None

    @model_validator(mode="after")
    def _is_encrypted(self) -> Self:
        if self.tls == "none" and not is_local(self.host):
            raise ValueError("mail must be encrypted beyond this machine; write tls: starttls")
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password go together; give both or none")
        return self


class WebhookChannel(_Config):
    """An address that gets JSON, signed as Standard Webhooks says.

    Attributes:
        secret: Name of the variable that holds the key of the signature: `whsec_` and base64.
    """

    type: Literal["webhook"]
    url: Annotated[str, AfterValidator(_web_address)]
    secret: Variable


class AppriseChannel(_Config):
    """Any other service that Apprise reaches.

    Attributes:
        url: Name of the variable that holds Apprise's address of it.
    """

    type: Literal["apprise"]
    url: Variable


ChannelConfig = Annotated[
    SlackChannel | MailChannel | WebhookChannel | AppriseChannel, Field(discriminator="type")
]


def _kind(name: str) -> str:
    if name not in KINDS:
        raise ValueError(f"a kind must be one of {', '.join(KINDS)}")
    return name


class Route(_Config):
    """Who is told of what.

    Attributes:
        to: Names of channels.
        severity: The least severity that is told of.
        kinds: What is told of; None for every alert and reminder. The weekly report goes where it
            is named.
        repeat_hours: After so many hours an alert that nobody looks after is told of again; None
            tells once.
    """

    name: _Name
    to: Annotated[tuple[_Name, ...], Field(min_length=1)]
    severity: Severity = "warning"
    kinds: tuple[Annotated[str, AfterValidator(_kind)], ...] | None = None
    repeat_hours: _Hours | None = None

    def takes(self, kind: str, severity: Severity) -> bool:
        """Tell whether this route is told of something."""
        if kind == WEEKLY:
            return self.kinds is not None and WEEKLY in self.kinds
        named = self.kinds is None or kind in self.kinds
        return named and (severity == "critical" or self.severity == "warning")


class Reminders(_Config):
    """When people are reminded of what waits for them.

    Attributes:
        approval_hours: How long a promotion waits for a person before.
        labels_hours: How long an item to review or compare waits before.
        again_hours: How long after a reminder the next one comes.
    """

    approval_hours: _Hours = 4.0
    labels_hours: _Hours = 24.0
    again_hours: _Hours = 24.0


class AlertPolicy(_Config):
    """Who is told of what in one home.

    Attributes:
        channels: Ways to people, by name.
        routes: What goes which way; something that several routes tell one channel goes once.
        reminders: When people are reminded.
    """

    channels: dict[_Name, ChannelConfig] = Field(default_factory=dict)
    routes: tuple[Route, ...] = ()
    reminders: Reminders = Reminders()

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        names = [route.name for route in self.routes]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"routes must have names of their own, got {twice[0]} twice")
        for route in self.routes:
            for name in route.to:
                if name not in self.channels:
                    known = ", ".join(self.channels) or "none"
                    raise ValueError(
                        f"the route {route.name} must lead to channels of this file, got {name}; "
                        f"there are: {known}"
                    )
        return self


def addresses_route(names: tuple[str, ...]) -> Route:
    """Return the route to the channels of RATCHET_NOTIFY, which are told of every alert."""
    return Route(name="notify", to=names, kinds=ALERT_KINDS)


def load_policy(path: Path | None) -> AlertPolicy:
    """Read the file of RATCHET_ALERTS; without one there are no routes.

    Raises:
        InvalidInputError: It cannot be read or breaks rules; the message names them, and no value.
    """
    if path is None:
        return AlertPolicy()
    content: Mapping[Any, Any] = read_yaml(path, what="an alert policy", holds=", ".join(_HOLDS))
    try:
        return AlertPolicy.model_validate(dict(content))
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        wrong = [f"{printable(_place(one['loc']))}: {_said(one)}" for one in found]
        raise InvalidInputError(
            f"{printable(path.name)}: " + "; ".join(wrong[:_ERRORS_SHOWN])
        ) from None  # the cause would show what was received


def _place(where: tuple[int | str, ...]) -> str:
    """Return where an error is, without the tag that pydantic puts in for a kind of channel."""
    kept = [part for i, part in enumerate(where) if not (i == 2 and where[0] == "channels")]
    return ".".join(map(str, kept)) or "the file"


def _said(problem: Any) -> str:
    if problem["type"] == "extra_forbidden":
        return "there is no such name; remove it, or correct it"
    return printable(str(problem["msg"]).removeprefix("Value error, "), 300)
