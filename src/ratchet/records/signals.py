"""The catalogue of signals: what is known of an answer, and which side of it is bad.

A signal is a kind of feedback, something seen of the interaction itself, or derived from other
signals. A new kind of feedback takes a record class in `ratchet.records.events` and a declaration
in `SIGNALS`, and nothing else: the store's columns, joined outcomes, quality, metrics, boards,
rollouts and reports read this catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union

from pydantic import Field, TypeAdapter

from ratchet.records import events

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Source = Literal["explicit", "implicit", "assessed", "traffic", "interaction", "derived"]
Value = Literal["boolean", "thumb", "integer", "number", "text"]
Group = Literal["quality", "service", "pipeline"]
Side = Literal["above", "below"]
Absence = Literal["unknown", "no", "declared", "traffic"]
_VALUES: dict[Any, Value] = {bool: "boolean", int: "integer", float: "number", str: "text"}


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedShare:
    """The share of answers that are bad by a signal, as boards and rollouts watch it.

    Attributes:
        name: Its name in records, such as `not_copied`.
        words: The bad answers, for alerts, charts and reports.
        group: What it is about: the answers' quality, the service, or the feedback pipeline.
        rare: Whether bad answers are rare, so that only large shifts can be seen.
        early: Whether it rises first when a model gets worse; boards watch these together too.
        cut: For a number: which quantile of the baseline is the cut-off, and on which side of it
            a value is bad. None for what is a yes or no already.
        board: Whether boards watch it.
        rollout: Whether a rollout may watch it.
        margin: How much it may rise in a rollout by the default plan; None is not in that plan.
        primary: Whether it is what the default plan is about.
        critical: Whether a board's alarm about it is critical whatever its size.
    """

    name: str
    words: str
    group: Group = "quality"
    rare: bool = False
    early: bool = False
    cut: tuple[float, Side] | None = None
    board: bool = True
    rollout: bool = False
    margin: float | None = None
    primary: bool = False
    critical: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityPart:
    """A signal's part in the implicit quality of an answer.

    Attributes:
        name: The part and its setting in `QualityWeights`; 1 is good, 0 is bad. A length in
            seconds is good from `engaged_after_seconds` on.
        weight: Its default weight.
    """

    name: str
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A signal's metric of the users' experience: a share of answers.

    Attributes:
        metric: The metric's name.
        of: Which answers it is the share of.
        unobserved: Why there is no value where nothing was observed; None names the signal.
        words: What it is the share of, for the titles of charts; None for the words of the
            signal's first watched share.
    """

    metric: str
    of: Literal["bad", "good"]
    unobserved: str | None = None
    words: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueChart:
    """How a signal that is a number is charted.

    Attributes:
        metric: The metric's name.
        words: The same, for the titles of charts.
        unit: Of its values.
        quantile: Which quantile of a point's values is charted; None for their mean.
        fewest: Observations that a point needs.
    """

    metric: str
    words: str
    unit: Literal["seconds", "characters", "score", "turns"]
    quantile: float | None = None
    fewest: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """From where on a metric is an alert, and what to do then.

    Attributes:
        metric: The metric; None for the signal's rate, which is then one of bad answers.
        warning: Above this for more than chance is a warning.
        critical: Above this for more than chance is critical.
        minimum_sample: Below this many observations nothing is said.
        warning_action: What to do about a warning.
        critical_action: What to do when critical.
        relative: Whether both limits are multiples of a baseline.
    """

    warning: float
    critical: float
    minimum_sample: int
    warning_action: str
    critical_action: str
    relative: bool = False
    metric: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """How one bad answer is explained by a signal.

    Attributes:
        words: What happened; `{}` with a format takes the signal's value.
        rank: Place among several reasons, the strongest first.
        weak: Whether it explains an answer only where nothing else does.
    """

    words: str
    rank: int = 6
    weak: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One signal.

    Attributes:
        name: Kind of the feedback, field of the interaction, or name of what is derived.
        source: Where it comes from: said by the user, seen of the user, assessed by a check or
            judge, derived from the requests that follow (`ratchet.collect.derived`), the
            interaction itself, or derived from others.
        record: Class of the feedback's records.
        column: Its column in `Outcomes`; None where outcomes do not hold it.
        many: Several of it, in words.
        bad: For a yes or no (and a thumb, where up is yes): which one is bad. For a number: below
            which it is bad. For a text: True where having one is bad. None says neither.
        judged: Whether it counts only where its judge was found usable, and is taken from trusted
            senders alone.
        part: Its part in the implicit quality.
        rate: Its metric.
        limits: The fixed thresholds of its metric.
        reason: How it explains one bad answer.
        shares: The shares of bad answers by it that are watched.
        charts: How it is charted where it is a number; a signal with a rate is charted by that.
        stands_for: The reported signal that it is read as where no event of that came.
    """

    name: str
    source: Source
    record: type[events.Feedback] | None = None
    column: str | None = None
    many: str = ""
    bad: bool | float | None = None
    judged: bool = False
    part: QualityPart | None = None
    rate: Rate | None = None
    limits: Limits | None = None
    reason: Reason | None = None
    shares: tuple[WatchedShare, ...] = ()
    charts: tuple[ValueChart, ...] = ()
    stands_for: str | None = None

    @property
    def value(self) -> Value:
        """The type of its value, from its record; what has no record is a number."""
        if self.record is None:
            return "number"
        return _VALUES.get(self.record.model_fields["value"].annotation, "thumb")

    @property
    def absence(self) -> Absence:
        """What it says that no event of this kind came.

        `no`: a text that nobody wrote is not there. `unknown`: who gives no thumb, star, length or
        score says nothing. `declared`: a yes or no may be sent either way or only when it happens;
        the application declares which (`ratchet.records.reporting`). `traffic`: a yes or no that is
        derived from the traffic is a no where the application's conversations can be followed and
        the time for a yes is over (`ratchet.store.reporting`).
        """
        if self.source == "traffic":
            return "traffic" if self.value == "boolean" else "unknown"
        known: dict[Value, Absence] = {"text": "no", "boolean": "declared"}
        return known.get(self.value, "unknown") if self.record else "unknown"

    @property
    def detail(self) -> str | None:
        """The record's field beside its value, which the store keeps as text."""
        own = set(self.record.model_fields) if self.record else set()
        return next(iter(own - set(events.Feedback.model_fields)), None)

    @property
    def limited_metric(self) -> str:
        """The metric that its limits are on: the one they name, else its rate."""
        if self.limits and self.limits.metric:
            return self.limits.metric
        return self.rate.metric if self.rate else self.name

    def is_bad(self, number: float) -> bool:
        """Tell whether a value is bad: 1 is yes, up or a text that is there."""
        if isinstance(self.bad, bool):
            return number == float(self.bad)
        return self.bad is not None and number < self.bad

    def bad_answers(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return 1 where a value is bad, 0 where not and nan where not known, shape (n,).

        A number is bad below `bad`, where that is a number.
        """
        if isinstance(self.bad, float):
            below = (numbers < self.bad).astype(numbers.dtype)
            return below + 0.0 * numbers  # nan stays nan
        return 1.0 - numbers if self.bad is False else numbers

    def good_answers(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return 1 where a value is good, 0 where not and nan where not known, shape (n,)."""
        return numbers if self.bad is False else 1.0 - self.bad_answers(numbers)


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
_ANY_KIND: Any = Annotated[Union[_CLASSES], Field(discriminator="kind")]  # noqa: UP007
FEEDBACK: TypeAdapter[events.Feedback] = TypeAdapter(_ANY_KIND)
"""Reads one event of feedback of any kind."""
_REPORTED: Any = tuple(BY_NAME[kind].record for kind in FEEDBACK_KINDS if kind not in TRAFFIC_KINDS)
_ANY_REPORTED: Any = Annotated[Union[_REPORTED], Field(discriminator="kind")]  # noqa: UP007
REPORTED_FEEDBACK: TypeAdapter[events.Feedback] = TypeAdapter(_ANY_REPORTED)
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
