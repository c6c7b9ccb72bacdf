"""What a declaration of a signal says: see `ratchet.records.signals`, the catalogue of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

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
    unit: Literal["seconds", "characters", "score", "turns", "tokens", "calls", "cost"]
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
        first_action: The same of a version that replaced none, so that there is none to go back to.
        relative: Whether both limits are multiples of a baseline.
    """

    warning: float
    critical: float
    minimum_sample: int
    warning_action: str
    critical_action: str
    first_action: str | None = None
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
