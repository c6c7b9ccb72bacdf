"""What a challenger must show before it is promoted, read from YAML.

    error_level: 0.05
    primary: {metric: exact_match, margin: 0.0, hold_margin: 0.05}
    guardrails:
      - {metric: safety, higher_is_better: true, margin: 0.01, safety_critical: true}
      - {metric: length, margin: 0.10, relative: true}
      - {metric: exact_match, margin: 0.10, per_cluster: true}
    minimum_examples: 100
    judges: [helpfulness]
    looks: {maximum: 3, examples: 3000}
    approval: borderline
    approval_hours: 72

In place of a file, `open-ended` names the policy that ships for answers that have no right one.
A metric whose name says which direction is better (`length`, `exact_match`, `wer`) needs no
`higher_is_better`; any other needs it. Every rule that a file breaks is named at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    field_validator,
    model_validator,
)

from ratchet.errors import InvalidInputError, PolicyError
from ratchet.evaluation.directions import direction_of
from ratchet.evaluation.example_files import read_examples
from ratchet.evaluation.metrics import LARGEST_K, pass_k
from ratchet.evaluation.paired import Draw
from ratchet.files.yaml import read_yaml
from ratchet.records import WIN_RATE, Example, GoldenMetric

ApprovalRule = Literal["never", "borderline", "always"]
Requires = Literal["shown", "no_harm"]
LookSpending = Literal["obrien_fleming", "pocock"]

LARGEST = 1e100
"""Largest margin, and score, in magnitude; the cube of it is still a number."""


def _no_flag(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"must be a number, got {str(value).lower()}; write the number itself")
    return value


Number = Annotated[float, BeforeValidator(_no_flag)]
Whole = Annotated[int, BeforeValidator(_no_flag)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Level = Annotated[Number, Field(gt=0.0, lt=0.5)]
Margin = Annotated[Number, Field(ge=0.0, le=LARGEST, allow_inf_nan=False)]
Share = Annotated[Number, Field(ge=0.0, lt=1.0)]

LARGEST_FILE = 100_000
SHIPPED = {"open-ended": Path(__file__).with_name("policies") / "open_ended.yaml"}
"""Policies that ship, by the name that is given in place of a file."""
OPEN_ENDED = Path("open-ended")
ERRORS_SHOWN = 20
RECEIVED_CHARACTERS = 60
TEMPERATURE = 0.8  # at which Chen et al. (2021) sample for pass@100


def _is_empty(names: tuple[str, ...]) -> bool:
    return not names  # left out of what is stored, so that ids of older decisions stay


def _is_none(value: object) -> bool:
    return value is None


def _set(part: BaseModel, **values: Any) -> None:
    """Set what follows from other fields, which does not count as stated."""
    for name, value in values.items():
        object.__setattr__(part, name, value)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Measured(_Part):
    metric: Name
    higher_is_better: StrictBool = True

    @model_validator(mode="after")
    def _known_direction(self) -> Self:
        """By the metric's name where it is not stated; it stays told apart from what is stated."""
        if "higher_is_better" not in self.model_fields_set:
            _set(self, higher_is_better=direction_of(self.metric) is not False)
        return self


class Primary(_Measured):
    """What must become better.

    Attributes:
        margin: How much better at least, in units of the metric.
        hold_margin: How much worse it may be and still be held, not called inconclusive. Where left
            out, 0.05 for scores within [0, 1] and for `win_rate`, else a fifth of the champion's
            standard deviation.
    """

    margin: Margin = 0.0
    hold_margin: Annotated[Number, Field(gt=0.0, le=LARGEST, allow_inf_nan=False)] | None = None


class Guardrail(_Measured):
    """What must not become worse.

    Attributes:
        margin: How much worse it may be: in units of the metric, or of the champion's mean.
        relative: Whether the margin is a share of the champion's mean.
        per_cluster: Whether it must hold in every cluster by itself: of the data, or in the loop
            every failure cluster with a regression set.
        examples: Name of a set of examples of its own, such as `safety`; else the primary's.
        requires: "shown": that it is no worse by the margin must be shown, at the error level.
            "no_harm": it must not be shown to be worse by more than the margin; few examples never
            show that.
        minimum_examples: Below this many, and in a cluster below this many, nothing is shown.
        safety_critical: Whether a person must approve what passes it.
    """

    margin: Margin = 0.0
    relative: StrictBool = False
    per_cluster: StrictBool = False
    examples: Name | None = None
    requires: Requires = "shown"
    minimum_examples: Annotated[Whole, Field(ge=2)] = 30
    safety_critical: StrictBool = False

    @model_validator(mode="after")
    def _can_be_shown(self) -> Self:
        if self.requires == "shown" and self.margin == 0.0:
            raise ValueError(
                "margin must be above 0 where it must be shown that nothing is worse, got 0; no "
                "number of examples shows that, so allow a margin or take requires: no_harm"
            )
        return self


_Rule = TypeVar("_Rule", Primary, Guardrail)


class Looks(_Part):
    """Several looks at growing data, the error level kept over all of them.

    Attributes:
        maximum: How many looks at most.
        examples: Examples at the last look.
        spending: "obrien_fleming" keeps nearly all of the level for the last look.
    """

    maximum: Annotated[Whole, Field(ge=2, le=20)]
    examples: Annotated[Whole, Field(ge=20)]
    spending: LookSpending = "obrien_fleming"


class GatePolicy(_Part):
    """What a challenger must show.

    Attributes:
        primary: What must become better.
        guardrails: What must not become worse.
        secondary: Metrics that are reported with adjusted p-values and decide nothing.
        higher_is_better: Metrics of which more is better, secondary ones too, where neither their
            rule nor their name says so.
        lower_is_better: Metrics of which less is better.
        error_level: Chance to promote a challenger that is equal or worse, or breaks a guardrail;
            and chance to reject one that is neither worse nor breaks any.
        minimum_examples: Below this many examples with both scores nothing is decided.
        minimum_users: Below this many users, where examples have users.
        max_unscored_share: Share of examples without a score, in either, up to which one decides.
        max_unscored_difference: Difference of the two shares up to which one may promote.
        judges: Judges, or versions of them, that must be usable.
        looks: Several looks; one where left out.
        beat_constant_answer: Whether the challenger must be shown to beat always giving the most
            common right answer; else a random guesser beats a model that answers off the menu.
        samples: How often each model answers each example, sampled where more than once; left out,
            as often as the largest k of a metric `pass@k`, else once.
        temperature: Of sampling; left out, 0.8 where answers are sampled. Stated for one sample, it
            is sampled too.
        seed: Of sampling; 0 where left out.
        approval: When a person must approve a promotion.
        approval_hours: Without an answer for so many hours a waiting promotion is rejected.
    """

    primary: Primary
    guardrails: tuple[Guardrail, ...] = ()
    secondary: tuple[Name, ...] = ()
    higher_is_better: tuple[Name, ...] = Field(default=(), exclude_if=_is_empty)
    lower_is_better: tuple[Name, ...] = Field(default=(), exclude_if=_is_empty)
    error_level: Level = 0.05
    minimum_examples: Annotated[Whole, Field(ge=20)] = 30
    minimum_users: Annotated[Whole, Field(ge=10)] = 20
    max_unscored_share: Share = 0.05
    max_unscored_difference: Share = 0.0
    judges: tuple[Name, ...] = ()
    looks: Looks | None = None
    beat_constant_answer: StrictBool = False
    samples: Annotated[Whole, Field(ge=1, le=LARGEST_K)] | None = Field(None, exclude_if=_is_none)
    temperature: Annotated[Number, Field(gt=0.0, le=2.0)] | None = Field(None, exclude_if=_is_none)
    seed: Annotated[Whole, Field(ge=0, lt=2**31)] | None = Field(None, exclude_if=_is_none)
    approval: ApprovalRule = "never"
    approval_hours: Annotated[Number, Field(gt=0.0, le=24.0 * 365.0)] = 72.0

    @field_validator("secondary", "judges", "higher_is_better", "lower_is_better")
    @classmethod
    def _once_each(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        twice = [name for name, times in Counter(names).items() if times > 1]
        if twice:
            raise ValueError(f"each name must be there once, got {', '.join(twice)} again")
        return names

    @model_validator(mode="after")
    def _listed_directions(self) -> Self:
        """Give rules the direction that the lists state, where they state none themselves."""
        listed = self._listed()
        for name in listed:
            if name in self.higher_is_better and name in self.lower_is_better:
                raise ValueError(f"{name} must have one direction, got both")
            if name not in self.metrics:
                raise ValueError(f"directions are of metrics that the policy names, got {name}")
            if self.stated[name] != listed[name]:
                raise ValueError(f"{name} must have one direction, got another in its rule")

        def directed(rule: _Rule) -> _Rule:
            is_higher = listed.get(rule.metric, rule.higher_is_better)
            if is_higher == rule.higher_is_better:
                return rule
            return rule.model_copy(update={"higher_is_better": is_higher})

        _set(
            self,
            primary=directed(self.primary),
            guardrails=tuple(directed(rule) for rule in self.guardrails),
        )
        return self

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        keys = Counter((rule.metric, rule.per_cluster, rule.examples) for rule in self.guardrails)
        for (metric, per_cluster, examples), times in keys.items():
            if times > 1:
                where = "per cluster" if per_cluster else f"over {examples or 'all'}"
                raise ValueError(f"one guardrail for {metric} {where}, got {times}")
        if any(r.metric == WIN_RATE and (r.per_cluster or r.examples) for r in self.guardrails):
            raise ValueError(
                f"{WIN_RATE} is known over all examples of the primary metric, got it per cluster "
                "or on a set of its own; leave out per_cluster and examples"
            )
        if self.primary.metric in self.secondary:
            raise ValueError(
                f"{self.primary.metric} is the primary metric, got it as secondary too"
            )
        largest = max((pass_k(metric) or 1 for metric in self.metrics), default=1)
        if self.samples is not None and self.samples < largest:
            raise ValueError(
                f"pass@{largest} needs at least {largest} samples of each example, got "
                f"{self.samples}"
            )
        if self.seed is not None and self.draws == (None,):
            raise ValueError("seed goes with sampling, got one greedy answer; add temperature")
        directions = {self.primary.metric: self.primary.higher_is_better}
        for rule in self.guardrails:
            if directions.setdefault(rule.metric, rule.higher_is_better) != rule.higher_is_better:
                raise ValueError(f"{rule.metric} must have one direction, got both")
        if self.looks is not None and self.looks.examples < self.minimum_examples:
            raise ValueError(
                f"looks must end with at least minimum_examples ({self.minimum_examples}), got "
                f"{self.looks.examples}"
            )
        return self

    def direction(self, metric: str) -> bool:
        """Whether more of a metric is better; by its name where nothing is stated."""
        return self.stated.get(metric, direction_of(metric) is not False)

    @property
    def stated(self) -> dict[str, bool]:
        """Whether more is better, of each metric of which the policy says so itself."""
        rules = (self.primary, *self.guardrails)
        in_rules = {
            rule.metric: rule.higher_is_better
            for rule in rules
            if "higher_is_better" in rule.model_fields_set
        }
        return self._listed() | in_rules

    @property
    def undirected(self) -> tuple[str, ...]:
        """The metrics whose direction is neither stated nor known by the name."""
        stated = self.stated
        return tuple(m for m in self.metrics if m not in stated and direction_of(m) is None)

    def _listed(self) -> dict[str, bool]:
        higher = dict.fromkeys(self.higher_is_better, True)
        return higher | dict.fromkeys(self.lower_is_better, False)

    @property
    def draws(self) -> tuple[Draw | None, ...]:
        """The answers to each example that each model makes; None is the greedy one."""
        count = self.samples or max(pass_k(metric) or 1 for metric in self.metrics)
        if count == 1 and self.temperature is None:
            return (None,)
        how = (self.temperature or TEMPERATURE, self.seed or 0)
        return tuple(Draw(*how, number) for number in range(count))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric that it names, the primary one first."""
        named = (self.primary.metric, *(rule.metric for rule in self.guardrails), *self.secondary)
        return tuple(dict.fromkeys(named))


def default_policy(metrics: Sequence[str], *, has_clusters: bool) -> GatePolicy:
    """Return the policy where none is stated: the first metric must be better, at 5 %.

    Where examples have clusters, the challenger must not be shown to be worse in any of them. Other
    metrics are reported.
    """
    first, *others = metrics
    clusters = (Guardrail(metric=first, per_cluster=True, requires="no_harm"),)
    return GatePolicy(
        primary=Primary(metric=first),
        guardrails=clusters if has_clusters else (),
        secondary=tuple(others),
    )


def loop_policy(metric: str = "exact_match") -> GatePolicy:
    """Return the policy of the loop where none is stated.

    Right answers must be shown to be more, at 2.5 % (a two-sided test at 5 %), on at least 100
    examples that all have a score; the challenger must beat the constant answer, and must not be
    shown to be worse on any failure cluster's regression set.

    Args:
        metric: Which says whether an answer is right.
    """
    return GatePolicy(
        primary=Primary(metric=metric, hold_margin=0.05),
        guardrails=(
            Guardrail(metric=metric, per_cluster=True, requires="no_harm", minimum_examples=6),
        ),
        error_level=0.025,
        minimum_examples=100,
        max_unscored_share=0.0,
        beat_constant_answer=True,
    )


def is_shipped(path: Path) -> bool:
    """Tell whether a path is the name of a shipped policy, and no file is called so."""
    return str(path) in SHIPPED and not path.exists()


def without_clusters(policy: GatePolicy) -> GatePolicy:
    """Return a policy without its guardrails per cluster, for examples that have none."""
    kept = tuple(rule for rule in policy.guardrails if not rule.per_cluster)
    return policy.model_copy(update={"guardrails": kept})


def policy_for_loop(
    asked: GatePolicy | Path | None,
    examples: Sequence[Example] | None,
    approval: ApprovalRule | None = None,
    metric: GoldenMetric | None = None,
) -> GatePolicy:
    """Return the policy of a loop: the one that is asked for, else by what its examples have.

    Args:
        asked: A policy, or the file or the name of one.
        examples: What both models answer; None where they are drawn from traffic, as open
            questions.
        approval: When a person must approve, in the place of what the policy says.
        metric: Of a version of the golden set, which knows what suits its right answers.

    Raises:
        PolicyError: The file cannot be used.
    """
    if asked is None:
        is_open = examples is None or all(one.target is None for one in examples)
        by = metric or (WIN_RATE if is_open else "exact_match")
        asked = OPEN_ENDED if by == WIN_RATE else loop_policy(by)
    policy = asked if isinstance(asked, GatePolicy) else load_policy(asked)
    return policy if approval is None else policy.model_copy(update={"approval": approval})


def policy_for_file(asked: GatePolicy | Path | None, examples: Path | None) -> GatePolicy:
    """Return the policy of a loop that has not begun, by its file of examples where it has one.

    Raises:
        InvalidInputError: The policy or the file of examples cannot be used.
    """
    if asked is not None or examples is None:
        return policy_for_loop(asked, None)
    return policy_for_loop(None, read_examples(examples))


def load_policy(path: Path) -> GatePolicy:
    """Read a policy from a YAML file, or the one that ships under this name.

    Raises:
        PolicyError: The file is not there, is not YAML or breaks a rule; every rule it breaks is
            named.
    """
    path = SHIPPED[str(path)] if is_shipped(path) else path
    try:
        content = read_yaml(path, what="a policy", holds="primary", largest=LARGEST_FILE)
    except InvalidInputError as error:
        raise PolicyError(str(error)) from error
    return parse_policy(content, path.name)


def parse_policy(content: Any, source: str) -> GatePolicy:
    """Return the policy of what a YAML file holds. See `load_policy`."""
    if not isinstance(content, dict):
        raise PolicyError(f"{source} must hold a mapping with primary, got {_received(content)}")
    try:
        return GatePolicy.model_validate(content)
    except ValidationError as error:
        wrong = [_explained(found) for found in error.errors()]
    more = f"; and {len(wrong) - ERRORS_SHOWN} more" if len(wrong) > ERRORS_SHOWN else ""
    raise PolicyError(f"{source}: " + "; ".join(wrong[:ERRORS_SHOWN]) + more)


def _explained(error: Any) -> str:
    where = ".".join(map(str, error["loc"])) or "policy"
    message = error["msg"].removeprefix("Value error, ")
    clear = error["type"] in ("value_error", "extra_forbidden", "missing")
    return f"{where}: {message}" + ("" if clear else f", got {_received(error['input'])}")


def _received(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= RECEIVED_CHARACTERS else text[:RECEIVED_CHARACTERS] + "..."
