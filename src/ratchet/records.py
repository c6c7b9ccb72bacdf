"""What Ratchet stores and hands from stage to stage.

Every record is frozen and refuses unknown fields. Times are aware and in UTC. An `id` is supplied
by whoever creates the record, so that sending it twice changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from uuid import NAMESPACE_URL, uuid5

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

MAX_TEXT_CHARACTERS = 100_000


def _to_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"time must carry a time zone, got {moment.isoformat()}; add 'Z' for UTC")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(
            f"time must lie in the years 1 to 9999 in UTC, got {moment.isoformat()}"
        ) from error


def _no_surrogates(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text must be valid Unicode, got an unpaired surrogate at {error.start}"
        ) from error
    if "\x00" in text:
        raise ValueError(
            "text must hold no NUL characters, which PostgreSQL cannot store, "
            f"got {text[:40]!r}; remove them"
        )
    return text


UtcTime = Annotated[datetime, AfterValidator(_to_utc)]
Identifier = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_no_surrogates)]
Text = Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS), AfterValidator(_no_surrogates)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


def derive_id(*parts: object) -> str:
    """Return the same UUID for the same parts, so that work done twice is stored once."""
    return str(uuid5(NAMESPACE_URL, "\x1f".join(str(part) for part in parts)))


def digest(value: Any) -> str:
    """Return the SHA-256 (hex, 64 characters) of a JSON-able value in canonical form."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


class Record(BaseModel):
    """Configuration shared by all records."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def canonical(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        return self.model_dump(mode="json")


class Message(Record):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Text


class Interaction(Record):
    """One answer of the model, as a user saw it. Never changed once stored.

    Attributes:
        messages: The conversation up to the answer, system prompt first.
        response: The answer; empty when `error` says why there is none.
        model_version: The version that answered, e.g. `support-router/3`.
        latency_seconds: Wall time the user waited.
        segment: Where the traffic came from (application, language, tenant).
    """

    id: Identifier
    session_id: Identifier
    user_id: Identifier
    created_at: UtcTime
    model_version: Identifier
    messages: tuple[Message, ...] = Field(min_length=1)
    response: Text
    latency_seconds: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)
    error: Text | None = None
    segment: Identifier = "all"
    metadata: dict[Text, Text] = Field(default_factory=dict)

    @property
    def prompt(self) -> str:
        """The last thing the user said."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")


class _FeedbackEvent(Record):
    id: Identifier
    interaction_id: Identifier
    created_at: UtcTime
    user_id: Identifier | None = None


class Thumbs(_FeedbackEvent):
    """A thumb, explicit."""

    kind: Literal["thumbs"] = "thumbs"
    value: Literal["up", "down"]


class Stars(_FeedbackEvent):
    """One to five stars, explicit."""

    kind: Literal["stars"] = "stars"
    value: Annotated[int, Field(ge=1, le=5, strict=True)]


class Comment(_FeedbackEvent):
    """Free text about an answer, explicit."""

    kind: Literal["comment"] = "comment"
    value: Annotated[str, Field(min_length=1, max_length=10_000), AfterValidator(_no_surrogates)]


class Correction(_FeedbackEvent):
    """What the answer should have been, explicit."""

    kind: Literal["correction"] = "correction"
    value: Annotated[Text, Field(min_length=1)]


class Copy(_FeedbackEvent):
    """The user copied the answer (or was seen not to), implicit."""

    kind: Literal["copy"] = "copy"
    value: Annotated[bool, Field(strict=True)] = True


class Regenerate(_FeedbackEvent):
    """The user asked for another answer (or was seen not to), implicit."""

    kind: Literal["regenerate"] = "regenerate"
    value: Annotated[bool, Field(strict=True)] = True


class TaskCompleted(_FeedbackEvent):
    """Whether the user's task was done after the answer, implicit."""

    kind: Literal["task_completed"] = "task_completed"
    value: Annotated[bool, Field(strict=True)]


class SessionEnd(_FeedbackEvent):
    """The session ended after this answer; `value` is its length in seconds, implicit."""

    kind: Literal["session_end"] = "session_end"
    value: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class SafetyViolation(_FeedbackEvent):
    """Whether the answer breaks a safety rule, by a check or a person's report."""

    kind: Literal["safety_violation"] = "safety_violation"
    value: Annotated[bool, Field(strict=True)]


class JudgeScore(_FeedbackEvent):
    """What a judge holds the answer to be worth, in [0, 1]."""

    kind: Literal["judge_score"] = "judge_score"
    value: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]


Feedback = Annotated[
    Thumbs
    | Stars
    | Comment
    | Correction
    | Copy
    | Regenerate
    | TaskCompleted
    | SessionEnd
    | SafetyViolation
    | JudgeScore,
    Field(discriminator="kind"),
]
FEEDBACK: TypeAdapter[Feedback] = TypeAdapter(Feedback)
EXPLICIT_KINDS = ("thumbs", "stars", "comment", "correction")
IMPLICIT_KINDS = ("copy", "regenerate", "task_completed", "session_end")
ASSESSED_KINDS = ("safety_violation", "judge_score")
FEEDBACK_KINDS = EXPLICIT_KINDS + IMPLICIT_KINDS + ASSESSED_KINDS


class SetAside(Record):
    """A row that broke a rule: kept with the reason, so that nothing is lost."""

    id: Identifier
    created_at: UtcTime
    source: str
    position: str
    reason: str
    raw: str = Field(max_length=2_000)


class LabelledMessage(Record):
    """A customer message and the queue it belongs to."""

    text: Annotated[str, Field(min_length=1), AfterValidator(_no_surrogates)]
    label: Annotated[str, Field(min_length=1), AfterValidator(_no_surrogates)]


class Example(Record):
    """One question of an evaluation set with its right answer."""

    id: Identifier
    messages: tuple[Message, ...] = Field(min_length=1)
    target: str

    @property
    def prompt(self) -> str:
        """The last thing the user said."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")


class ExampleSet(Record):
    """A frozen evaluation set; `id` is its name and the start of its digest."""

    id: Identifier
    name: Identifier
    created_at: UtcTime
    examples: tuple[Example, ...] = Field(min_length=1)

    @classmethod
    def freeze(cls, name: str, examples: tuple[Example, ...], created_at: datetime) -> Self:
        """Build the set whose id is derived from its content."""
        content = digest([example.canonical() for example in examples])
        return cls(id=f"{name}-{content[:12]}", name=name, created_at=created_at, examples=examples)


class Metric(Record):
    """A measured number with its interval; `value` is None, with the reason, when undefined.

    Attributes:
        observations: How many observations the value rests on.
        lower: Lower end of the two-sided interval at `level`.
        upper: Upper end of that interval.
    """

    name: str
    value: float | None
    lower: float | None = None
    upper: float | None = None
    level: Share = 0.95
    observations: int = Field(ge=0)
    unit: Literal["share", "seconds", "characters", "score"] = "share"
    reason: str | None = None


class Alert(Record):
    """A signal over a threshold for more than chance, and what to do about it."""

    id: Identifier
    created_at: UtcTime
    signal: str
    severity: Literal["warning", "critical"]
    model_version: str
    value: float
    lower: float
    threshold: float
    observations: int
    message: str
    action: str


class FailureCluster(Record):
    """Failed interactions that are about the same thing.

    Attributes:
        failure_rate: Share of the interactions near this cluster that failed.
        lift: That rate over the rate of all interactions.
        interval: Two-sided 95 % interval of the failure rate.
        examples: Texts nearest the centre, for people to read.
    """

    id: Identifier
    name: str
    size: int = Field(ge=1)
    failure_rate: Share
    lift: float
    interval: tuple[float, float]
    examples: tuple[str, ...]


class Analysis(Record):
    """What one pass of the stage analyze found."""

    id: Identifier
    cycle_id: Identifier
    created_at: UtcTime
    model_version: str
    metrics: tuple[Metric, ...]
    alerts: tuple[Alert, ...]
    clusters: tuple[FailureCluster, ...]


class TrainingSet(Record):
    """A dataset for fine-tuning, by reference.

    Attributes:
        digest: SHA-256 of the rows in order; the same rows give the same digest.
        path: Folder of the dataset, relative to the home folder.
        funnel: Count left after each step, in order.
    """

    id: Identifier
    cycle_id: Identifier
    created_at: UtcTime
    digest: str
    path: str
    size: int = Field(ge=1)
    funnel: tuple[tuple[str, int], ...]


class Candidate(Record):
    """A fine-tuned adapter on offer.

    Attributes:
        adapter_digest: SHA-256 over the adapter's weights and configuration.
        path: Folder of the adapter, relative to the home folder.
        version: Its version in the model registry.
    """

    id: Identifier
    cycle_id: Identifier
    created_at: UtcTime
    model_name: str
    version: str
    adapter_digest: str
    path: str
    training_set_id: str
    run_id: str
    losses: tuple[float, ...]
    training_seconds: float


Verdict = Literal["promote", "hold", "reject", "inconclusive"]


class Decision(Record):
    """What the gate decided and on what evidence. Stored before it is acted on.

    Attributes:
        difference: Challenger minus champion on the primary metric, with its interval.
        evidence: Every number the verdict rests on.
        reasons: The rules that applied, in words.
    """

    id: Identifier
    cycle_id: Identifier
    created_at: UtcTime
    champion: str
    challenger: str
    verdict: Verdict
    reasons: tuple[str, ...]
    primary_metric: str
    champion_value: float
    challenger_value: float
    difference: float
    interval: tuple[float, float]
    p_value: float
    examples: int
    example_set_id: str
    policy: dict[str, Any]
    evidence: dict[str, float]


class Release(Record):
    """A move of the registry's aliases; the latest one names the champion."""

    id: Identifier
    created_at: UtcTime
    action: Literal["start", "promote", "rollback", "moved outside Ratchet"]
    champion: str
    previous: str | None
    decision_id: str | None = None


class Cycle(Record):
    """One turn of the loop, opened by the stage collect."""

    id: Identifier
    number: int = Field(ge=1)
    created_at: UtcTime
    champion: str
    options_digest: str
    seed: int
    window_start: UtcTime
    window_end: UtcTime
    example_set_id: str


class CycleEnd(Record):
    """The end of a cycle; `id` is the cycle's."""

    id: Identifier
    created_at: UtcTime
    outcome: Literal["finished", "abandoned"]


class SignalBaseline(Record):
    """What is normal of one signal.

    Attributes:
        name: The signal.
        cut_off: Where a number becomes bad; None for what is a yes or no.
        coefficients: Log odds of a bad event: intercept, cycles, an offset for each segment.
        covariance: Of the coefficients.
        dispersion: How much more the counts vary than independent trials would.
        trials: Observations that it rests on.
        events: Bad events among them.
    """

    name: str
    cut_off: float | None
    coefficients: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    dispersion: float = Field(ge=1.0)
    trials: int = Field(ge=1)
    events: int = Field(ge=0)


class Baseline(Record):
    """What is normal, frozen from one version's traffic; it never moves by itself.

    Attributes:
        model_version: The version whose traffic it is.
        batch_seconds: Length of the batches that are compared with it.
        segments: Segments told apart; the last one takes all others.
        weekly: Whether the weekend has a rate of its own.
        daily: Whether the time of day has.
        tempers: How far the ratio of each hypothesis may be trusted, in (0, 1].
    """

    id: Identifier
    created_at: UtcTime
    model_version: Identifier
    window_start: UtcTime
    window_end: UtcTime
    batch_seconds: int = Field(ge=1)
    segments: tuple[str, ...] = Field(min_length=1)
    weekly: bool
    daily: bool
    signals: tuple[SignalBaseline, ...] = Field(min_length=1)
    tempers: tuple[float, ...]


class BoardState(Record):
    """What monitoring has seen of a version: enough to go on without reading history.

    Attributes:
        opened_at: Start of the first batch.
        charted_until: End of the last one.
        log_threshold: Log evidence from which on it is an alarm.
        log_statistics: Log Shiryaev-Roberts statistic of each hypothesis.
        cusums: Log likelihood ratio of each hypothesis since its most likely start.
        starts: That start, in batches after `opened_at`.
    """

    id: Identifier
    created_at: UtcTime
    model_version: Identifier
    baseline_id: Identifier
    opened_at: UtcTime
    charted_until: UtcTime
    batches: int = Field(ge=0)
    log_threshold: float
    log_head_start: float
    log_statistics: tuple[float, ...]
    cusums: tuple[float, ...]
    starts: tuple[int, ...]


class Finding(Record):
    """What a board's evidence is about.

    Attributes:
        signal: The signal that is worse.
        says: The same in words.
        segment: Where it is worse; None for everywhere.
        since: Estimated time of the change.
        log_evidence: Log of the board's evidence; the threshold is beside it.
        events: Bad events since then.
        trials: Observations since then.
        expected: Rate that the baseline expects at these hours.
        lower: Lower end of the 95 % Wilson interval of the rate since then.
        upper: Upper end of it.
        also: Other signals that the most likely hypothesis holds to be worse.
    """

    signal: str
    says: str
    segment: str | None
    since: UtcTime
    log_evidence: float
    log_threshold: float
    events: int
    trials: int
    expected: Share
    lower: Share
    upper: Share
    also: tuple[str, ...]


AlertChange = Literal["opened", "updated", "acknowledged", "resolved"]


class AlertEvent(Record):
    """One step in the life of an alert; the latest one of an `alert_id` is how it stands.

    Attributes:
        alert_id: The alert; derived from version, kind and signal, and from when it was opened.
        kind: What raised it: the version's board, a fixed threshold, or the feedback pipeline.
        since: Estimated time of the change, None for a fixed threshold.
        segment: Where, None for everywhere.
        cluster: The failure cluster that most of it is about, where one is known.
        value: The rate (or seconds) since the change, with its interval.
        expected: What the baseline expects, or the threshold.
        certainty: How sure, in words that state the error rate.
        by: Who acknowledged or resolved it, None for Ratchet itself.
    """

    id: Identifier
    alert_id: Identifier
    created_at: UtcTime
    change: AlertChange
    kind: Literal["board", "threshold", "pipeline"]
    severity: Literal["warning", "critical"]
    model_version: Identifier
    signal: str
    segment: str | None = None
    cluster: str | None = None
    since: UtcTime | None = None
    value: float
    lower: float
    upper: float
    expected: float
    observations: int = Field(ge=0)
    certainty: str
    message: str
    action: str
    by: str | None = None
    note: str | None = None


class Delivery(Record):
    """An alert's step that was sent; `id` is derived from the step and the address."""

    id: Identifier
    created_at: UtcTime
    event_id: Identifier
    channel: str
    delivered: bool
