"""Records of releases in front of users: plans, looks and their decisions, tests of variants."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from ratchet.records.answer_signals import MEASURED
from ratchet.records.base import Identifier, Record, Share, Text, UtcTime
from ratchet.records.serving import Variant
from ratchet.records.signals import ROLLOUT_SHARES, SIGNAL_OF

SIGNAL_NAMES: tuple[str, ...] = tuple(share.name for share in ROLLOUT_SHARES)
if TYPE_CHECKING:
    SignalName = str
else:
    SignalName = Literal[SIGNAL_NAMES]
    """What may get worse in a rollout: a share of answers, always of bad ones."""
MEASURED_SHARES: tuple[str, ...] = tuple(
    share.name for share in ROLLOUT_SHARES if SIGNAL_OF[share.name].name in MEASURED
)
"""Signals that an answer carries itself: calls, form, tokens, cost."""
CUT_SHARES: tuple[str, ...] = tuple(
    share.name for share in ROLLOUT_SHARES if share.name in MEASURED_SHARES and share.cut
)
"""Those of `MEASURED_SHARES` that are numbers, which are bad above a limit."""
if TYPE_CHECKING:
    _CutName = str
else:
    _CutName = Literal[CUT_SHARES]
LookDecision = Literal["wait", "advance", "promote", "abort", "expire"]
_Error = Annotated[float, Field(gt=0.0, lt=0.5)]
_Above = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
CutOffs = dict[_CutName, Annotated[float, Field(ge=0.0, allow_inf_nan=False)]]


class WatchedSignal(Record):
    """A signal of a rollout or test.

    Attributes:
        margin: How much the share may rise and the release still pass, e.g. 0.02 for two points.
        primary: Whether it is what the release is about.
    """

    name: SignalName
    margin: Annotated[float, Field(gt=0.0, lt=1.0)]
    primary: bool = False


class RolloutStage(Record):
    """One stage: the challenger's share, and what it takes to leave it for the next.

    Attributes:
        share: The challenger's share of users.
        hours: Least time in the stage.
        slack: How many times a signal's margin must be excluded. Few users cannot exclude little;
            slack times share says what harm to all users at most is let through.
        imbalance: Rates are read from when on the sample-ratio check would have found odds of
            assignment that are wrong by this factor; 11/9 makes 50/50 into 55/45.
    """

    share: Annotated[float, Field(gt=0.0, lt=1.0)]
    hours: Annotated[float, Field(ge=0.0)]
    slack: Annotated[float, Field(ge=1.0)] = 1.0
    imbalance: Annotated[float, Field(gt=1.0)] = 11 / 9


STAGES: tuple[RolloutStage, ...] = (
    RolloutStage(share=0.01, hours=1.0, slack=10.0, imbalance=16.0),
    RolloutStage(share=0.05, hours=4.0, slack=6.0, imbalance=4.0),
    RolloutStage(share=0.25, hours=24.0, imbalance=1.5),
    RolloutStage(share=0.50, hours=24.0),
)
SIGNALS: tuple[WatchedSignal, ...] = tuple(
    WatchedSignal(name=share.name, margin=share.margin, primary=share.primary)
    for share in ROLLOUT_SHARES
    if share.margin is not None
)


class RolloutPlan(Record):
    """The rules of a rollout, fixed before it starts.

    Attributes:
        stages: In order, with growing shares. Who passes the last one gets everybody.
        signals: What is watched, where the application reports it; exactly one is primary.
        harm_error: Greatest chance that a release that does no harm is aborted for harm, however
            often one looks and however many signals there are.
        ratio_error: Greatest chance that a sound assignment is called broken: by all looks
            together, and again by the chi-square test before the promotion.
        pass_error: Greatest chance that a release that is worse by a margin or more passes a stage
            that asks for it, however often one looks.
        must_improve: Whether the primary signal must be shown to be better for a promotion.
        minimum_users: Users of each arm with a trial of a signal, before its rate is read.
        lag_seconds: Age at which an interaction is read; later feedback is not.
        settle_seconds: What was answered so shortly after a change of shares is left out.
        fresh_hours: Without an answer of an arm for so long, nothing passes.
        slow_seconds: From when on an answer is slow; None for the champion's 95th percentile.
        limits: From when on an answer has too many tokens (`many_tokens`) or costs too much
            (`costly`); the champion's 95th percentile where one is not named.
        maximum_days: After so long without a verdict the champion gets everybody back.
    """

    stages: tuple[RolloutStage, ...] = Field(default=STAGES, min_length=1)
    signals: tuple[WatchedSignal, ...] = Field(default=SIGNALS, min_length=1)
    harm_error: _Error = 0.04
    ratio_error: _Error = 0.01
    pass_error: _Error = 0.05
    must_improve: bool = False
    minimum_users: Annotated[int, Field(ge=2)] = 20
    lag_seconds: Annotated[int, Field(ge=0, le=604_800)] = 300
    settle_seconds: Annotated[int, Field(ge=0, le=3_600)] = 10
    fresh_hours: _Above = 6.0
    slow_seconds: _Above | None = None
    limits: CutOffs = Field(default_factory=dict, exclude_if=lambda limits: not limits)
    maximum_days: _Above = 28.0

    @property
    def largest_error(self) -> float:
        """Greatest chance that a release that does no harm is stopped, for whatever reason."""
        return self.harm_error + 2.0 * self.ratio_error  # by all looks, and by the final test

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        shares = [stage.share for stage in self.stages]
        if any(b <= a for a, b in pairwise(shares)):
            raise ValueError(f"stages must have growing shares, got {shares}; sort them")
        names = [signal.name for signal in self.signals]
        primary = [signal.name for signal in self.signals if signal.primary]
        if len(set(names)) < len(names) or len(primary) != 1:
            raise ValueError(
                f"signals must differ and exactly one be primary, got {names} with {primary}"
            )
        return self


class Rollout(Record):
    """A challenger on its way to all users. Its `id` is the experiment that users are hashed with.

    Attributes:
        champion: Who has the other users.
        challenger: Who is rolled out.
        previous: The version to fall back to while it runs and after.
        signals: Those of the plan that recent traffic shows.
        unwatched: The others, with the reason.
        fitted: What was changed in the plan for the number of users.
        slow_seconds: From when on an answer is slow.
        limits: The same of its tokens and its cost, by signal.
        decision_id: The gate's decision that it rests on.
        by: Who started it; None for Ratchet itself.
    """

    id: Identifier
    created_at: UtcTime
    champion: Variant
    challenger: Variant
    previous: Identifier | None = None
    plan: RolloutPlan
    signals: tuple[WatchedSignal, ...] = Field(min_length=1)
    unwatched: tuple[tuple[str, str], ...] = ()
    fitted: tuple[str, ...] = ()
    slow_seconds: float | None = None
    limits: CutOffs = Field(default_factory=dict, exclude_if=lambda limits: not limits)
    decision_id: Identifier | None = None
    by: str | None = None


class SampleRatio(Record):
    """Whether users fell into the arms as they should.

    Attributes:
        users: Users met so far, by arm; who changed arms counts in both.
        log_evidence: Log e-value against the agreed shares; `log_threshold` is beside it.
        moved: Users who went back from a growing arm, or were in two arms of one stage.
        ready: Whether so many users would have shown the imbalance that the stage names.
        final_p_value: Of the chi-square test at the final read-out; None before it.
        final_level: At which that test calls the assignment broken.
    """

    users: dict[str, int]
    log_evidence: float
    log_threshold: float
    moved: int
    ready: bool
    final_p_value: float | None = Field(default=None, exclude_if=lambda value: value is None)
    final_level: float | None = Field(default=None, exclude_if=lambda value: value is None)

    @property
    def broken(self) -> bool:
        """Whether the assignment is not what it should be."""
        sequence = self.moved > 0 or self.log_evidence >= self.log_threshold
        return sequence or self.fails_final_test

    @property
    def fails_final_test(self) -> bool:
        """Whether the numbers of users fail the chi-square test at the final read-out."""
        p_value, level = self.final_p_value, self.final_level
        return p_value is not None and level is not None and p_value < level


class Readout(Record):
    """One signal of one variant beside the control.

    Attributes:
        signal: What is bad.
        arm: The variant.
        control: Events, trials and users of the control.
        variant: Events, trials and users of the variant.
        rates: Of control and variant in the same mix of periods; None before they are read.
        difference: Variant minus control, above 0 is worse; None before it is read.
        lower: Lower end of the confidence sequence at the harm error.
        upper: Upper end at the pass error.
        design_effect: The variance over that of independent answers.
        log_alarm: Log e-value of the exact test on users to whom it happened.
        alarm_threshold: Where that is harm.
        margin: What must be excluded in this stage.
        says: `harm`; `passes`: a rise by the margin is excluded; `open`; `uneven`: it would pass,
            but is known of another share of the variant's answers; `no data`.
    """

    signal: SignalName
    arm: Identifier
    control: tuple[int, int, int]
    variant: tuple[int, int, int]
    rates: tuple[Share, Share] | None = None
    difference: float | None = None
    lower: float | None = None
    upper: float | None = None
    design_effect: float | None = None
    log_alarm: float
    alarm_threshold: float
    margin: float
    says: Literal["harm", "passes", "open", "uneven", "no data"]


class RolloutLook(Record):
    """One look at a rollout and what was decided, stored before it is acted on.

    Attributes:
        model_version: The challenger's.
        number: From 1 on.
        until: Answers given before this are read.
        stage: Number of the stage, from 1 on.
        share: The challenger's share in it.
        reasons: The rules that applied, in words.
        sample_ratio: Checked before anything else.
        readouts: Empty where the assignment is broken.
        interactions: Answers read.
    """

    id: Identifier
    created_at: UtcTime
    rollout_id: Identifier
    model_version: Identifier
    number: int = Field(ge=1)
    until: UtcTime
    stage: int = Field(ge=1)
    share: Share
    decision: LookDecision
    reasons: tuple[str, ...]
    sample_ratio: SampleRatio
    readouts: tuple[Readout, ...]
    interactions: int = Field(ge=0)


class RolloutStop(Record):
    """The end of a rollout by somebody else than its rules; `id` is the rollout's. It is final.

    Attributes:
        by: The person, or what ended it, such as a rollback.
        person: Whether a person did; then the challenger is not rolled out again.
    """

    id: Identifier
    created_at: UtcTime
    by: str
    person: bool
    note: Text = ""


class AliasMove(Record):
    """What the registry's aliases should say, and that they do. Serving does not wait for it.

    Attributes:
        release_id: The release that asks for it.
        done: Whether the registry has followed.
        withdrawn: A version that was rolled back, which is tagged so.
    """

    id: Identifier
    created_at: UtcTime
    release_id: Identifier
    champion: Identifier
    previous: Identifier | None
    done: bool
    withdrawn: Identifier | None = None


class VariantTest(Record):
    """A test of several variants at fixed shares (A/B/n). Its `id` is the experiment.

    Attributes:
        name: What people call it.
        variants: With their shares; the last one is the control.
        signals: What is compared, with what difference matters; one is primary.
        error: Greatest chance that any interval of any variant and signal is ever wrong.
        imbalance: As of a `RolloutStage`.
        slow_seconds: From when on an answer is slow.
        limits: From when on an answer has too many tokens or costs too much, by signal; without
            one that signal is not compared.
    """

    id: Identifier
    created_at: UtcTime
    name: Identifier
    variants: tuple[Variant, ...] = Field(min_length=2)
    signals: tuple[WatchedSignal, ...] = Field(min_length=1)
    error: _Error = 0.05
    ratio_error: _Error = 0.01
    imbalance: Annotated[float, Field(gt=1.0)] = 11 / 9
    minimum_users: Annotated[int, Field(ge=2)] = 20
    lag_seconds: Annotated[int, Field(ge=0, le=604_800)] = 300
    slow_seconds: float | None = None
    limits: CutOffs = Field(default_factory=dict, exclude_if=lambda limits: not limits)
    by: str | None = None


class VariantTestEnd(Record):
    """The end of a test of variants; `id` is the test's.

    Attributes:
        winner: The variant that everybody gets; None for the control.
    """

    id: Identifier
    created_at: UtcTime
    by: str
    winner: Identifier | None = None
    note: Text = ""


class VariantReadout(Record):
    """How the variants of a test compare, at one look.

    Attributes:
        until: Answers given before this were read.
        readouts: Each signal of each variant beside the control; empty where the assignment is
            broken.
        shown_better: Variants whose primary signal is shown to be better than the control's.
        shown_worse: Variants with a signal shown to be worse.
        conclusion: In words.
    """

    id: Identifier
    created_at: UtcTime
    test_id: Identifier
    until: UtcTime
    control: Identifier
    sample_ratio: SampleRatio
    readouts: tuple[Readout, ...]
    shown_better: tuple[str, ...]
    shown_worse: tuple[str, ...]
    conclusion: str
    interactions: int = Field(ge=0)
