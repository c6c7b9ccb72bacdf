"""What happened in front of users, in order of time, read from the records alone.

    for moment in timeline(store, since=yesterday, until=now):
        ...

A release, its first answer, the first bad feedback on it, the alert, the decision, the switch, and
from when on every gateway process followed it: each line is a record or a row of the store, so that
what is told can be looked up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ratchet.files.text import one_line, shown_lines
from ratchet.records import (
    AlertEvent,
    Delivery,
    Release,
    Rollout,
    RolloutLook,
    RolloutStop,
    Routing,
    RoutingFollowed,
    RoutingRefusal,
    VariantTest,
    VariantTestEnd,
)
from ratchet.records.signals import BY_NAME
from ratchet.store import EventStore, Failures, Window, read_failures
from ratchet.store.arrivals import came_into_use
from ratchet.views.words import LOOKS, RELEASES, words_of

FOLLOWED_WITHIN = timedelta(minutes=1)
"""A process that follows a routing later than this was started later."""
STARTS_WITHIN = timedelta(seconds=10)
"""The same of a process that followed nothing before."""
FIRST_HOURS = timedelta(hours=2)
"""So long after it met users the first answer and the first bad feedback are looked for."""
_ALERTS = 1_000
_REASONS = 3


@dataclass(frozen=True, slots=True)
class Moment:
    """One thing that happened.

    Attributes:
        at: When.
        what: `release`, `users`, `failed`, `alert`, `told`, `decision`, `rollback` or `effect`.
        text: The same in words, on one line.
        more: What is to be said about it below, a line each.
    """

    at: datetime
    what: str
    text: str
    more: tuple[str, ...] = ()


def moments_between(store: EventStore, *, since: datetime, until: datetime) -> tuple[Moment, ...]:
    """Return what happened between two times, in order.

    Args:
        store: The store.
        since: From when on.
        until: Up to when.
    """
    switches = _switches(store)
    moments = [
        *_releases(store, since),
        *_unannounced(store, since, until),
        *_experiments(store, since),
        *_users(store, switches, since, until),
        *_failures(store, since, until),
        *_alerts(store),
        *_effects(store, switches, since),
    ]
    inside = [moment for moment in moments if since <= moment.at <= until]
    return tuple(sorted(inside, key=lambda moment: moment.at))


def releases_between(store: EventStore, *, since: datetime, until: datetime) -> tuple[Moment, ...]:
    """Return what was released, rolled out, stopped or taken back, in order; no row is read."""
    moments = [*_releases(store, since), *_experiments(store, since)]
    inside = [moment for moment in moments if since <= moment.at < until]
    return tuple(sorted(inside, key=lambda moment: moment.at))


def _experiments(store: EventStore, since: datetime) -> Iterator[Moment]:
    yield from _rollouts(store, since)
    yield from _tests(store)
    yield from _refusals(store, since)


@dataclass(frozen=True, slots=True)
class _Switch:
    """A change of who answers: the routing, when it ended, and what was taken away by it."""

    at: datetime
    key: str
    versions: tuple[str, ...]
    end: datetime | None
    withdrawn: tuple[str, ...]


def _switches(store: EventStore) -> list[_Switch]:
    routings = store.records(Routing)
    switches: list[_Switch] = []
    for index, routing in enumerate(routings):
        versions = tuple(variant.version for variant in routing.variants)
        before = switches[-1].versions if switches else ()
        after = routings[index + 1].created_at if index + 1 < len(routings) else None
        gone = tuple(version for version in before if version not in versions)
        switches.append(_Switch(routing.created_at, routing.id, versions, after, gone))
    return switches


def _releases(store: EventStore, since: datetime) -> Iterator[Moment]:
    for release in store.records(Release, since=since):
        back = release.action == "rollback"
        who = f" by {release.by}" if release.by else ""
        why = (f"why: {one_line(release.note)}",) if release.note else ()
        instead = f", {release.previous} is kept for rollback" if release.previous else ""
        text = f"{release.champion} {RELEASES[release.action]}{who}{instead}"
        yield Moment(release.created_at, "rollback" if back else "release", text, why)


def _unannounced(store: EventStore, since: datetime, until: datetime) -> Iterator[Moment]:
    """Yield versions that came into use without a release: whoever serves them tells nobody."""
    known = {release.champion for release in store.records(Release)}
    known |= {version for one in _switches(store) for version in one.versions}
    for moment, name in came_into_use(store, since, until):
        if name not in known:
            yield Moment(moment, "release", f"{one_line(name)} came into use, by its answers")


def _rollouts(store: EventStore, since: datetime) -> Iterator[Moment]:
    for rollout in store.records(Rollout):
        share = rollout.plan.stages[0].share
        who = f" by {rollout.by}" if rollout.by else ""
        text = f"rollout of {rollout.challenger.version} begins{who} at {share:.0%} of users"
        yield Moment(rollout.created_at, "release", text)
        stop = store.get(RolloutStop, rollout.id)
        if stop is not None:
            note = (f"why: {one_line(stop.note)}",) if stop.note else ()
            text = f"rollout of {rollout.challenger.version} is stopped by {stop.by}"
            yield Moment(stop.created_at, "rollback", text, note)
    for look in store.records(RolloutLook, since=since):
        if look.decision != "wait":
            text = f"look {look.number} at {look.model_version}: {LOOKS[look.decision]}"
            yield Moment(look.created_at, "decision", text, tuple(map(one_line, look.reasons)))


def _tests(store: EventStore) -> Iterator[Moment]:
    for test in store.records(VariantTest):
        arms = ", ".join(f"{variant.label} {variant.share:.0%}" for variant in test.variants)
        yield Moment(test.created_at, "release", f"test of variants {test.name} begins: {arms}")
        end = store.get(VariantTestEnd, test.id)
        if end is not None:
            winner = end.winner or "the control"
            text = f"test of variants {test.name} is ended by {end.by}: everybody gets {winner}"
            yield Moment(end.created_at, "decision", text)


def _refusals(store: EventStore, since: datetime) -> Iterator[Moment]:
    for item in store.records(RoutingRefusal, since=since):
        why = "" if item.step == "start" else ", it does not answer"
        text = f"{item.step} of {item.version} is refused{why}; {item.stands} stays"
        yield Moment(item.created_at, "decision", text, (f"why: {one_line(item.reason)}",))


def _alerts(store: EventStore) -> Iterator[Moment]:
    events = store.records(AlertEvent, latest=_ALERTS)
    for event in events:
        where = f" in segment {event.segment}" if event.segment else ""
        mostly = f", mostly about {event.cluster}" if event.cluster else ""
        text = (
            f"{event.severity} alert {event.alert_id[:8]} {event.change}: "
            f"{words_of(event.signal)} of {event.model_version}{where}{mostly}"
        )
        sure, action = f"sure: {event.certainty}", f"to do: {one_line(event.action)}"
        details = (one_line(event.message), sure, action)
        yield Moment(event.created_at, "alert", text, details if event.change != "resolved" else ())
    ids = {event.id: event for event in events}
    for delivery in store.records(Delivery, latest=_ALERTS):
        about = ids.get(delivery.event_id)
        if about is not None and delivery.delivered:
            text = f"{delivery.channel} is told of alert {about.alert_id[:8]} ({about.change})"
            yield Moment(delivery.created_at, "told", text)


# Users --------------------------------------------------------------------------------------------


def _users(
    store: EventStore, switches: list[_Switch], since: datetime, until: datetime
) -> Iterator[Moment]:
    """Tell of each version that is new to users its first answer and first bad feedback."""
    known: set[str] = set()
    for switch in switches:
        for version in switch.versions:
            if version not in known and switch.at >= since:
                end = min(switch.end or until, until, switch.at + FIRST_HOURS)
                yield from _firsts(store, version, switch.at, end)
        known |= set(switch.versions)


def _firsts(store: EventStore, version: str, start: datetime, end: datetime) -> Iterator[Moment]:
    if end <= start:
        return
    window = Window(start, end, version)
    signals = store.signals(window, lag=timedelta(days=1)).select(["created_at", "failed"])
    if not signals.num_rows:
        return
    rows = zip(signals["created_at"].to_pylist(), signals["failed"].to_pylist(), strict=True)
    answered = [at for at, failed in rows if not failed]
    if answered:
        yield Moment(min(answered), "users", f"first answer of {version}")
    row = next(filter(_is_bad, store.feedback(window).to_pylist()), None)
    if row is not None:
        quote = f", {one_line(row['text'])[:80]!r}" if row["text"] else ""
        text = f"first bad feedback on {version}: {_says(row)}{quote}"
        yield Moment(row["created_at"], "users", text)


def _failures(store: EventStore, since: datetime, until: datetime) -> Iterator[Moment]:
    """Tell of each version since when it failed, how often and why."""
    by_version: dict[str, list[Failures]] = {}
    for found in read_failures(store, Window(since, until)):
        by_version.setdefault(found.model_version, []).append(found)
    for version, reasons in by_version.items():
        count, last = sum(item.count for item in reasons), max(item.last for item in reasons)
        more = [f"{item.count:,} × {one_line(item.error)[:160]}" for item in reasons[:_REASONS]]
        if len(reasons) > _REASONS:
            more.append(f"other reasons: {len(reasons) - _REASONS:,}")
        text = f"failed attempts of {version}: {count:,}, the last at {last:%F %H:%M:%S}"
        yield Moment(min(item.first for item in reasons), "failed", text, tuple(more))


def _is_bad(row: dict[str, Any]) -> bool:
    """Tell whether feedback says by itself that an answer was bad."""
    signal = BY_NAME.get(row["kind"])
    if signal is None or signal.reason is None or signal.reason.weak or signal.judged:
        return False
    return signal.is_bad(_number(row))


def _says(row: dict[str, Any]) -> str:
    reason = BY_NAME[row["kind"]].reason
    return reason.words.format(_number(row)) if reason else words_of(row["kind"])


def _number(row: dict[str, Any]) -> float:
    """Return the value of feedback; a text that is there counts as 1."""
    return 1.0 if row["number"] is None else float(row["number"])


# Effects ------------------------------------------------------------------------------------------


def _effects(store: EventStore, switches: list[_Switch], since: datetime) -> Iterator[Moment]:
    """Tell when gateway processes followed a switch, and the last answer of what was withdrawn."""
    followed = store.records(RoutingFollowed)
    began = {item.process: item.routing_id for item in reversed(followed)}
    for switch in switches:
        if switch.at < since:
            continue
        late = switch.at + FOLLOWED_WITHIN
        times = [
            item.created_at
            for item in followed
            if item.routing_id == switch.key
            and item.created_at <= late
            and (began[item.process] != switch.key or item.created_at <= switch.at + STARTS_WITHIN)
        ]
        if times:
            count = (
                "1 gateway process follows"
                if len(times) == 1
                else (f"all {len(times)} gateway processes follow")
            )
            yield Moment(max(times), "effect", f"{count}, {_after(max(times), switch.at)}")
        for version in switch.withdrawn:
            last = _last_answer(store, version, switch)
            if last is not None:
                text = f"last question that {version} answered, {_after(last, switch.at)}"
                yield Moment(last, "effect", text)


def _last_answer(store: EventStore, version: str, switch: _Switch) -> datetime | None:
    """Return when the last question was asked that a version answered after a switch, if any."""
    end = min(switch.end or switch.at + FOLLOWED_WITHIN, switch.at + FOLLOWED_WITHIN)
    window = Window(switch.at, end, version)
    asked = store.signals(window, lag=timedelta(0))["created_at"].to_pylist()
    return max(asked, default=None)


def _after(moment: datetime, start: datetime) -> str:
    seconds = (moment - start).total_seconds()
    return f"{abs(seconds):.1f} s {'after' if seconds >= 0 else 'before'} the switch"


# Words --------------------------------------------------------------------------------------------


def timeline_text(moments: tuple[Moment, ...]) -> str:
    """Write moments as text: a line each, and what is to be said about it below."""
    if not moments:
        return "nothing happened in front of users in this time"
    lines = []
    day = None
    for moment in moments:
        if moment.at.date() != day:
            day = moment.at.date()
            lines.append(f"{day:%F} (UTC)")
        lines.append(f"  {moment.at:%H:%M:%S}  {moment.what:8}  {moment.text}")
        lines += [f"{'':22}{text}" for text in moment.more]
    return shown_lines(lines)
