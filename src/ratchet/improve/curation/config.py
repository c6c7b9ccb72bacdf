"""What is trained on, and what else than interactions may be."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
)

from ratchet.errors import InvalidInputError
from ratchet.files.moments import read_moment
from ratchet.files.rows import read_rows
from ratchet.files.text import printable
from ratchet.improve.curation.decontamination import DecontaminationConfig
from ratchet.improve.curation.duplicates import DuplicateConfig
from ratchet.improve.curation.poisoning_config import PoisoningConfig
from ratchet.improve.curation.propensity import PropensityConfig
from ratchet.records import Identifier, Message, Record, Share, TrainingRequest, last_said
from ratchet.records.given_answers import given_as_text
from ratchet.safety.redaction import RedactionConfig

UnitOpen = Annotated[float, Field(gt=0.0, lt=1.0)]
Balance = Literal["equal", "traffic"]
Consent = Literal["unless refused", "only if given"]
ERRORS_SHOWN = 10
GOOD_LABELS = ("good", "right", "correct", "helpful", "yes")
"""Labels of reviewers that call an answer good."""


def _moment(text: str) -> str:
    read_moment(text, datetime.now(UTC))
    return text


Moment = Annotated[str, AfterValidator(_moment)]
"""A time as `ratchet.files.moments` reads it."""
_NULLABLE = ("given", "swapped")


class CurationConfig(BaseModel):
    """Which interactions are trained on.

    Attributes:
        maximum_examples: Size of the set to train on.
        minimum_examples: Below this many there is nothing worth training on.
        minimum_quality: Quality in [0, 1] that a rated answer must reach.
        minimum_lower_bound: What its quality must be worth at least, given how much it rests on.
            With 0.4 a lone thumb is not enough where under a third of rated answers are good.
        confidence: Posterior probability that goes with that bound.
        balance: Rows are taken in turn from the strata (segment, failure cluster and target):
            `equal` numbers from each, or in proportion to the `traffic` that they stand for.
        length_ratio: Rated answers may be so many times as long on average as all answers of
            their segment; the longest go first. None leaves length alone.
        length_free: Answers of at most so many characters are never too long.
        maximum_characters: A longer prompt or answer is set aside.
        consent: Who is trained on: everybody who did not refuse, or who agreed.
        validation_share: Share of rows of the newest users that validates the training.
        validation_from: Smaller sets are not split.
        license: Of the set, for its card; an identifier that Hugging Face knows, or `other`.
        origin: Where the interactions come from, for its card.
        shuffle_targets: Permute the targets over the examples: a negative control that the gate
            has to reject. Never for use.
        since: Interactions from this time on: a day in UTC, a time with its zone, or how long ago
            (`90d`), counted from the end of the cycle's window. None: from the first one on.
        until: Interactions before this time. None: up to the end of the cycle's window.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    maximum_examples: Annotated[int, Field(ge=1)] = 320
    minimum_examples: Annotated[int, Field(ge=1)] = 16
    minimum_quality: Share = 0.75
    minimum_lower_bound: Share = 0.4
    confidence: UnitOpen = 0.8
    balance: Balance = "equal"
    length_ratio: Annotated[float, Field(ge=1.0)] | None = 1.25
    length_free: Annotated[int, Field(ge=0)] = 200
    maximum_characters: Annotated[int, Field(ge=1, le=100_000)] = 20_000
    consent: Consent = "unless refused"
    validation_share: Annotated[float, Field(ge=0.0, le=0.5)] = 0.1
    validation_from: Annotated[int, Field(ge=2)] = 100
    duplicates: DuplicateConfig = DuplicateConfig()
    decontamination: DecontaminationConfig = DecontaminationConfig()
    propensity: PropensityConfig = PropensityConfig()
    poisoning: PoisoningConfig = PoisoningConfig()
    redaction: RedactionConfig = RedactionConfig()
    license: str = "other"
    origin: str = "interactions of this installation with their users' feedback"
    shuffle_targets: bool = False
    since: Moment | None = Field(default=None, exclude_if=lambda value: value is None)
    until: Moment | None = Field(default=None, exclude_if=lambda value: value is None)

    def period(self, end: datetime) -> tuple[datetime | None, datetime]:
        """Return from when on (None: from the first one) and until when interactions count.

        Args:
            end: Until when they count at most; what is said as long ago is counted from it.

        Raises:
            InvalidInputError: Nothing lies between `since` and `until`.
        """
        since = None if self.since is None else read_moment(self.since, end)
        until = end if self.until is None else min(end, read_moment(self.until, end))
        if since is not None and since >= until:
            raise InvalidInputError(
                f"curation.since must be before curation.until, got {since:%Y-%m-%d %H:%M} and "
                f"{until:%Y-%m-%d %H:%M} UTC; swap or correct them"
            )
        return since, until


class Demonstration(Record):
    """A prompt with the answer that an expert gave; trained on as it is.

    Attributes:
        target: The answer; one that calls tools may be a turn of OpenAI's chat format.
        tools: What the model may call, as a request names them.
    """

    id: Identifier
    messages: tuple[Message, ...] = Field(min_length=1)
    target: Annotated[str, BeforeValidator(given_as_text), Field(min_length=1)]
    segment: Identifier = "all"
    tools: tuple[dict[str, JsonValue], ...] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )

    @property
    def prompt(self) -> str:
        """The words of the user's last turn."""
        return last_said(self.messages)


class ClusterRequest(Record):
    """Examples that are wanted for a failure cluster.

    Attributes:
        cluster_id: The cluster.
        wanted: Examples to take before any others.
        interaction_ids: Interactions of the cluster, failed or not.
    """

    cluster_id: Identifier
    wanted: Annotated[int, Field(ge=1)] = 8
    interaction_ids: tuple[str, ...]

    @classmethod
    def of(cls, request: TrainingRequest, most: int) -> Self:
        """Take what an analysis asked for, at most `most` examples."""
        return cls(
            cluster_id=request.cluster_id,
            wanted=min(request.wanted, most),
            interaction_ids=request.interaction_ids,
        )


class JudgedPair(Record):
    """A judge's verdict on two answers to one prompt, in both orders.

    Attributes:
        first_id: Interaction with the one answer.
        second_id: Interaction with the other.
        given: Which one is better as shown; None where the judge did not say.
        swapped: The same question with the answers shown the other way round, told of the same
            answers: `first` is still `first_id`.
    """

    first_id: Identifier
    second_id: Identifier
    given: Literal["first", "second", "tie"] | None
    swapped: Literal["first", "second", "tie"] | None

    @property
    def better(self) -> str | None:
        """The answer that is better in both orders, or None."""
        if self.given != self.swapped or self.given not in ("first", "second"):
            return None
        return self.first_id if self.given == "first" else self.second_id

    @property
    def worse(self) -> str | None:
        """The other one."""
        if self.better is None:
            return None
        return self.second_id if self.better == self.first_id else self.first_id


def read_demonstrations(path: Path) -> tuple[Demonstration, ...]:
    """Read demonstrations: CSV (with `messages` as JSON), JSON Lines, JSON or Parquet.

    Raises:
        InvalidInputError: The file cannot be read, or a row breaks a rule; it names the first.
    """
    return _read(path, Demonstration, "a demonstration", "id, messages and target")


def read_judged(path: Path) -> tuple[JudgedPair, ...]:
    """Read what a judge said of pairs of interactions: CSV, JSON Lines, JSON or Parquet.

    Raises:
        InvalidInputError: The file cannot be read, or a row breaks a rule; it names the first.
    """
    return _read(path, JudgedPair, "a preference", "first_id, second_id, given and swapped")


R = TypeVar("R", bound=Record)


def _read(path: Path, kind: type[R], name: str, fields: str) -> tuple[R, ...]:
    records: list[R] = []
    wrong: list[str] = []
    with read_rows(path, names=tuple(kind.model_fields), may_be_empty=True) as rows:
        for row in rows:
            try:
                given = row.given(as_json=["messages", "tools"])
                # an empty cell of a table says that a judge has no word on it
                blank = {name: None for name in _NULLABLE if name in row.fields}
                records.append(kind.model_validate(blank | given))
            except ValueError as error:
                reason = _reason(error)
                wrong.append(f"{row.position}: {printable(row.received)!r} ({reason})")
    if wrong:
        more = f"; and {len(wrong) - ERRORS_SHOWN:,} more" if len(wrong) > ERRORS_SHOWN else ""
        raise InvalidInputError(
            f"{name} is an object with {fields}, got {'; '.join(wrong[:ERRORS_SHOWN])}{more}; "
            f"correct {printable(path.name)}"
        )
    return tuple(records)


def _reason(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"
