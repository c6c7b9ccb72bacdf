"""What a cycle works on and leaves behind: example sets, analyses, training sets, candidates."""

from __future__ import annotations

from datetime import datetime
from keyword import iskeyword
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, JsonValue

from ratchet.records.base import (
    Identifier,
    Record,
    Share,
    Text,
    UtcTime,
    digest,
    no_surrogates,
)
from ratchet.records.clusters import EarlierCluster, FailureCluster
from ratchet.records.conversations import Message, last_said

LABEL_TOKENS = 12  # the longest label, in tokens
CALL_TOKENS = 256  # room for some calls with their arguments
CODE_TOKENS = 512  # room for a function with its explanation
SAMPLED = "sampled"
"""How the names of sets of open questions that were drawn from traffic begin."""
WIN_RATE = "win_rate"
"""The share of pairs that the challenger wins, by a judge that people correct; 0.5 is even."""


class LabelledMessage(Record):
    """A message with its right answer: for the router, the queue that it belongs to."""

    text: Annotated[str, Field(min_length=1), AfterValidator(no_surrogates)]
    label: Annotated[str, Field(min_length=1), AfterValidator(no_surrogates)]


def _python_name(text: str) -> str:
    if not text.isidentifier() or iskeyword(text):
        raise ValueError(f"entry_point must be a name in Python, got {text[:40]!r}")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("tests must hold Python, got nothing; every answer would pass")
    return text


Tests = Annotated[Text, AfterValidator(_not_blank)]
PythonName = Annotated[Identifier, AfterValidator(_python_name)]


class Example(Record):
    """One question of an evaluation set, with its right answer or tests where they are known.

    Attributes:
        target: The right answer; None of an open question, empty in older sets with tests.
        user_id: Whose it is, where examples of one user are not independent.
        cluster: The part of the set that it belongs to.
        tests: Python that runs without an error after the code of a right answer.
        entry_point: The name of what they test.
        tools: What the model may call, as a request names them.
        response_format: The form that the answer is to have, as a request names it.
    """

    id: Identifier
    messages: tuple[Message, ...] = Field(min_length=1)
    target: str | None = Field(default=None, exclude_if=lambda value: value is None)
    user_id: Identifier | None = Field(default=None, exclude_if=lambda value: value is None)
    cluster: Identifier | None = Field(default=None, exclude_if=lambda value: value is None)
    tests: Tests | None = Field(default=None, exclude_if=lambda value: value is None)
    entry_point: PythonName | None = Field(default=None, exclude_if=lambda value: value is None)
    tools: tuple[dict[str, JsonValue], ...] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    response_format: dict[str, JsonValue] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )

    @property
    def right_answer(self) -> str | None:
        """The target; None where there is none, or tests stand for it."""
        return self.target if self.target or self.tests is None else None

    @property
    def prompt(self) -> str:
        """The words of the user's last turn."""
        return last_said(self.messages)


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
    unit: Literal[
        "share", "seconds", "characters", "score", "turns", "tokens", "calls", "cost"
    ] = "share"  # fmt: skip
    reason: str | None = None


class Alert(Record):
    """A metric that the analysis of a cycle found over its fixed threshold by more than chance.

    It is part of its `Analysis`. What people are told of, step by step, is an `AlertEvent`.
    """

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
        learnt: SHA-256 of the part of the rows that a trainer reads; "" in sets of before. The
            digest also covers weights, which new traffic changes on the same rows.
        origin: Of a data set that others made: its file, or its id on the Hub with the revision.
        license: Of the rows, as its card says; "" in sets of before.
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
    learnt: str = Field(default="", exclude_if=lambda value: not value)
    origin: str = Field(default="", exclude_if=lambda value: not value)
    license: str = Field(default="", exclude_if=lambda value: not value)


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
        example_sets: Evaluation sets made by people that hold a text of the user's, for a person to
            decide.
        examples: Questions that were taken out of sets made of what users said.
        state: Whether all is erased. What was begun and stopped is finished by the next call for
            the same user; the numbers then lack what the step that was stopped had erased.
        interaction_ids: The interactions, as long as it is not done.
    """

    id: Identifier
    created_at: UtcTime
    user_digest: str
    state: Literal["begun", "done"] = Field(
        default="done", exclude_if=lambda value: value == "done"
    )
    interaction_ids: tuple[str, ...] = Field(default=(), exclude_if=lambda value: not value)
    interactions: int = Field(ge=0)
    feedback: int = Field(ge=0)
    verdicts: int = Field(ge=0)
    records: int = Field(ge=0)
    training_sets: tuple[str, ...]
    candidates: tuple[str, ...]
    versions: tuple[str, ...]
    runs: tuple[str, ...]
    example_sets: tuple[str, ...]
    examples: int = Field(default=0, ge=0, exclude_if=lambda number: number == 0)


class DataExport(Record):
    """That rows of the store were written for other tools, so that it is known where they went.

    Attributes:
        kind: What was written, as `ratchet export` names it.
        out: File, folder or address; `-` for standard output.
        since: From when on, by the time of each row.
        until: Before when.
        training_set: Digest of the training set, of a dataset.
        redacted: Whether personal data was taken out.
        rows: How many were written.
        by: Who gave the command.
    """

    id: Identifier
    created_at: UtcTime
    kind: Identifier
    format: Identifier
    out: Text
    since: UtcTime | None = None
    until: UtcTime | None = None
    model_version: str | None = None
    segment: str | None = None
    training_set: str | None = None
    redacted: bool
    rows: int = Field(ge=0)
    by: str


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

    @property
    def reference(self) -> str:
        """Its version as the registry names it, and as interactions and releases have it."""
        return f"{self.model_name}/{self.version}"


class Cycle(Record):
    """One turn of the loop, opened by the stage collect.

    Attributes:
        arrived_until: Of recorded traffic, how many interactions had arrived in the store when it
            was opened; what arrives later is the next cycle's, whatever its time.
        taken_before: What earlier cycles had: interactions before this time that had arrived up to
            this position (None: whenever they arrived).
        also: Other names of the champion, under which answers of it were recorded.
        source: Whether it is about simulated users or about real ones, or about nobody, where what
            is trained on is a data set; None: a cycle of before.
    """

    id: Identifier
    number: int = Field(ge=1)
    created_at: UtcTime
    champion: str
    options_digest: str
    seed: int
    window_start: UtcTime
    window_end: UtcTime
    example_set_id: str
    arrived_until: int | None = Field(default=None, exclude_if=lambda value: value is None)
    taken_before: tuple[UtcTime, int | None] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    source: Literal["simulated", "recorded", "dataset"] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    also: tuple[str, ...] = Field(default=(), exclude_if=lambda value: not value)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the champion, its own first."""
        return (self.champion, *self.also)


class CycleWait(Record):
    """What an open cycle waits for before the gate can decide; the latest one of a cycle counts.

    Attributes:
        what: Who has to give it: people labels.
        missing: How many; None where that is not known.
        message: What is missing and where to give it, in words.
        judge: The judge whose own labels they are; None for those of the gate's pairs.
        example_set_ids: The sets whose answers were recorded; they are not asked again.
    """

    id: Identifier
    created_at: UtcTime
    cycle_id: Identifier
    what: Literal["labels"] = "labels"
    missing: int | None = Field(default=None, ge=0)
    message: Text
    judge: Identifier | None = None
    example_set_ids: tuple[str, ...] = ()


class CycleEnd(Record):
    """The end of a cycle; `id` is the cycle's."""

    id: Identifier
    created_at: UtcTime
    outcome: Literal["finished", "abandoned"]
