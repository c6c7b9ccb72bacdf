"""A canary: the challenger gets more users stage by stage, as long as no harm is seen.

Users are split by a hash of themselves and the rollout, so that who has the challenger at 5 % has
it at 25 %, and another rollout draws its users anew. A look reads what is ripe, checks the
sample ratio, and decides by the rule alone: abort on harm at any time, advance once time, sample
and margins are there, promote after the last stage. Looking often is free: alarm and confidence
sequences hold at all looks together. What is missing (signals, users, fresh answers, a sound
assignment) makes it wait, and after `maximum_days` the champion gets everybody back.

A decision is stored before it is acted on, and acting twice changes nothing. A person's stop is
final: no look moves anything afterwards, and the version is not rolled out again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ratchet.deploy.answering import Answering
from ratchet.deploy.approval import approved_to_promote
from ratchet.deploy.elsewhere import refuse_elsewhere
from ratchet.deploy.refusals import not_started, refused
from ratchet.deploy.rollout.abort_alert import abort_alert
from ratchet.deploy.rollout.evidence import (
    Errors,
    arm_groups,
    check_ratio,
    final_ratio,
    final_words,
    read_signal,
)
from ratchet.deploy.rollout.exposure_counts import Period, Tally, read_tally
from ratchet.deploy.rollout.plans import fit_plan
from ratchet.deploy.rollout.recent_signals import OBSERVED, observed_signals
from ratchet.deploy.routing import (
    CHALLENGER,
    CHAMPION,
    current_routing,
    for_all,
    last_look,
    refuse_another,
    running_rollout,
    serving_champion,
    switch,
)
from ratchet.errors import ConflictError, InsufficientDataError, InvalidInputError
from ratchet.files.text import counted
from ratchet.records import (
    AliasMove,
    Decision,
    LookDecision,
    Readout,
    Release,
    Rollout,
    RolloutLook,
    RolloutPlan,
    RolloutStage,
    RolloutStop,
    Routing,
    SampleRatio,
    Variant,
    derive_id,
)
from ratchet.records.signals import words_of
from ratchet.stats.experiments.sample_ratio import one_look_p_value
from ratchet.store import EventStore, Window, count_users
from ratchet.store.heard import hear

logger = logging.getLogger(__name__)

LOOK_SECONDS = 60
"""Looks within one minute are one look."""
ENDED: Mapping[LookDecision, str] = {
    "promote": "promoted",
    "abort": "aborted",
    "expire": "expired",
}
"""How a rollout stands after a decision that ends it."""


@dataclass(frozen=True, slots=True)
class LookResult:
    """What a look decides, and on what.

    Attributes:
        decision: What is to be done.
        reasons: The rules that applied.
        sample_ratio: The check that came first.
        readouts: Empty where the assignment is broken.
    """

    decision: LookDecision
    reasons: tuple[str, ...]
    sample_ratio: SampleRatio
    readouts: tuple[Readout, ...]


# Starting -----------------------------------------------------------------------------------------


def begin_decided(
    store: EventStore, decision: Decision, *, now: datetime, answering: Answering | None = None
) -> Rollout | None:
    """Begin to roll out what the gate, and a person where one was asked, let pass; once.

    Returns:
        The rollout, also where it began before; None where nothing is to be rolled out, or it
        cannot begin yet: the challenger does not answer, or there is too little traffic for the
        plan; then it begins when it can (`deploy.refusals`).

    Raises:
        InvalidInputError: The champion is not the one that the challenger was compared with, or a
            person stopped this version before.
        ConflictError: Something else is in front of users already.
    """
    if decision.rollout is None or not approved_to_promote(store, decision):
        return None
    for rollout in store.records(Rollout):
        if rollout.decision_id == decision.id:
            return rollout
    champion = serving_champion(store)
    if champion is not None and champion.version != decision.champion:
        raise InvalidInputError(
            f"a rollout goes from the champion that the gate compared with, {decision.champion}, "
            f"got {champion.version} in front of users; run deploy again"
        )
    if refused(
        store, answering, decision.challenger, step="rollout", about=decision.id,
        stands=decision.champion, now=now, decision_id=decision.id,
    ):  # fmt: skip
        return None
    challenger = Variant(version=decision.challenger, share=1.0)
    try:
        begun = start_rollout(store, challenger, decision.rollout, now=now, decision_id=decision.id)
    except InsufficientDataError as error:
        not_started(store, decision, str(error), now)
        return None
    not_started(store, decision, None, now)
    return begun


def start_rollout(
    store: EventStore,
    challenger: Variant,
    plan: RolloutPlan,
    *,
    now: datetime,
    decision_id: str | None = None,
    by: str | None = None,
    answering: Answering | None = None,
    dry_run: bool = False,
) -> Rollout:
    """Begin to roll a challenger out: its first users get it from now on.

    Args:
        store: The store.
        challenger: A version, a system prompt, or both; its share does not matter.
        plan: The rules; stages that so few users cannot fill are left out.
        now: The time.
        decision_id: The gate's decision that it rests on.
        by: Who starts it; None for Ratchet itself.
        answering: What the challenger has to answer by.
        dry_run: Whether the rollout that would begin is returned, and nothing stored.

    Raises:
        NotAnsweringError: It does not answer.
        InsufficientDataError: There is no champion, recent traffic does not show the primary
            signal, or there are too few users.
        ConflictError: Something else is in front of users already.
        InvalidInputError: The challenger is the champion, or a person stopped it before.
    """
    champion = serving_champion(store)
    if champion is None:
        raise InsufficientDataError(
            "a rollout needs a champion to compare with, got none; run `ratchet demo` or a cycle"
        )
    refuse_elsewhere(store, "a rollout")
    _refuse(store, champion, challenger)
    refuse_another(store)
    if answering is not None:
        answering.require(challenger.version)
    week = Window(now - OBSERVED, now)
    plan, fitted = fit_plan(plan, count_users(store, week))
    if not dry_run:
        hear(store, now=now)  # the last pass of monitoring may have been before they reported
    seen = observed_signals(store, champion.version, plan, week)
    rollout = Rollout(
        id=derive_id("rollout", champion.version, challenger.canonical(), now.isoformat()),
        created_at=now,
        champion=_arm(champion, CHAMPION),
        challenger=_arm(challenger, CHALLENGER),
        previous=_previous(store),
        plan=plan,
        signals=seen.watched,
        unwatched=seen.unwatched,
        fitted=fitted,
        slow_seconds=seen.slow_seconds,
        limits=dict(seen.limits),
        decision_id=decision_id,
        by=by,
    )
    if dry_run:
        return rollout
    with store.atomic():
        refuse_another(store)
        store.append(rollout)
        store.append(_staged(rollout, 1, key=rollout.id, now=now))
    logger.info("%s gets %.0f %% of users", challenger.label, 100 * plan.stages[0].share)
    return rollout


def _refuse(store: EventStore, champion: Variant, challenger: Variant) -> None:
    if _same(champion, challenger):
        raise InvalidInputError(
            f"a challenger must differ from the champion, got {challenger.version} twice; "
            "give it another version or system prompt"
        )
    stopped = {stop.id for stop in store.records(RolloutStop) if stop.person}
    for earlier in store.records(Rollout):
        if earlier.id in stopped and _same(earlier.challenger, challenger):
            raise InvalidInputError(
                f"a person's stop is final, got {challenger.version} again; register what you "
                "changed as a new version"
            )


def _same(one: Variant, other: Variant) -> bool:
    return (one.version, one.system_prompt) == (other.version, other.system_prompt)


def _arm(variant: Variant, name: str) -> Variant:
    return variant.model_copy(update={"name": name, "share": 1.0})


def _previous(store: EventStore) -> str | None:
    routing = current_routing(store)
    return None if routing is None else routing.previous


def _staged(rollout: Rollout, stage: int, *, key: str, now: datetime) -> Routing:
    share = rollout.plan.stages[stage - 1].share
    return Routing(
        id=derive_id("routing", key),
        created_at=now,
        experiment=rollout.id,
        variants=(
            rollout.challenger.model_copy(update={"share": share}),
            rollout.champion.model_copy(update={"share": 1.0 - share}),
        ),
        previous=rollout.champion.version,  # answers where the challenger errors or stalls
        reason=f"rollout, stage {stage} of {len(rollout.plan.stages)}",
    )


# Looking ------------------------------------------------------------------------------------------


def take_look(store: EventStore, rollout: Rollout, now: datetime) -> RolloutLook:
    """Look at a running rollout and store what is decided; looking again finds the same.

    Args:
        store: The store.
        rollout: The rollout.
        now: The time; looks within one minute are one look.

    Raises:
        ConflictError: The rollout has ended.
    """
    moment = datetime.fromtimestamp(now.timestamp() // LOOK_SECONDS * LOOK_SECONDS, UTC)
    key = derive_id("look", rollout.id, moment.isoformat())
    stored = store.get(RolloutLook, key)
    if stored is not None:
        return stored
    starts = stage_starts(store, rollout)
    if not starts or running_rollout(store) != rollout:
        raise ConflictError("only a running rollout is looked at, got one that has ended")
    until = moment - timedelta(seconds=rollout.plan.lag_seconds)
    tally = _tally(store, rollout, starts, until)
    judged = judge(rollout, tally, starts=starts, until=until)
    stage, before = len(starts), last_look(store, rollout)
    look = RolloutLook(
        id=key,
        created_at=now,
        rollout_id=rollout.id,
        model_version=rollout.challenger.version,
        number=1 if before is None else before.number + 1,
        until=until,
        stage=stage,
        share=rollout.plan.stages[stage - 1].share,
        decision=judged.decision,
        reasons=judged.reasons,
        sample_ratio=judged.sample_ratio,
        readouts=judged.readouts,
        interactions=tally.interactions,
    )
    store.append(look)
    return look


def stage_starts(store: EventStore, rollout: Rollout) -> tuple[datetime, ...]:
    """Return when each stage so far began, in the order in which they did."""
    routings = store.records(Routing, after=rollout)
    return tuple(item.created_at for item in routings if item.experiment == rollout.id)


def _tally(
    store: EventStore, rollout: Rollout, starts: Sequence[datetime], until: datetime
) -> Tally:
    settle = timedelta(seconds=rollout.plan.settle_seconds)
    ends = [*starts[1:], until]
    return read_tally(
        store,
        [Period(start + settle, min(end, until)) for start, end in zip(starts, ends, strict=True)],
        experiment=rollout.id,
        arms=(CHAMPION, CHALLENGER),
        versions=(rollout.champion.version, rollout.challenger.version),
        lag=timedelta(seconds=rollout.plan.lag_seconds),
        slow_seconds=rollout.slow_seconds,
        limits=rollout.limits,
        signals=[signal.name for signal in rollout.signals],
    )


# The rule -----------------------------------------------------------------------------------------


def judge(
    rollout: Rollout, tally: Tally, *, starts: Sequence[datetime], until: datetime
) -> LookResult:
    """Decide by the rule alone; the same counts give the same decision.

    Args:
        rollout: The rollout, whose plan is the rule.
        tally: What users met, with a stage for each of `starts`.
        starts: When each stage so far began; the last one is the current one.
        until: Answers given before this were counted.
    """
    plan, number = rollout.plan, len(starts)
    stage = plan.stages[number - 1]
    shares = [[item.share] for item in plan.stages[:number]]
    ratio = check_ratio(tally, shares, error=plan.ratio_error, imbalance=stage.imbalance)
    if ratio.broken:
        return LookResult("abort", (_broken(ratio, stage),), ratio, ())
    errors = Errors.shared(plan.harm_error, plan.pass_error, len(rollout.signals))
    readouts = tuple(
        read_signal(
            tally, 1, signal, shares, errors,
            slack=stage.slack, ready=ratio.ready, minimum_users=plan.minimum_users,
        )
        for signal in rollout.signals
    )  # fmt: skip
    harm = tuple(_harm(readout, stage.share) for readout in readouts if readout.says == "harm")
    if harm:
        return LookResult("abort", harm, ratio, readouts)
    lacking = _lacking(rollout, tally, ratio, readouts, starts=starts, until=until)
    if not lacking:
        last = number == len(plan.stages)
        if last:
            ratio = final_ratio(ratio, one_look_p_value(arm_groups(tally.seen, shares)[0]), plan)
            if ratio.broken:
                return LookResult("abort", (_broken(ratio, stage),), ratio, ())
        passed = "every signal is shown to be no worse by its margin"
        return LookResult("promote" if last else "advance", (passed,), ratio, readouts)
    if until - rollout.created_at >= timedelta(days=plan.maximum_days):
        undecided = f"no verdict within {plan.maximum_days:g} days"
        return LookResult("expire", (undecided, *lacking), ratio, readouts)
    return LookResult("wait", lacking, ratio, readouts)


def _lacking(
    rollout: Rollout,
    tally: Tally,
    ratio: SampleRatio,
    readouts: Sequence[Readout],
    *,
    starts: Sequence[datetime],
    until: datetime,
) -> tuple[str, ...]:
    """Say what is missing for the next stage."""
    plan = rollout.plan
    stage = plan.stages[len(starts) - 1]
    lacking = []
    hours = (until - starts[-1]) / timedelta(hours=1)
    if hours < stage.hours:
        lacking.append(f"{max(hours, 0.0):.1f} of {stage.hours:g} hours in this stage")
    for arm, latest in zip(tally.arms, tally.latest, strict=True):
        silent = until - (latest or starts[0])
        if silent > timedelta(hours=plan.fresh_hours):
            lacking.append(
                f"no answer of the {arm} for {plan.fresh_hours:g} hours, so nothing is shown of it"
            )
        elif latest is None:
            lacking.append(
                f"no answer of the {arm} yet that is {plan.lag_seconds / 60:g} minutes old, from "
                "when on it counts, so nothing is shown of it"
            )
    if not ratio.ready:
        met = sum(ratio.users.values())
        lacking.append(f"{met:,} users are too few to trust the assignment, so no rate is read")
        return tuple(lacking)
    for readout in readouts:
        if readout.says != "passes":
            lacking.append(_open(readout))
    if plan.must_improve and len(starts) == len(plan.stages):
        primary = next(signal.name for signal in rollout.signals if signal.primary)
        upper = next(item.upper for item in readouts if item.signal == primary)
        if upper is None or upper >= 0.0:
            lacking.append(f"{words_of(primary)} are not shown to be fewer")
    return tuple(lacking)


def _broken(ratio: SampleRatio, stage: RolloutStage) -> str:
    met = ", ".join(f"{count:,} with the {arm}" for arm, count in ratio.users.items())
    if ratio.moved:
        return f"the assignment is broken: {counted(ratio.moved, 'user')} changed arms ({met})"
    evidence = f"log evidence {ratio.log_evidence:.1f}, threshold {ratio.log_threshold:.1f}"
    if ratio.fails_final_test:
        evidence = final_words(ratio)
    return f"the assignment is broken: {met}, at a share of {stage.share:.0%}; {evidence}"


def _harm(readout: Readout, share: float) -> str:
    name, rates = words_of(readout.signal), ""
    if readout.rates is not None:
        rates = (
            f"{name} {readout.rates[1]:.1%} against {readout.rates[0]:.1%} with the champion, "
            f"{_points(readout)}"
        )
        if readout.lower is not None and readout.lower > 0.0:
            return f"harm: {rates}"
    alarm = (
        f"harm: users with {name} have the challenger more often than its share of {share:.0%} "
        f"(log evidence {readout.log_alarm:.1f}, threshold {readout.alarm_threshold:.1f})"
    )
    return f"{alarm}; {rates}" if rates else alarm


def _open(readout: Readout) -> str:
    name = words_of(readout.signal)
    if readout.says == "no data":
        return f"{name}: nothing is known of the challenger's answers"
    if readout.says == "uneven":
        return f"{name}: known of another share of the challenger's answers than of the champion's"
    if readout.difference is None:
        fewest = min(readout.control[2], readout.variant[2])
        return f"{name}: known of {fewest:,} users only"
    return f"{name}: a rise of {readout.margin:.1%} is not excluded yet, {_points(readout)}"


def _points(readout: Readout) -> str:
    values = (readout.difference, readout.lower, readout.upper)
    one, low, high = (100 * (value or 0.0) for value in values)
    return f"{one:+.1f} points ({low:+.1f} to {high:+.1f})".replace("-", "−")


# Acting -------------------------------------------------------------------------------------------


def act_on(
    store: EventStore, look: RolloutLook, now: datetime, *, answering: Answering | None = None
) -> AliasMove | None:
    """Do what a stored look decided, once, if nothing ended the rollout since.

    More users are only given to a challenger that answers: until it does, the stage stays.

    Args:
        store: The store.
        look: The look.
        now: The time.
        answering: What the challenger has to answer by.

    Returns:
        What the registry is to be told after a promotion (`ratchet.deploy.routing.follow`).
    """
    if look.decision == "wait" or _to_act_on(store, look) is None:
        return None
    if look.decision in ("advance", "promote") and _silent(store, look, now, answering):
        return None
    with store.atomic():
        rollout = _to_act_on(store, look)
        if rollout is None:
            return None
        if look.decision == "advance":
            store.append(_staged(rollout, look.stage + 1, key=look.id, now=now))
            return None
        if look.decision == "promote":
            return _promote(store, rollout, look, now)
        store.append(_given_back(rollout, f"rollout: {look.decision}", key=look.id, now=now))
        if look.decision == "abort":
            store.append(abort_alert(rollout, look, now))
    return None


def _to_act_on(store: EventStore, look: RolloutLook) -> Rollout | None:
    """Return the rollout of a look that was not acted on yet, where it still runs."""
    rollout = running_rollout(store)
    if rollout is None or rollout.id != look.rollout_id:
        return None
    return rollout if look.stage == len(stage_starts(store, rollout)) else None


def _silent(
    store: EventStore, look: RolloutLook, now: datetime, answering: Answering | None
) -> str | None:
    """Say why more users cannot be given to a challenger; kept for who asks."""
    champion = serving_champion(store)
    return refused(
        store, answering, look.model_version, step="stage", about=look.rollout_id,
        stands=champion.version if champion else look.model_version, now=now,
    )  # fmt: skip


def _promote(store: EventStore, rollout: Rollout, look: RolloutLook, now: datetime) -> AliasMove:
    release = Release(
        id=derive_id("release", look.id),
        created_at=now,
        action="promote",
        champion=rollout.challenger.version,
        previous=rollout.champion.version,
        decision_id=rollout.decision_id,
        look_id=look.id,
    )
    return switch(store, release, variant=rollout.challenger, by="promotion", ends=False)


def _given_back(rollout: Rollout, reason: str, *, key: str, now: datetime) -> Routing:
    return for_all(rollout.champion, previous=rollout.previous, reason=reason, key=key, now=now)


def stop_rollout(
    store: EventStore, *, by: str, now: datetime, note: str = "", person: bool = True
) -> Rollout | None:
    """Give everybody back to the champion; None where nothing is rolled out. It is final.

    Args:
        store: The store.
        by: Who stops it.
        now: The time.
        note: Why.
        person: Whether it is a person who does; then the challenger is not rolled out again.
    """
    with store.atomic():
        rollout = running_rollout(store)
        if rollout is None:
            return None
        store.append(RolloutStop(id=rollout.id, created_at=now, by=by, person=person, note=note))
        store.append(_given_back(rollout, f"stopped by {by}", key=f"stop:{rollout.id}", now=now))
    logger.warning("%s is stopped by %s", rollout.challenger.version, by)
    return rollout


def outcome(store: EventStore, rollout: Rollout) -> str:
    """Return how a rollout stands: `running`, or how it ended."""
    if store.get(RolloutStop, rollout.id) is not None:
        return "stopped"
    look = last_look(store, rollout)
    if look is not None and look.decision in ENDED:
        return ENDED[look.decision]
    running = running_rollout(store)
    return "running" if running is not None and running.id == rollout.id else "ended"
