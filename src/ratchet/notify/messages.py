"""What a message says, in plain words and for every channel alike.

A message is a title, a sentence and a few facts with their names: what, since when, how much with
its interval, who is touched, what to do. Channels draw it each in its own way (`slack`, `mail`,
`webhook`, `others`); the words are the same. All of it may quote what others chose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

from ratchet.files.text import shown_line, shown_lines
from ratchet.notify.runbooks import TRIAL
from ratchet.records import AlertEvent
from ratchet.records.signals import SIGNAL_OF
from ratchet.views.words import duration, moment, words_of

Tone = Literal["critical", "warning", "good", "news"]
REPEATED = "Sent again: the first try was cut off, so you may see this twice."
_CHANGES = {
    "opened": "New {}alert",
    "updated": "{}alert changed",
    "acknowledged": "{}alert is looked after",
    "resolved": "{}alert is over",
}


@dataclass(frozen=True, slots=True)
class Links:
    """Where the pages for people are.

    Attributes:
        address: As people type it; None where no pages are served.
    """

    address: str | None = None

    def page(self, *parts: str) -> str | None:
        """Return the address of a page by the parts of its path; None without pages."""
        if self.address is None:
            return None
        return "/".join([self.address.rstrip("/"), *(quote(part, safe="") for part in parts)])


@dataclass(frozen=True, slots=True)
class Message:
    """One message to people.

    Attributes:
        id: The same however often it is sent; receivers tell repetitions by it.
        thread: What it tells of: messages of one alert belong together.
        kind: Of the alert or reminder.
        tone: How bad it is.
        title: One line.
        lead: A sentence or two.
        facts: Names and what is said of each.
        page: Address of the page that shows it; None where no pages are served.
        runbook: Address of the page that says what to do.
        data: The same for programs.
        html: A whole page in the place of the facts, as mail shows it; empty for none.
        text: The same as plain text.
        was_cut_off: Whether an earlier try may have arrived.
    """

    id: str
    thread: str
    kind: str
    tone: Tone
    title: str
    lead: str
    facts: tuple[tuple[str, str], ...] = ()
    page: str | None = None
    runbook: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    html: str = ""
    text: str = ""
    was_cut_off: bool = False


def alert_message(
    event: AlertEvent, *, key: str, links: Links, now: datetime, again: bool = False
) -> Message:
    """Return what people are told of a step of an alert.

    Args:
        event: The step.
        key: Id of the message.
        links: Where the pages are.
        now: When it is sent.
        again: Whether it is told again, since nobody looks after the alert.
    """
    return Message(
        id=key,
        thread=event.alert_id,
        kind=event.kind,
        tone="good" if event.change == "resolved" else event.severity,
        title=title_of(event, now=now, again=again),
        lead=shown_line(event.message),
        facts=tuple((name, shown_line(said)) for name, said in _facts(event, now)),
        page=links.page("alerts", event.alert_id),
        runbook=links.page("runbooks", event.kind),
        data=event.canonical(),
    )


def title_of(event: AlertEvent, *, now: datetime, again: bool = False) -> str:
    """Return an alert's headline.

    Such as `New critical alert: thumbs down of support-router/2`.
    """
    grave = "critical " if event.severity == "critical" else ""
    said = _CHANGES[event.change].format(grave)
    if again:
        said = f"{grave}alert still open after {duration(now - (event.since or event.created_at))}"
    what = f"{words_of(event.signal)} of {event.model_version}"
    return shown_line(f"{said[0].upper()}{said[1:]}: {what}")


def trial_message(*, key: str, channel: str, by: str, links: Links, now: datetime) -> Message:
    """Return the message by which somebody tries a channel."""
    return Message(
        id=key,
        thread=key,
        kind=TRIAL,
        tone="news",
        title="Test message of Ratchet",
        lead=f"{by} tries the channel {channel}. Nothing is wrong with the model.",
        facts=(("Sent at", moment(now)), ("To do", "nothing: alerts will come this way")),
        page=links.page("alerts"),
        data={"channel": channel, "by": by},
    )


def plain_text(message: Message) -> str:
    """Return a message as text: a paragraph, a line a fact, then the links."""
    if message.text:
        return message.text
    facts = [f"{name}: {said}" for name, said in message.facts]
    links = [
        *([f"Open it: {message.page}"] if message.page else []),
        *([f"Runbook: {message.runbook}"] if message.runbook else []),
        *([REPEATED] if message.was_cut_off else []),
    ]
    return shown_lines([message.lead, "", *facts, *([""] if links else []), *links])


def _facts(event: AlertEvent, now: datetime) -> list[tuple[str, str]]:
    facts = []
    if event.kind not in ("routing", "rollout"):
        facts.append(("How much", _how_much(event)))
    if event.since is not None:
        ago = duration(now - event.since)
        facts.append(("Since", f"{moment(event.since)}, about {ago} ago"))
    facts.append(("Touched", _touched(event)))
    if event.change != "resolved" and event.action:
        facts.append(("What to do", event.action))
    facts.append(("How sure", event.certainty))
    if event.by or event.note:
        facts.append((event.by or "Ratchet", event.note or "looks after it"))
    return facts


def _how_much(event: AlertEvent) -> str:
    """Return the value with its interval, what is normal, and what it rests on."""
    is_share = event.kind == "cluster" or event.signal in SIGNAL_OF or "rate" in event.signal

    def said(value: float) -> str:
        return f"{100.0 * value:.1f} %" if is_share else f"{value:.4g}"

    if event.kind == "threshold":
        between, normal = f"at least {said(event.lower)} allowing for chance", "the threshold is"
    else:
        between, normal = f"{said(event.lower)} to {said(event.upper)}", "normal is"
    rests = f"{event.observations:,} observations"
    return f"{said(event.value)} ({between}), {normal} {said(event.expected)}; {rests}"


def _touched(event: AlertEvent) -> str:
    where = f", segment {event.segment}" if event.segment else ""
    about = f", mostly about {event.cluster}" if event.cluster else ""
    return f"users of {event.model_version}{where}{about}"
