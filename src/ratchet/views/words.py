"""How things are said to people, once for texts, plots and pages.

Words of signals stand in `ratchet.records.signals`, where alerts take them from as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from ratchet.records import LookDecision, Trend
from ratchet.records.signals import BY_NAME, FEEDBACK_SIGNALS, SIGNALS, USER_RATES, words_of

COUNTED: Mapping[str, str] = {signal.name: signal.many for signal in FEEDBACK_SIGNALS}
"""Several events of a kind of feedback."""
EXPERIENCE: tuple[str, ...] = (
    *(signal.rate.metric for signal in USER_RATES if signal.rate),
    "implicit_quality",
)
"""The metrics that a cycle's report shows, in its order."""
READOUTS: Mapping[str, str] = {
    "harm": "worse",
    "passes": "no worse",
    "open": "open",
    "uneven": "reported unevenly",
    "no data": "no data",
}
"""What is read of a signal in a rollout or a test of variants."""
LOOKS: Mapping[LookDecision, str] = {
    "wait": "wait",
    "advance": "advance",
    "promote": "promote to champion",
    "abort": "abort, everybody has the champion",
    "expire": "expire, everybody has the champion",
}
"""What a look at a rollout decides."""
RELEASES: Mapping[str, str] = {
    "start": "begins as the champion",
    "adopt": "is adopted as the champion",
    "promote": "is promoted to champion",
    "rollback": "is the champion again",
    "moved outside Ratchet": "was made the champion by hand",
    "released elsewhere": "was released by whoever serves the champion",
}
"""What a release does with its champion, after the champion's name."""
TRENDS: Mapping[Trend, str] = {
    "new": "new",
    "split": "split off a known one",
    "growing": "growing",
    "steady": "steady",
    "shrinking": "shrinking",
    "merged": "merged",
    "gone": "gone",
}
"""How a failure cluster stands beside the analysis before."""
ENDED: Mapping[Trend, str] = {
    "gone": "fails no more than the rest",
    "merged": "is part of another cluster now",
}
"""What became of a cluster that ended, after its name."""


def became(trend: Trend) -> str:
    """Say what became of a failure cluster that was not found again, after its name."""
    return ENDED.get(trend, "still fails more, but too seldom to be found again")


def chart_of(name: str) -> str | None:
    """Return the chart of what an alert or a metric is named after; None without one."""
    for signal in SIGNALS:
        metrics = [signal.rate.metric] if signal.rate else []
        metrics += [chart.metric for chart in signal.charts]
        if metrics and name in (*metrics, *(share.name for share in signal.shares)):
            return name if name in metrics else metrics[0]
    return None


def in_quality(kind: str) -> str:
    """Say what quality and other figures take from a signal that is derived from the traffic."""
    signal = BY_NAME[kind]
    part = BY_NAME[signal.stands_for].part if signal.stands_for else None
    if part is not None:
        return (
            f"Quality takes it as {words_of(signal.stands_for or '')} where no such event was "
            f"reported (the part {words_of(part.name)}, weight {part.weight:g} of the implicit "
            "quality); without it, that part of these answers is unknown, and the other parts "
            "weigh more."
        )
    if signal.rate is not None:
        return (
            f"It is in no quality score; without it there is no {words_of(signal.rate.metric)}, "
            "and boards do not watch it."
        )
    if signal.charts:
        return "It is in no quality score; without it there is no chart of it."
    return (
        "It is in no quality score; that users went on is one way in which a correction in words "
        "is accepted, so without it fewer of these go to review."
    )


def moment(at: datetime) -> str:
    """Return a time in UTC, to the minute."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def duration(span: timedelta) -> str:
    """Return a span of time in its largest unit.

    >>> duration(timedelta(hours=3, minutes=50)), duration(timedelta(seconds=20))
    ('3 hours', 'less than a minute')
    """
    seconds = span.total_seconds()
    for unit, length in (("day", 86_400.0), ("hour", 3_600.0), ("minute", 60.0)):
        count = int(seconds // length)
        if count > 0:
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return "less than a minute"


def share(value: float | None) -> str:
    """Return a share in percent."""
    return "unknown" if value is None else f"{100.0 * value:.3g} %"


def figure(value: float | None, unit: str = "") -> str:
    """Return a number of a unit as people read it."""
    if value is None:
        return "unknown"
    if unit == "share":
        return share(value)
    return f"{value:.4g}{' s' if unit == 'seconds' else f' {unit}' if unit else ''}"


__all__ = [
    "COUNTED",
    "ENDED",
    "EXPERIENCE",
    "LOOKS",
    "READOUTS",
    "RELEASES",
    "TRENDS",
    "became",
    "chart_of",
    "duration",
    "figure",
    "in_quality",
    "moment",
    "share",
    "words_of",
]
