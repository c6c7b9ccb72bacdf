"""`ratchet alerts test`, `mute`, `unmute` and `routes`: who is told of what, and what is muted."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ratchet.cli.saying import say, say_json
from ratchet.cli.shared import (
    AsJson,
    By,
    current_settings,
    existing_store,
    finite,
    person,
    readable_text,
    required_store,
)
from ratchet.errors import InvalidInputError
from ratchet.files.text import counted, printable

if TYPE_CHECKING:
    from ratchet.notify.outgoing import Routes
    from ratchet.notify.policy import AlertPolicy
    from ratchet.notify.results import Channel
    from ratchet.settings import Settings
    from ratchet.store import EventStore

About = Annotated[
    str,
    typer.Argument(help="An open alert by its id or the start of it, a kind of alert, or `all`."),
]
Reason = Annotated[str, typer.Option(help="Why.", callback=readable_text)]
_NONE = (
    "nobody is told of anything: name routes in a file and set RATCHET_ALERTS to it, or set "
    "RATCHET_NOTIFY to addresses"
)


def mute(
    about: About,
    hours: Annotated[float, typer.Option(help="For how long.", callback=finite)] = 4.0,
    reason: Reason = "",
    by: By = "",
) -> None:
    """Have people not be told of an alert, a kind of alert, or all of them for some hours."""
    from ratchet.notify.muting import mute as keep
    from ratchet.store.accounts import note_action
    from ratchet.views.words import moment

    store, now, who = required_store("a mute"), datetime.now(UTC), person(by)
    with store.atomic():
        made = keep(store, about, hours=hours, by=who, reason=reason, now=now)
        note_action(store, who, "mute", now=now, about=made.about, reason=reason)
    say(f"{made.about} is muted until {moment(made.until)}; it stays open on every page")


def unmute(about: About, reason: Reason = "", by: By = "") -> None:
    """End a mute before its time."""
    from ratchet.notify.muting import unmute as keep
    from ratchet.store.accounts import note_action

    store, now, who = required_store("a mute"), datetime.now(UTC), person(by)
    with store.atomic():
        made = keep(store, about, by=who, reason=reason, now=now)
        note_action(store, who, "unmute", now=now, about=made.about, reason=reason)
    say(f"people are told of {made.about} again")


def routes(as_json: AsJson = False) -> None:
    """Show who is told of what, what reached each channel last, what waits, and what is muted."""
    from ratchet.notify.muting import mutes, standing_mutes
    from ratchet.views.words import moment

    policy, routes, _ = _told(current_settings(), opened=False)
    store, now = existing_store(), datetime.now(UTC)
    channels = {
        name: {"type": _type(policy, name), **_state(store, key, now)}
        for name, key in routes.keys.items()
    }
    muted = standing_mutes(mutes(store), now) if store else ()
    if as_json:
        shown = [route.model_dump(mode="json") for route in routes.all]
        known = [one.canonical() for one in muted]
        say_json({"routes": shown, "channels": channels, "muted": known}, indent=2)
        return
    for route in routes.all:
        kinds = ", ".join(route.kinds) if route.kinds else "alerts and reminders"
        again = f", again after {route.repeat_hours:g} h" if route.repeat_hours else ""
        say(f"{route.name:12} {route.severity} and above: {kinds}{again} -> {', '.join(route.to)}")
    for name, state in channels.items():
        say(f"{name:12} {state['type']}: {_in_words(state)}")
    for one in muted:
        say(f"muted        {one.about} until {moment(one.until)} by {one.by}: {one.reason}")
    if not routes.all:
        say(_NONE)


def try_routes(
    route: Annotated[str, typer.Option(help="Only the channels of this route.")] = "",
    as_json: AsJson = False,
    by: By = "",
) -> None:
    """Send a test message to each channel now, and say what came of it.

    Exit code 0 where all arrived, 1 where one did not, 2 where something is not set up.
    """
    from ratchet.notify.messages import Links, trial_message
    from ratchet.records import derive_id
    from ratchet.web.links import pages_address

    settings, now, who = current_settings(), datetime.now(UTC), person(by)
    _, routes, channels = _told(settings, opened=True)
    links, results = Links(pages_address(settings, os.environ)), {}
    for name in _names(routes, route):
        channel = channels[routes.keys[name]]
        key = derive_id("delivery", "trial", name, now)
        message = trial_message(key=key, channel=name, by=who, links=links, now=now)
        results[name] = channel.send(message, now=now)
    if as_json:
        say_json({n: {"arrived": r.arrived, "said": r.said} for n, r in results.items()}, indent=2)
    else:
        for name, result in results.items():
            came = "arrived" if result.arrived else "did not arrive"
            said = f": {printable(result.said, 200)}" if result.said else ""
            say(f"{name:12} {came}{said}")
    raise typer.Exit(0 if all(result.arrived for result in results.values()) else 1)


def _told(settings: Settings, *, opened: bool) -> tuple[AlertPolicy, Routes, dict[str, Channel]]:
    """Read who is told of what; the channels need their secrets only where they are opened."""
    from ratchet.notify.channels import address_channels, open_channels
    from ratchet.notify.outgoing import Routes
    from ratchet.notify.policy import load_policy

    policy = load_policy(settings.alerts)
    routes = Routes.of(policy, address_channels(settings.notify))
    return policy, routes, open_channels(policy, settings.notify, os.environ) if opened else {}


def _names(routes: Routes, wanted: str) -> list[str]:
    """Return the channels to try: those of a route, else all of them.

    Raises:
        InvalidInputError: There is no such route, or nobody is told of anything.
    """
    if not routes.all:
        raise InvalidInputError(f"a test needs a route, got none; {_NONE}")
    found = [one for one in routes.all if wanted in ("", one.name)]
    if not found:
        known = ", ".join(one.name for one in routes.all)
        raise InvalidInputError(
            f"--route must name a route, got {printable(wanted)!r}; there are: {known}"
        )
    return list(dict.fromkeys(name for one in found for name in one.to))


def _type(policy: AlertPolicy, name: str) -> str:
    config = policy.channels.get(name)
    return "an address of RATCHET_NOTIFY" if config is None else config.type


def _state(store: EventStore | None, key: str, now: datetime) -> dict[str, Any]:
    """Return what a channel was sent last, and what did not reach it in a week."""
    from ratchet.store.outbox import GIVEN_UP, SENT, WAITING, count_of, latest_of

    if store is None:
        return {"last": None, "waiting": 0, "given_up": 0, "said": None}
    sent, waits = latest_of(store, key, SENT), latest_of(store, key, WAITING)
    lost = latest_of(store, key, GIVEN_UP)
    ever, week = datetime(1970, 1, 1, tzinfo=UTC), now - timedelta(days=7)
    failed = [one for one in (*waits, *lost) if one.said]
    return {
        "last": sent[0].due_at.isoformat() if sent and sent[0].due_at else None,
        "waiting": count_of(store, key, WAITING, ever),
        "given_up": count_of(store, key, GIVEN_UP, week),
        "said": failed[0].said if failed else None,
    }


def _in_words(state: dict[str, Any]) -> str:
    parts = [f"last sent {state['last'][:16]} UTC" if state["last"] else "nothing sent yet"]
    if state["waiting"]:
        parts.append(f"{counted(state['waiting'], 'message')} waiting")
    if state["given_up"]:
        parts.append(f"{counted(state['given_up'], 'message')} given up within a week")
    if state["said"]:
        parts.append(f"last failure: {printable(state['said'], 120)}")
    return "; ".join(parts)
