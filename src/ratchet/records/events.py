"""What Ratchet stores and hands from stage to stage.

Every record is frozen and refuses unknown fields. Times are aware and in UTC. An `id` is supplied
by whoever creates the record, so that sending it twice changes nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, TypeAdapter

from ratchet.records.base import (
    MAX_TEXT_CHARACTERS,
    Identifier,
    Message,
    Record,
    Share,
    Text,
    UtcTime,
    derive_id,
    digest,
    no_surrogates,
)
from ratchet.records.clusters import (
    Breakdown,
    ClusterComparison,
    EarlierCluster,
    FailureCluster,
    FailureExample,
    RegressionSet,
    TrainingRequest,
    Trend,
)
from ratchet.records.gating import Approval, Decision, Measured, Release, Verdict
from ratchet.records.judging import (
    Figure,
    HumanLabel,
    JudgeMode,
    JudgeValidation,
    JudgeVerdict,
    ReviewDecision,
    ReviewItem,
    SafetyPass,
    Usability,
)
from ratchet.records.monitoring import (
    AlertChange,
    AlertEvent,
    Baseline,
    BoardState,
    Delivery,
    Finding,
    SignalBaseline,
)
from ratchet.records.rollout import (
    SIGNAL_NAMES,
    AliasMove,
    LookDecision,
    Readout,
    Rollout,
    RolloutLook,
    RolloutPlan,
    RolloutStage,
    RolloutStop,
    SampleRatio,
    SignalName,
    VariantReadout,
    VariantTest,
    VariantTestEnd,
    WatchedSignal,
)
from ratchet.records.serving import (
    ApiKey,
    ApiKeyRevocation,
    KeyRole,
    Routing,
    RoutingFollowed,
    Variant,
)

__all__ = [
    "ASSESSED_KINDS",
    "EXPLICIT_KINDS",
    "FEEDBACK",
    "FEEDBACK_KINDS",
    "IMPLICIT_KINDS",
    "MAX_TEXT_CHARACTERS",
    "SIGNAL_NAMES",
    "WIN_RATE",
    "Alert",
    "AlertChange",
    "AlertEvent",
    "AliasMove",
    "Analysis",
    "ApiKey",
    "ApiKeyRevocation",
    "Approval",
    "Baseline",
    "BoardState",
    "Breakdown",
    "Candidate",
    "ClusterComparison",
    "Comment",
    "Copy",
    "Correction",
    "Cycle",
    "CycleEnd",
    "Decision",
    "Delivery",
    "Dimension",
    "EarlierCluster",
    "Erasure",
    "Example",
    "ExampleSet",
    "FailureCluster",
    "FailureExample",
    "Feedback",
    "Figure",
    "Finding",
    "HumanLabel",
    "Identifier",
    "Interaction",
    "JudgeMode",
    "JudgeScore",
    "JudgeValidation",
    "JudgeVerdict",
    "KeyRole",
    "LabelledMessage",
    "LookDecision",
    "Measured",
    "Message",
    "Metric",
    "Readout",
    "Record",
    "Regenerate",
    "RegressionSet",
    "Release",
    "ReviewDecision",
    "ReviewItem",
    "Rollout",
    "RolloutLook",
    "RolloutPlan",
    "RolloutStage",
    "RolloutStop",
    "Routing",
    "RoutingFollowed",
    "SafetyPass",
    "SafetyViolation",
    "SampleRatio",
    "SessionEnd",
    "SetAside",
    "Share",
    "SignalBaseline",
    "SignalName",
    "Stars",
    "TaskCompleted",
    "Text",
    "Thumbs",
    "TrainingRequest",
    "TrainingSet",
    "Trend",
    "Usability",
    "UtcTime",
    "Variant",
    "VariantReadout",
    "VariantTest",
    "VariantTestEnd",
    "Verdict",
    "WatchedSignal",
    "derive_id",
    "digest",
    "no_surrogates",
]


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


class Dimension(_FeedbackEvent):
    """One to five points on one side of an answer, such as its accuracy, explicit."""

    kind: Literal["dimension"] = "dimension"
    value: Annotated[int, Field(ge=1, le=5, strict=True)]
    name: Identifier


class Comment(_FeedbackEvent):
    """Free text about an answer, explicit."""

    kind: Literal["comment"] = "comment"
    value: Annotated[str, Field(min_length=1, max_length=10_000), AfterValidator(no_surrogates)]


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
    """Whether the answer breaks a safety rule.

    Attributes:
        source: Who says so: a user's report, a reviewer, a rule or a version of a judge.
    """

    kind: Literal["safety_violation"] = "safety_violation"
    value: Annotated[bool, Field(strict=True)]
    source: Identifier = "report"


class JudgeScore(_FeedbackEvent):
    """What a judge holds the answer to be worth, in [0, 1].

    Attributes:
        judge_version: The version of the judge, so that its validation can be found.
    """

    kind: Literal["judge_score"] = "judge_score"
    value: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
    judge_version: Identifier


Feedback = Annotated[
    Thumbs
    | Stars
    | Dimension
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
EXPLICIT_KINDS = ("thumbs", "stars", "dimension", "comment", "correction")
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


LABEL_TOKENS = 12  # the longest label, in tokens
WIN_RATE = "win_rate"
"""The share of pairs that the challenger wins, by a judge that people correct; 0.5 is even."""


class LabelledMessage(Record):
    """A message with its right answer: for the router, the queue that it belongs to."""

    text: Annotated[str, Field(min_length=1), AfterValidator(no_surrogates)]
    label: Annotated[str, Field(min_length=1), AfterValidator(no_surrogates)]


class Example(Record):
    """One question of an evaluation set with its right answer.

    Attributes:
        user_id: Whose it is, where examples of one user are not independent.
        cluster: The part of the set that it belongs to.
    """

    id: Identifier
    messages: tuple[Message, ...] = Field(min_length=1)
    target: str
    user_id: Identifier | None = Field(default=None, exclude_if=lambda value: value is None)
    cluster: Identifier | None = Field(default=None, exclude_if=lambda value: value is None)

    @property
    def prompt(self) -> str:
        """The last thing the user said."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")


class ExampleSet(Record):
    """A frozen evaluation set; `id` is its name and the start of its digest.

    Attributes:
        max_new_tokens: The longest answer that a model may give; a label needs no more than 12.
    """

    id: Identifier
    name: Identifier
    created_at: UtcTime
    examples: tuple[Example, ...] = Field(min_length=1)
    max_new_tokens: int = Field(default=LABEL_TOKENS, ge=1)

    @classmethod
    def freeze(
        cls,
        name: str,
        examples: tuple[Example, ...],
        created_at: datetime,
        max_new_tokens: int = LABEL_TOKENS,
    ) -> Self:
        """Build the set whose id is derived from its content."""
        content: list[object] = [example.canonical() for example in examples]
        if max_new_tokens != LABEL_TOKENS:
            content.append(max_new_tokens)
        return cls(
            id=f"{name}-{digest(content)[:12]}",
            name=name,
            created_at=created_at,
            examples=examples,
            max_new_tokens=max_new_tokens,
        )


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


class Analysis(Record):
    """What one pass of the stage analyze found.

    Attributes:
        clusters: By what fixing them would win, most first.
        earlier: Clusters of earlier runs that this one did not find.
        untold: Interactions of which nobody can tell whether they failed.
        no_clusters: Why there are none; None where there are, and in older records.
    """

    id: Identifier
    cycle_id: Identifier
    created_at: UtcTime
    model_version: str
    metrics: tuple[Metric, ...]
    alerts: tuple[Alert, ...]
    clusters: tuple[FailureCluster, ...]
    earlier: tuple[EarlierCluster, ...] = ()
    untold: int = Field(default=0, ge=0)
    no_clusters: str | None = None


class TrainingSet(Record):
    """A dataset for fine-tuning, by reference.

    Attributes:
        digest: SHA-256 of the rows in order; the same rows give the same digest.
        path: Folder of the dataset, relative to the home folder.
        size: Rows to train on.
        funnel: Count left after each step, in order.
        kind: Answers to learn, answers with labels, or pairs of answers.
        validation: Rows that validate the training; none of their users is trained on.
        config_digest: SHA-256 of the configuration that it was curated with.
        redactions: Passages with personal data that were taken out, by kind.
        set_aside: Rows that broke a rule, by reason.
        leaks: Rows left out as too close to an evaluation set, by how.
        findings: Feedback that looked coordinated and was left out, in words.
    """

    id: Identifier
    cycle_id: Identifier
    created_at: UtcTime
    digest: str
    path: str
    size: int = Field(ge=1)
    funnel: tuple[tuple[str, int], ...]
    kind: Literal["sft", "kto", "dpo"] = "sft"
    validation: int = Field(default=0, ge=0)
    config_digest: str = ""
    redactions: tuple[tuple[str, int], ...] = ()
    set_aside: tuple[tuple[str, int], ...] = ()
    leaks: tuple[tuple[str, int], ...] = ()
    findings: tuple[str, ...] = ()


class Erasure(Record):
    """That a user's data was erased, and what had been made of it.

    Attributes:
        user_digest: SHA-256 of the user's id, so that the same request is known again.
        interactions: Interactions that were erased.
        training_sets: Digests of the sets that held one; their folders are deleted.
        candidates: Ids of adapters that were trained on such a set, or that began with an adapter
            that was.
        versions: The same adapters as the registry names them.
        runs: MLflow runs that hold a copy of such a set.
        example_sets: Evaluation sets that hold a text of the user's, for a person to decide.
    """

    id: Identifier
    created_at: UtcTime
    user_digest: str
    interactions: int = Field(ge=0)
    feedback: int = Field(ge=0)
    verdicts: int = Field(ge=0)
    records: int = Field(ge=0)
    training_sets: tuple[str, ...]
    candidates: tuple[str, ...]
    versions: tuple[str, ...]
    runs: tuple[str, ...]
    example_sets: tuple[str, ...]


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
