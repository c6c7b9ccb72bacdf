"""The catalogue of signals: what is known of an answer, and which side of it is bad.

A signal is a kind of feedback, something seen of the interaction itself, or derived from other
signals. A new kind of feedback takes a record class in `ratchet.records.events` and a declaration
in `SIGNALS`, and nothing else: the store's columns, joined outcomes, quality, metrics, boards,
rollouts and reports read this catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Union

from pydantic import ConfigDict, Field, TypeAdapter

from ratchet.records import events
from ratchet.records.answer_signals import ANSWER_SIGNALS
from ratchet.records.signal import (
    Group,
    Limits,
    QualityPart,
    Rate,
    Reason,
    Signal,
    Source,
    ValueChart,
    WatchedShare,
)

READ_CLUSTERS: Final = "read the top failure clusters and queue their interactions for review"
"""What to do where quality is worse and nothing is urgent."""
_ROLL_BACK = "roll back to the previous version if the rise began with the current release; "

SIGNALS: Final[tuple[Signal, ...]] = (
    Signal(
        name="thumbs",
        source="explicit",
        record=events.Thumbs,
        column="thumbs",
        many="thumbs",
        bad=False,
        rate=Rate(metric="thumbs_down_rate", of="bad"),
        limits=Limits(
            warning=0.15,
            critical=0.25,
            minimum_sample=30,
            warning_action=READ_CLUSTERS,
            critical_action=_ROLL_BACK
            + "otherwise start an improvement cycle on the top cluster today",
            first_action="start an improvement cycle today, on the top failure cluster where there "
            "is one",
        ),
        reason=Reason(words="thumbs down", rank=3),
        shares=(
            WatchedShare(
                name="thumbs_down",
                words="thumbs down",
                early=True,
                rollout=True,
                margin=0.02,
                primary=True,
            ),
        ),
    ),
    Signal(
        name="stars",
        source="explicit",
        record=events.Stars,
        column="stars",
        many="stars",
        bad=2.5,
        reason=Reason(words="{:.0f} of 5 stars", rank=4),
    ),
    Signal(
        name="dimension",
        source="explicit",
        record=events.Dimension,
        many="ratings of one dimension",
    ),
    Signal(
        name="comment", source="explicit", record=events.Comment, column="comments", many="comments"
    ),
    Signal(
        name="correction",
        source="explicit",
        record=events.Correction,
        column="corrections",
        many="corrections",
        bad=True,
        rate=Rate(metric="correction_rate", of="bad", words="answers corrected"),
        reason=Reason(words="the user corrected it", rank=2),
    ),
    Signal(
        name="copy",
        source="implicit",
        record=events.Copy,
        column="copied",
        many="copy signals",
        bad=False,
        part=QualityPart(name="copied", weight=0.25),
        rate=Rate(metric="copy_rate", of="good", words="answers copied"),
        reason=Reason(words="not copied", rank=8, weak=True),
        shares=(WatchedShare(name="not_copied", words="answers not copied", rollout=True),),
    ),
    Signal(
        name="regenerate",
        source="implicit",
        record=events.Regenerate,
        column="regenerated",
        many="regenerate signals",
        bad=True,
        part=QualityPart(name="not_regenerated", weight=0.25),
        rate=Rate(metric="regenerate_rate", of="bad", words="answers regenerated"),
        limits=Limits(
            warning=0.20,
            critical=0.35,
            minimum_sample=50,
            warning_action="compare first and second answers in the top failure clusters",
            critical_action=_ROLL_BACK
            + "otherwise check prompt template and sampling settings for a change",
            first_action="compare first and second answers, and check prompt template and sampling "
            "settings",
        ),
        reason=Reason(words="asked for another answer", rank=5),
        shares=(
            WatchedShare(
                name="regenerated",
                words="regenerated answers",
                early=True,
                rollout=True,
                margin=0.02,
            ),
        ),
    ),
    Signal(
        name="task_completed",
        source="implicit",
        record=events.TaskCompleted,
        column="completed",
        many="task outcomes",
        bad=False,
        part=QualityPart(name="task_completed", weight=0.35),
        rate=Rate(
            metric="completion_rate",
            of="good",
            unobserved="no task_completed signals in the window",
            words="tasks completed",
        ),
        reason=Reason(words="the task was not done"),
        shares=(
            WatchedShare(
                name="not_completed", words="tasks not completed", rollout=True, margin=0.03
            ),
        ),
    ),
    Signal(
        name="session_end",
        source="implicit",
        record=events.SessionEnd,
        column="session_seconds",
        many="session ends",
        part=QualityPart(name="engaged", weight=0.15),
        charts=(
            ValueChart(
                metric="session_seconds",
                words="length of sessions, median",
                unit="seconds",
                quantile=0.5,
            ),
        ),
    ),
    Signal(
        name="implicit_quality",
        source="derived",
        shares=(
            WatchedShare(
                name="low_quality", words="answers of low implicit quality", cut=(0.10, "below")
            ),
        ),
        charts=(ValueChart(metric="implicit_quality", words="implicit quality", unit="score"),),
    ),
    Signal(
        name="safety_violation",
        source="assessed",
        record=events.SafetyViolation,
        column="unsafe",
        many="safety checks",
        bad=True,
        rate=Rate(
            metric="safety_violation_rate",
            of="bad",
            unobserved="no safety check is connected",
            words="answers that break a safety rule",
        ),
        limits=Limits(
            warning=0.001,
            critical=0.005,
            minimum_sample=1000,
            warning_action="have a person read every flagged answer before the next release",
            critical_action="roll back now and have a person read every flagged answer",
            first_action="take the model out of service and have a person read every flagged "
            "answer",
        ),
        reason=Reason(words="found unsafe", rank=1),
        shares=(
            WatchedShare(
                name="unsafe",
                words="unsafe answers",
                group="service",
                rare=True,
                critical=True,
                rollout=True,
                margin=0.005,
            ),
        ),
    ),
    Signal(
        name="judge_score",
        source="assessed",
        record=events.JudgeScore,
        column="judge_scores",
        many="judges' scores",
        bad=0.5,
        judged=True,
        reason=Reason(words="the judge gives {:.2f}", rank=7),
        shares=(
            WatchedShare(
                name="low_judge_score",
                words="answers that the judge scores low",
                cut=(0.10, "below"),
            ),
        ),
        charts=(ValueChart(metric="judge_score", words="judge score", unit="score"),),
    ),
    Signal(
        name="session_score",
        source="assessed",
        record=events.SessionScore,
        many="judges' scores of sessions",
        bad=0.5,
        judged=True,
        charts=(ValueChart(metric="session_score", words="judge score of sessions", unit="score"),),
    ),
    Signal(
        name="asked_again",
        source="traffic",
        record=events.AskedAgain,
        many="answers asked for again",
        bad=True,
        stands_for="regenerate",
    ),
    Signal(
        name="edited",
        source="traffic",
        record=events.Edited,
        column="edited",
        many="questions edited",
        bad=True,
        rate=Rate(
            metric="edit_rate", of="bad", unobserved="no conversation can be followed in the window"
        ),
        reason=Reason(words="the question was changed and asked again", rank=9, weak=True),
        shares=(WatchedShare(name="edited", words="questions asked again in other words"),),
    ),
    Signal(
        name="continued",
        source="traffic",
        record=events.Continued,
        many="answers gone on from",
    ),
    Signal(
        name="left",
        source="traffic",
        record=events.Left,
        many="conversations left",
        charts=(
            ValueChart(
                metric="conversation_turns", words="turns of conversations, mean", unit="turns"
            ),
        ),
    ),
    Signal(
        name="visit_seconds",
        source="traffic",
        record=events.VisitSeconds,
        many="lengths of visits",
        stands_for="session_end",
    ),
    Signal(
        name="next_turn",
        source="traffic",
        record=events.NextTurn,
        column="next_turn",
        many="turns after an answer",
        bad=3.5,
        judged=True,
        rate=Rate(
            metric="dissatisfied_rate",
            of="bad",
            unobserved="no usable reader of what users write next",
        ),
        reason=Reason(words="what the user wrote next was dissatisfied", rank=10),
        shares=(WatchedShare(name="dissatisfied", words="answers followed by an unhappy turn"),),
    ),
    Signal(
        name="error",
        source="interaction",
        column="failed_with_error",
        many="errors",
        bad=True,
        rate=Rate(metric="error_rate", of="bad", words="answers failed with an error"),
        reason=Reason(words="an error in place of an answer", rank=0),
        shares=(
            WatchedShare(
                name="failed",
                words="failed answers",
                group="service",
                rare=True,
                rollout=True,
                margin=0.005,
            ),
        ),
    ),
    Signal(
        name="latency_seconds",
        source="interaction",
        column="latency_seconds",
        limits=Limits(
            metric="latency_seconds_p99",
            warning=2.0,
            critical=5.0,
            minimum_sample=400,
            warning_action="check the load, the length of answers and the batch size of the server",
            critical_action="shed or reroute traffic and restart the server; roll back if it "
            "began with the current release",
            first_action="shed or reroute traffic and restart the server",
            relative=True,
        ),
        shares=(
            WatchedShare(
                name="slower_than_median",
                words="answers slower than usual",
                group="service",
                cut=(0.50, "above"),
            ),
            WatchedShare(
                name="slower_than_p99",
                words="very slow answers",
                group="service",
                rare=True,
                cut=(0.99, "above"),
            ),
            WatchedShare(
                name="slow",
                words="slow answers",
                group="service",
                board=False,
                rollout=True,
                margin=0.05,
            ),
        ),
        charts=(
            ValueChart(
                metric="latency_seconds_p50", words="latency, median", unit="seconds", quantile=0.5
            ),
            ValueChart(
                metric="latency_seconds_p99",
                words="latency, 99th percentile",
                unit="seconds",
                quantile=0.99,
                fewest=100,
            ),
        ),
    ),
    Signal(
        name="characters",
        source="interaction",
        shares=(
            WatchedShare(
                name="longer_than_usual",
                words="answers longer than usual",
                group="service",
                cut=(0.95, "above"),
            ),
            WatchedShare(
                name="shorter_than_usual",
                words="answers shorter than usual",
                group="service",
                cut=(0.05, "below"),
            ),
        ),
        charts=(
            ValueChart(
                metric="answer_characters",
                words="length of answers, median",
                unit="characters",
                quantile=0.5,
            ),
        ),
    ),
    *ANSWER_SIGNALS,
    Signal(
        name="no_feedback",
        source="derived",
        bad=True,
        shares=(
            WatchedShare(name="no_feedback", words="answers without any rating", group="pipeline"),
        ),
    ),
    Signal(
        name="no_signals",
        source="derived",
        bad=True,
        shares=(
            WatchedShare(
                name="no_signals", words="answers without any implicit signal", group="pipeline"
            ),
        ),
    ),
)


# Derived ------------------------------------------------------------------------------------------


def _kinds(*sources: Source) -> tuple[str, ...]:
    return tuple(signal.name for signal in SIGNALS if signal.record and signal.source in sources)


FEEDBACK_SIGNALS: Final = tuple(signal for signal in SIGNALS if signal.record)
BY_NAME: Final[Mapping[str, Signal]] = {signal.name: signal for signal in SIGNALS}
EXPLICIT_KINDS: Final = _kinds("explicit")
IMPLICIT_KINDS: Final = _kinds("implicit")
ASSESSED_KINDS: Final = _kinds("assessed")
TRAFFIC_KINDS: Final = _kinds("traffic")
"""Kinds that are derived from the traffic and that nobody reports."""
FEEDBACK_KINDS: Final = EXPLICIT_KINDS + IMPLICIT_KINDS + ASSESSED_KINDS + TRAFFIC_KINDS
_CLASSES: Any = tuple(BY_NAME[kind].record for kind in FEEDBACK_KINDS)
_WHEN_USED = ConfigDict(defer_build=True)
_ANY_KIND: Any = Annotated[Union[_CLASSES], Field(discriminator="kind")]  # noqa: UP007
FEEDBACK: TypeAdapter[events.Feedback] = TypeAdapter(_ANY_KIND, config=_WHEN_USED)
"""Reads one event of feedback of any kind."""
_REPORTED: Any = tuple(BY_NAME[kind].record for kind in FEEDBACK_KINDS if kind not in TRAFFIC_KINDS)
_ANY_REPORTED: Any = Annotated[Union[_REPORTED], Field(discriminator="kind")]  # noqa: UP007
REPORTED_FEEDBACK: TypeAdapter[events.Feedback] = TypeAdapter(_ANY_REPORTED, config=_WHEN_USED)
"""Reads one event of a kind that somebody may send; what is derived from traffic nobody sends."""
TEXT_KINDS: Final = tuple(signal.name for signal in FEEDBACK_SIGNALS if signal.value == "text")
"""Kinds whose value is what a user wrote."""
JUDGED_KINDS: Final = tuple(signal.name for signal in SIGNALS if signal.judged)
USER_RATES: Final = tuple(
    signal
    for signal in FEEDBACK_SIGNALS
    if signal.rate and signal.source in ("explicit", "implicit") and signal.value != "text"
)
"""Signals that users give or show of some answers, with a rate among those."""
QUALITY_SIGNALS: Final = tuple(signal for signal in SIGNALS if signal.part)

STANDS_FOR: Final[Mapping[str, str]] = {
    signal.stands_for: signal.name for signal in SIGNALS if signal.stands_for
}
"""The derived kind that is read where no event of a reported kind came, by the reported kind."""

_GROUPS: tuple[Group, ...] = ("quality", "service", "pipeline")
# Boards store their statistics in this order: by group, what rises early first.
_SHARES = sorted(
    (share for signal in SIGNALS for share in signal.shares),
    key=lambda share: (_GROUPS.index(share.group), not share.early),
)
BOARD_SHARES: Final = tuple(share for share in _SHARES if share.board)
ROLLOUT_SHARES: Final = tuple(share for share in _SHARES if share.rollout)
SIGNAL_OF: Final[Mapping[str, Signal]] = {
    share.name: signal for signal in SIGNALS for share in signal.shares
}
"""The signal of each watched share, by the share's name."""
_WORDS = {share.name: share.words for share in _SHARES}


def words_of(name: str) -> str:
    """Return a watched share, a metric or a kind of feedback in words.

    Example:
        >>> words_of("not_completed"), words_of("thumbs_down_rate")
        ('tasks not completed', 'thumbs down rate')
    """
    return _WORDS.get(name, name.replace("_", " "))
