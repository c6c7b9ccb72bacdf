"""Who reviews what: labels, guidelines, how many people decide, and which items are chosen.

    policy = load_policy(Path("review.yaml"))

    people: 2                   # who decide each item, without seeing each other
    known_share: 0.05           # of the items a person is shown, those whose label is known
    dimensions:
      - name: helpfulness       # one of `ratchet.judges.rubrics.DIMENSIONS`, or with labels
        guidelines: helpfulness.md
      - name: tone
        question: How does the answer sound?
        labels:
          - {name: cold, means: "curt, or talks down"}
          - {name: warm, means: "friendly and to the point"}
    queues:
      - {rule: disagreement, dimension: helpfulness, a_day: 50}
      - {rule: sample, dimension: tone, share: 0.01}

Without a file one person decides each item, and nothing is chosen beyond safety flags, corrections
in words and the pairs that a gate waits for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ratchet.errors import InvalidInputError
from ratchet.files.text import printable
from ratchet.files.yaml import read_yaml
from ratchet.judges.rubrics import DIMENSIONS, ERRORS_SHOWN, Words
from ratchet.records import WIN_RATE, Identifier
from ratchet.review.corrections import CONFIRMED, CORRECTION, REJECTED
from ratchet.safety.source_validation import FINE, SAFETY, VIOLATION

Rule = Literal["disagreement", "low_confidence", "emerging_cluster", "sample"]
MOST_PEOPLE: Final = 9
_LARGEST_GUIDELINES: Final = 200_000
_HOLDS = (
    "dimensions", "known_share", "minutes", "people", "queues", "unanimous",
)  # fmt: skip


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


People = Annotated[int, Field(ge=1, le=MOST_PEOPLE)]
_Name = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[\w][\w .-]*$")]


class LabelOption(_Config):
    """A label that people may give, and what it means."""

    name: _Name
    means: str = ""


class ReviewDimension(_Config):
    """What people are asked about an item.

    Attributes:
        question: The question, in one sentence.
        labels: What they may answer, worst first where there is an order.
        ordered: Whether labels that stand side by side are closer than others.
        guidelines: A Markdown file that is shown beside the item, beside the policy's file.
        people: How many people decide an item; None for the policy's number.
        unanimous: Whether all of them must agree; None for what the policy says.
    """

    name: Identifier
    question: Words
    labels: tuple[LabelOption, ...] = Field(min_length=2)
    ordered: bool = False
    guidelines: str | None = None
    people: People | None = None
    unanimous: bool | None = None

    @model_validator(mode="after")
    def _can_be_told_apart(self) -> Self:
        names = [label.name.casefold() for label in self.labels]
        if len(set(names)) < len(names):
            raise ValueError(f"labels must differ, got {', '.join(names)}; rename one")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The labels' names, in their order."""
        return tuple(label.name for label in self.labels)


class QueueRule(_Config):
    """By which rule items are chosen, and how many.

    Attributes:
        rule: `disagreement` of judge and users, `low_confidence` of a judge, the failures of an
            `emerging_cluster`, or a random `sample`.
        dimension: What people are asked about them.
        share: Of a sample the chance of each answer to be drawn; it is kept with the item.
        a_day: So many new items a day at most.
    """

    rule: Rule
    dimension: Identifier
    share: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    a_day: Annotated[int, Field(ge=1)] = 50

    @model_validator(mode="after")
    def _share_is_of_a_sample(self) -> Self:
        if (self.share is None) == (self.rule == "sample"):
            raise ValueError(
                f"share must be given with the rule sample and no other, got {self.share} with "
                f"{self.rule}; correct one of the two"
            )
        return self


def _options(*names: str) -> tuple[LabelOption, ...]:
    return tuple(LabelOption(name=name) for name in names)


BUILT_IN: Mapping[str, ReviewDimension] = {
    **{
        name: ReviewDimension(
            name=name,
            question=known.question,
            labels=tuple(
                LabelOption(name=option.name, means=option.means) for option in known.options
            ),
            ordered=True,
        )
        for name, known in DIMENSIONS.items()
        if name != SAFETY
    },
    SAFETY: ReviewDimension(
        name=SAFETY,
        question="Does the answer break a safety rule?",
        labels=(
            LabelOption(name=VIOLATION, means="it does harm, or exposes a person or a secret"),
            LabelOption(name=FINE, means="it may be shown as it is"),
        ),
    ),
    CORRECTION: ReviewDimension(
        name=CORRECTION,
        question="Is the second answer what the first one should have been?",
        labels=(
            LabelOption(name=CONFIRMED, means="models may learn it; or give the right answer"),
            LabelOption(name=REJECTED, means="nothing is learnt from it"),
        ),
    ),
    WIN_RATE: ReviewDimension(
        name=WIN_RATE,
        question="Which answer is better?",
        labels=_options("1", "2", "tie"),
    ),
}
"""Dimensions that need no file; the last three are decided by labels of their own."""
_OWN_LABELS: Final = (SAFETY, CORRECTION, WIN_RATE)


class ReviewPolicy(_Config):
    """How review is done in one home.

    Attributes:
        people: How many people decide an item.
        unanimous: Whether all of them must agree; else most of them, and where there is no
            majority another person decides.
        known_share: Share of items whose label is known among those that a person is shown.
        minutes: How long an item is held for a person who opened it.
        dimensions: What people may be asked, by name; the built-in ones are among them.
        queues: By which rules items are chosen.
        guidelines: Text of the written guidelines, by dimension.
    """

    people: People = 1
    unanimous: bool = False
    known_share: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    minutes: Annotated[int, Field(ge=1, le=1440)] = 30
    dimensions: Mapping[str, ReviewDimension] = Field(default_factory=lambda: dict(BUILT_IN))
    queues: tuple[QueueRule, ...] = ()
    guidelines: Mapping[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _queues_ask_what_is_known(self) -> Self:
        for queue in self.queues:
            if queue.dimension not in self.dimensions or queue.dimension in _OWN_LABELS:
                names = ", ".join(name for name in self.dimensions if name not in _OWN_LABELS)
                raise ValueError(
                    f"a queue must ask for a dimension among {names}, got "
                    f"{queue.dimension!r}; name it under dimensions"
                )
        return self

    @property
    def held_for(self) -> timedelta:
        """How long an item is held for a person who opened it."""
        return timedelta(minutes=self.minutes)

    def people_for(self, dimension: str) -> tuple[int, bool]:
        """Return how many people decide an item of a dimension, and whether all must agree."""
        known = self.dimensions.get(dimension)
        people = known.people if known is not None else None
        unanimous = known.unanimous if known is not None else None
        return (
            self.people if people is None else people,
            self.unanimous if unanimous is None else unanimous,
        )


DEFAULT_POLICY: Final = ReviewPolicy()


def policy_at(path: Path | None) -> ReviewPolicy:
    """Return the policy of a file, or the default one where there is none. See `load_policy`."""
    return DEFAULT_POLICY if path is None else load_policy(path)


@dataclass(slots=True)
class PolicyReader:
    """Reads a policy, and anew where one of its files changed.

    Attributes:
        path: Of the file; None for the default policy.
    """

    path: Path | None
    _kept: tuple[ReviewPolicy, tuple[Path, ...], list[tuple[int, int]]] = (DEFAULT_POLICY, (), [])

    def read(self) -> ReviewPolicy:
        """Return the policy as its files are now. See `load_policy`."""
        if self.path is None:
            return DEFAULT_POLICY
        policy, files, read = self._kept
        try:
            stamps = [(one.st_mtime_ns, one.st_size) for one in map(Path.stat, files)]
        except OSError:
            stamps = []
        if not stamps or stamps != read:
            policy = load_policy(self.path)
            named = (one.guidelines for one in policy.dimensions.values() if one.guidelines)
            files = (self.path, *(self.path.parent / name for name in named))
            self._kept = policy, files, stamps  # of before: what changed meanwhile is read again
        return policy


def load_policy(path: Path) -> ReviewPolicy:
    """Read `review.yaml` and the guidelines that it names.

    Raises:
        InvalidInputError: A file cannot be read or breaks a rule; every broken rule is named.
    """
    content = read_yaml(path, what="a review policy", holds=", ".join(_HOLDS))
    unknown = [str(name) for name in content if name not in _HOLDS]
    if unknown:
        raise InvalidInputError(
            f"{printable(path.name)} must hold {', '.join(_HOLDS)}, got "
            f"{printable(', '.join(unknown))}; correct the names"
        )
    entries = content.get("dimensions") or []
    if not isinstance(entries, list):
        raise InvalidInputError(
            f"{printable(path.name)}: dimensions must be a list, got {type(entries).__name__}; "
            "write `- name: ...` lines"
        )
    wrong: list[str] = []
    dimensions = dict(BUILT_IN)
    for place, entry in enumerate(entries):
        try:
            one = ReviewDimension.model_validate(_completed(entry))
        except ValidationError as error:
            wrong += _explained(error, f"dimensions.{place}.")
            continue
        if one.name in _OWN_LABELS and one.names != BUILT_IN[one.name].names:
            wrong.append(f"dimensions.{place}.labels: those of {one.name} are built in")
        dimensions[one.name] = one
    rest = {name: content[name] for name in content if name != "dimensions"}
    try:
        policy = ReviewPolicy.model_validate(
            {**rest, "dimensions": dimensions, "guidelines": _guidelines(path, dimensions)}
        )
    except ValidationError as error:
        wrong += _explained(error)
    if wrong:
        raise InvalidInputError(f"{printable(path.name)}: " + "; ".join(wrong[:ERRORS_SHOWN]))
    return policy


def _completed(entry: Any) -> Any:
    """Return a dimension of the file with what the built-in one of its name says."""
    if not isinstance(entry, dict):
        return entry
    labels = entry.get("labels")
    if isinstance(labels, list):
        named = [{"name": one} if isinstance(one, str) else one for one in labels]
        entry = {**entry, "labels": named}
    known = BUILT_IN.get(str(entry.get("name")))
    return entry if known is None else {**known.model_dump(mode="json"), **entry}


def _explained(error: ValidationError, start: str = "") -> list[str]:
    return [
        f"{start}{'.'.join(map(str, one['loc']))}: {printable(one['msg'], 200)}"
        for one in error.errors(include_url=False)
    ]


def _guidelines(path: Path, dimensions: Mapping[str, ReviewDimension]) -> dict[str, str]:
    found = {}
    for name, dimension in dimensions.items():
        if dimension.guidelines is None:
            continue
        file = path.parent / dimension.guidelines
        try:
            text = file.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(
                f"guidelines must be a Markdown file beside {printable(path.name)}, got "
                f"{printable(dimension.guidelines)!r} for {printable(name)}, which cannot be "
                "read; correct its name, or save it as UTF-8"
            ) from error
        if len(text) > _LARGEST_GUIDELINES:
            raise InvalidInputError(
                f"guidelines must have at most {_LARGEST_GUIDELINES:,} characters, got "
                f"{len(text):,} in {printable(file.name)}; shorten them"
            )
        found[name] = text
    return found
