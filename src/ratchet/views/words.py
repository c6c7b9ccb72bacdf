"""How things are said to people, once for texts, plots and pages.

Words of signals stand in `ratchet.records.signals`, where alerts take them from as well.
"""

from __future__ import annotations

from collections.abc import Mapping

from ratchet.records import LookDecision, Trend
from ratchet.records.signals import FEEDBACK_SIGNALS, USER_RATES, words_of

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


__all__ = [
    "COUNTED",
    "ENDED",
    "EXPERIENCE",
    "LOOKS",
    "READOUTS",
    "RELEASES",
    "TRENDS",
    "became",
    "words_of",
]
