"""A week in front of users, gathered from the records of the home.

    report = weekly_report(store, week_of_year("2026-W48"), assistant="router", now=now)

What changed is compared as the first screen does (`ratchet.web.standing`), what happened is told as
`ratchet timeline` tells it. No row of traffic is read: costs are those of the week's analysis,
times the number of answers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

from ratchet.analyze.alert_steps import known_alerts, open_alerts
from ratchet.errors import InvalidInputError
from ratchet.files.text import counted, printable
from ratchet.notify.messages import Links, Message
from ratchet.notify.runbooks import WEEKLY
from ratchet.records import (
    AlertEvent,
    AlertMute,
    Analysis,
    Approval,
    Candidate,
    Decision,
    Metric,
    Release,
    ReviewDecision,
    TrainingSet,
)
from ratchet.store import EventStore, Window
from ratchet.store.arrivals import count_answers
from ratchet.store.outbox import Outgoing
from ratchet.views.pages.weekly import weekly_page
from ratchet.views.text.timeline import releases_between
from ratchet.views.text.weekly import Row, Section, Verdict, WeeklyReport, weekly_markdown
from ratchet.views.words import chart_of, duration, figure, moment, words_of
from ratchet.web.standing import Change, Week, changes_between, read_anew, waiting

LENGTH = timedelta(days=7)
_WEEK_NAME = re.compile(r"(\d{4})-W(\d{2})")
_LOOKED_BACK = timedelta(days=21)
_HEADLINES: dict[Verdict, str] = {
    "better": "The model is better than the week before.",
    "worse": "The model is worse than the week before.",
    "mixed": "The model is better in some, worse in other respects than the week before.",
    "same": "No difference to the week before is shown.",
    "unknown": "Whether the model is better than the week before is not known.",
}


class _Dated(Protocol):
    @property
    def created_at(self) -> datetime: ...


D = TypeVar("D", bound=_Dated)


@dataclass(frozen=True, slots=True)
class Span:
    """A week by ISO 8601, from Monday 00:00 UTC on."""

    name: str
    start: datetime

    @property
    def end(self) -> datetime:
        """When the next one begins."""
        return self.start + LENGTH


def week_named(name: str) -> Span:
    """Return the week of a name such as `2026-W48`.

    Raises:
        InvalidInputError: There is no such week.
    """
    found = _WEEK_NAME.fullmatch(name)
    try:
        if found is None:
            raise ValueError
        monday = datetime.fromisocalendar(int(found[1]), int(found[2]), 1)
    except ValueError as error:
        raise InvalidInputError(
            f"a week must be written as 2026-W48, got {printable(name)!r}; the year and the number "
            "of the week by ISO 8601"
        ) from error
    return Span(name, monday.replace(tzinfo=UTC))


def last_week(now: datetime) -> Span:
    """Return the last week that is over."""
    year, week, _ = (now.astimezone(UTC) - LENGTH).isocalendar()
    return week_named(f"{year}-W{week:02d}")


def week_before(store: EventStore, week: Span) -> Span | None:
    """Return the week before; None where nothing was analyzed in the weeks before."""
    return None if _analyses(store, week)[1] is None else last_week(week.start)


def weekly_report(
    store: EventStore, week: Span, *, assistant: str, now: datetime, address: str | None = None
) -> WeeklyReport:
    """Return the report about a week.

    Args:
        store: The store.
        week: The week.
        assistant: What the model is called.
        now: When; what waits is told as of then.
        address: Of the pages; None where none are served.
    """
    until = min(week.end, now)
    analyses = _analyses(store, week)
    compared = _compared(*analyses)
    alerts = _alarms(store.records(AlertEvent, latest=5_000), week.start, until)
    answers = count_answers(store, Window(week.start, until)) if until > week.start else 0
    verdict: Verdict = compared.says  # type: ignore[assignment]
    sections = (
        _better(compared, week),
        _alarming(alerts),
        _released(store, week.start, until),
        _learned(store, week.start, until),
        _people(store, week.start, until),
        _waits(store, now),
        _cost(store, week.start, until, compared.now, answers),
    )
    summary = (
        ("Answers", f"{answers:,}"),
        ("Alerts", f"{len(alerts)}, {sum(one.is_open for one in alerts)} still open"),
        ("New champions", str(_new_champions(store, week.start, until))),
    )
    return WeeklyReport(
        assistant, week.name, week.start, week.end, now, verdict, _HEADLINES[verdict], summary,
        sections, address,
    )  # fmt: skip


def report_message(
    store: EventStore, taken: Outgoing, *, assistant: str, links: Links, now: datetime
) -> Message:
    """Return the message that brings a week's report."""
    week = week_named(taken.about)
    report = weekly_report(store, week, assistant=assistant, now=now, address=links.address)
    return Message(
        id=taken.id,
        thread=f"weekly {week.name}",
        kind=WEEKLY,
        tone={"better": "good", "worse": "warning"}.get(report.verdict, "news"),  # type: ignore[arg-type]
        title=f"{report.title}: {report.headline}",
        lead=report.sections[0].says,
        facts=(
            *report.summary,
            *((one.title, one.says) for one in report.sections[1:]),
        ),
        page=links.page("weekly", week.name),
        data={"week": week.name, "verdict": report.verdict},
        html=weekly_page(report),
        text=weekly_markdown(report),
    )


# Better? ------------------------------------------------------------------------------------------


def _analyses(store: EventStore, week: Span) -> tuple[Analysis | None, Analysis | None]:
    """Return the last analysis of the week, and the last one of before."""
    known = store.records(Analysis, since=week.start - _LOOKED_BACK)
    inside = [one for one in known if week.start <= one.created_at < week.end]
    before = [one for one in known if one.created_at < week.start]
    return (inside[-1] if inside else None, before[-1] if before else None)


def _compared(now: Analysis | None, before: Analysis | None) -> Week:
    changes = changes_between(now, before) if now and before else ()
    return Week(now, before, changes, ())


def _better(week: Week, span: Span) -> Section:
    title = "Is the model better than the week before?"
    if week.now is None:
        return Section(title, f"Nothing was analyzed in {span.name}, so nobody can tell.")
    if not week.changes:
        return Section(title, "There is no analysis of before to compare with.")
    rows = tuple(_change(change) for change in week.changes)
    assert week.before is not None
    note = (
        f"{week.now.model_version} on {moment(week.now.created_at)}, beside "
        f"{week.before.model_version} on {moment(week.before.created_at)}. Intervals are of 95 %, "
        "each metric by itself: of twenty metrics that stand still, one is called better or worse."
    )
    head = ("Metric", "This week", "Before", "Change", "It is")
    said = [change.says for change in week.changes]
    says = f"{counted(len(said), 'metric')}: {said.count('better')} better, "
    says += f"{said.count('worse')} worse, of the others no difference is shown."
    return Section(title, says, head, rows, note)


def _change(change: Change) -> Row:
    unit = change.now.unit
    by, low, high = change.difference, change.interval.lower, change.interval.upper
    moved = f"{figure(by, unit)} ({figure(low, unit)} to {figure(high, unit)})"
    if unit == "share":
        moved = f"{100 * by:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
    cells = (
        words_of(change.now.name),
        _measured(change.now),
        _measured(change.before),
        moved,
        change.says,
    )
    tone = {"better": "good", "worse": "bad"}.get(change.says, "")
    chart = chart_of(change.now.name)
    return Row(cells, tone, f"/charts/{chart}" if chart else "")  # type: ignore[arg-type]


def _measured(metric: Metric) -> str:
    between = f"{figure(metric.lower, metric.unit)} to {figure(metric.upper, metric.unit)}"
    return f"{figure(metric.value, metric.unit)} ({between})"


# Alarms -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Alarm:
    """An alert that stood in the week: its last step of then, and from when until when."""

    step: AlertEvent
    start: datetime
    end: datetime
    is_open: bool


def _alarms(events: Iterable[AlertEvent], start: datetime, until: datetime) -> list[_Alarm]:
    """Return the alerts that stood between two times, the longest first."""
    chains: dict[str, list[AlertEvent]] = {}
    for event in events:
        if event.created_at < until:
            chains.setdefault(event.alert_id, []).append(event)
    found = []
    for steps in chains.values():
        last, began = steps[-1], steps[0].created_at
        is_over = last.change == "resolved"
        if not is_over or last.created_at >= start:
            found.append(_Alarm(last, began, last.created_at if is_over else until, not is_over))
    return sorted(found, key=lambda one: one.start - one.end)


def _alarming(alarms: Sequence[_Alarm]) -> Section:
    title = "What was alarming, and for how long?"
    if not alarms:
        return Section(title, "Nothing: no alert stood in this week.")
    rows = tuple(
        Row(
            (
                one.step.message,
                one.step.severity,
                moment(one.start),
                f"{duration(one.end - one.start)}{', still open' if one.is_open else ''}",
                one.step.by or "nobody",
            ),
            page=f"/alerts/{one.step.alert_id}",
        )
        for one in alarms
    )
    grave = sum(one.step.severity == "critical" for one in alarms)
    says = f"{counted(len(alarms), 'alert')}, {grave} critical; the longest for "
    says += f"{duration(alarms[0].end - alarms[0].start)}."
    return Section(title, says, ("Alert", "Severity", "Opened", "Lasted", "Looked after by"), rows)


# What was done ------------------------------------------------------------------------------------


def _released(store: EventStore, start: datetime, until: datetime) -> Section:
    title = "What was released, what was taken back?"
    moments = releases_between(store, since=start, until=until)
    if not moments:
        return Section(title, "Nothing: users kept what they had.")
    back = sum(one.what == "rollback" for one in moments)
    rows = tuple(
        Row(
            (one.text, moment(one.at), "; ".join(more.removeprefix("why: ") for more in one.more)),
            page="/rollouts",
        )
        for one in moments
    )
    says = f"{counted(len(moments), 'step')}, {back} of them back."
    return Section(title, says, ("What", "When", "Why"), rows)


def _new_champions(store: EventStore, start: datetime, until: datetime) -> int:
    releases = _between(store.records(Release, since=start), until)
    return sum(one.action != "rollback" for one in releases)


def _learned(store: EventStore, start: datetime, until: datetime) -> Section:
    title = "What did it learn?"
    sets = _between(store.records(TrainingSet, since=start), until)
    candidates = {one.training_set_id: one for one in _between(
        store.records(Candidate, since=start), until)}  # fmt: skip
    decisions = _between(store.records(Decision, since=start), until)
    if not sets and not decisions:
        return Section(title, "Nothing: no training set was made.")
    verdicts = {one.challenger: one for one in decisions}
    rows = []
    for made in sets:
        candidate = candidates.get(made.id)
        version = None if candidate is None else candidate.reference
        decision = verdicts.pop(version, None) if version else None
        rows.append(
            Row(
                (
                    f"{counted(made.size, 'example')} ({made.kind})",
                    version or "not trained",
                    "not gated" if decision is None else _verdict(decision),
                ),
                page=f"/training-sets/{made.id}",
            )
        )
    rows += [
        Row(("trained earlier", one.challenger, _verdict(one)), page=f"/decisions/{one.id}")
        for one in verdicts.values()
    ]
    promoted = sum(one.verdict == "promote" for one in decisions)
    says = (
        f"{counted(sum(one.size for one in sets), 'example')} in {counted(len(sets), 'set')}; the "
        f"gate found {promoted} of {counted(len(decisions), 'challenger')} better."
    )
    return Section(title, says, ("Trained on", "Version", "The gate said"), tuple(rows))


def _verdict(decision: Decision) -> str:
    return f"{decision.verdict}: {'; '.join(decision.reasons)}"


def _people(store: EventStore, start: datetime, until: datetime) -> Section:
    title = "What did people decide?"
    rows = [
        Row(
            (
                f"{'approved' if one.approved else 'rejected'} {one.challenger}",
                one.by,
                moment(one.created_at),
                one.reason,
            ),
            page=f"/decisions/{one.id}",
        )
        for one in _between(store.records(Approval, since=start), until)
    ]
    for event in _between(store.records(AlertEvent, since=start), until):
        if event.by and event.change in ("acknowledged", "resolved"):
            what = f"{event.change} the alert about {words_of(event.signal)}"
            cells = (what, event.by, moment(event.created_at), event.note or "")
            rows.append(Row(cells, page=f"/alerts/{event.alert_id}"))
    for mute in _between(store.records(AlertMute, since=start), until):
        what = f"muted {mute.about[:12]} for {duration(mute.until - mute.created_at)}"
        rows.append(Row((what, mute.by, moment(mute.created_at), mute.reason)))
    labels = Counter(
        one.reviewer for one in _between(store.records(ReviewDecision, since=start), until)
    )
    for reviewer, number in labels.most_common():
        rows.append(Row((f"labelled {counted(number, 'item')}", reviewer, "", ""), page="/review"))
    if not rows:
        return Section(title, "Nothing was decided by people.")
    names = {row.cells[1] for row in rows}
    says = f"{counted(len(rows) - len(labels), 'decision')} and "
    says += f"{counted(sum(labels.values()), 'label')} by "
    says += f"{counted(len(names), 'person', 'people')}."
    return Section(title, says, ("What", "Who", "When", "Why"), tuple(rows))


def _waits(store: EventStore, now: datetime) -> Section:
    title = "What waits for people now?"
    waits = waiting(store, open_alerts(known_alerts(store)), read_anew)
    rows = [
        Row(
            (f"approve or reject {one.challenger}", duration(now - one.created_at)),
            page=f"/decisions/{one.id}",
        )
        for one in waits.decisions
    ]
    rows += [
        Row(
            (f"{counted(one.waiting, 'item')} to review for {one.dimension}",
             duration(now - one.oldest)),
            page="/review",
        )
        for one in waits.reviews
    ]  # fmt: skip
    rows += [
        Row((f"{counted(left, 'pair')} of answers to compare", ""), page="/review")
        for _, left in waits.pairs
    ]
    if waits.alerts:
        said = f"{counted(waits.alerts, 'open alert')} that nobody looks after"
        rows.append(Row((said, ""), page="/alerts"))
    if not rows:
        return Section(title, "Nothing.")
    says = f"{counted(len(rows), 'thing')}, as of {moment(now)}."
    return Section(title, says, ("What", "For"), tuple(rows))


def _cost(
    store: EventStore, start: datetime, until: datetime, analysis: Analysis | None, answers: int
) -> Section:
    title = "What did it cost?"
    mean = next((one for one in analysis.metrics if one.name == "cost"), None) if analysis else None
    if mean is None or mean.value is None or mean.lower is None or mean.upper is None:
        why = mean.reason if mean is not None else None
        cost = f"not known: {why or 'no analysis of the week says what an answer cost'}"
        says = "What answers cost is not known."
    else:
        cost = f"{mean.value * answers:,.2f}"
        cost += f" ({mean.lower * answers:,.2f} to {mean.upper * answers:,.2f})"
        says = f"About {mean.value * answers:,.2f} for answers."
    rows = [Row((f"{counted(answers, 'answer')}", cost))]
    judged, spent = store.spent_on_judges(start, until)
    rows.append(Row((f"{counted(judged, 'verdict')} of judges", f"{spent:,.2f}")))
    seconds = sum(one.training_seconds for one in _between(
        store.records(Candidate, since=start), until))  # fmt: skip
    rows.append(Row(("training", f"{seconds / 3600:.1f} hours of this machine")))
    note = (
        "Answers: the mean of the week's last analysis times the number of answers, with the "
        "interval of the mean; in the currency of the configured prices."
    )
    return Section(title, says, ("What", "Cost"), tuple(rows), note)


def _between(records: Iterable[D], until: datetime) -> list[D]:
    return [one for one in records if one.created_at < until]
