"""Tests of several variants at fixed shares (A/B/n): versions, system prompts, or both.

Each variant is compared with the control, which is the champion. Intervals are confidence
sequences: one may read out as often as one likes, and stop for any reason. All intervals of all
variants and signals hold together with probability at least 1 - error, each having its share of the
error (Bonferroni); which of several better variants is the best is not said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from ratchet.deploy.answering import Answering
from ratchet.deploy.elsewhere import refuse_elsewhere
from ratchet.deploy.rollout.canary import LOOK_SECONDS
from ratchet.deploy.rollout.evidence import (
    Errors,
    check_ratio,
    final_ratio,
    final_words,
    read_signal,
)
from ratchet.deploy.rollout.exposure_counts import Period, Tally, read_tally
from ratchet.deploy.routing import (
    CHAMPION,
    for_all,
    refuse_another,
    running_test,
    serving_champion,
    switch,
)
from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.records import (
    AliasMove,
    Readout,
    Release,
    Routing,
    SampleRatio,
    Variant,
    VariantReadout,
    VariantTest,
    VariantTestEnd,
    WatchedSignal,
    derive_id,
)
from ratchet.records.rollout import SIGNALS
from ratchet.records.signals import words_of
from ratchet.stats.experiments.sample_ratio import one_look_p_value_of_arms
from ratchet.store import EventStore

_SETTLE = timedelta(seconds=10)
"""Gateways follow a routing within this time; what was answered before is left out."""


def _refuse_beside(store: EventStore) -> None:
    """Refuse a test beside another, or of a champion that somebody else serves."""
    refuse_elsewhere(store, "a test of variants")
    refuse_another(store)


def start_test(
    store: EventStore,
    name: str,
    variants: Sequence[Variant],
    *,
    now: datetime,
    signals: Sequence[WatchedSignal] = SIGNALS,
    error: float = 0.05,
    imbalance: float = 11 / 9,
    slow_seconds: float | None = None,
    limits: Mapping[str, float] | None = None,
    by: str | None = None,
    answering: Answering | None = None,
    dry_run: bool = False,
) -> VariantTest:
    """Send users to variants at fixed shares; the champion is the control and has the rest.

    Args:
        store: The store.
        name: What people call the test.
        variants: With their shares, which sum to less than 1, and names of their own.
        now: The time.
        signals: What is compared.
        error: Of all intervals together.
        imbalance: Rates are read once odds of assignment that are wrong by this factor would have
            been found.
        slow_seconds: From when on an answer is slow; without it slowness is not compared.
        limits: The same of tokens (`many_tokens`) and cost (`costly`).
        by: Who starts it.
        answering: What every version has to answer by.
        dry_run: Whether the test that would begin is returned, and nothing stored.

    Raises:
        InsufficientDataError: There is no champion.
        InvalidInputError: Shares leave nothing to the control, or a variant is the control.
        NotAnsweringError: A version does not answer.
        ConflictError: Something else is in front of users already.
    """
    champion = serving_champion(store)
    _refuse_beside(store)
    if champion is None:
        raise InsufficientDataError("a test needs a champion as its control, got none")
    rest = _left_to(champion, variants)
    if answering is not None:
        for version in dict.fromkeys(variant.version for variant in variants):
            answering.require(version)
    control = champion.model_copy(update={"name": CHAMPION, "share": rest})
    test = VariantTest(
        id=derive_id("variant test", name, now.isoformat()),
        created_at=now,
        name=name,
        variants=(*variants, control),
        signals=tuple(signals),
        error=error,
        imbalance=imbalance,
        slow_seconds=slow_seconds,
        limits=dict(limits or {}),
        by=by,
    )
    if dry_run:
        return test
    routing = Routing(
        id=derive_id("routing", test.id),
        created_at=now,
        experiment=test.id,
        variants=test.variants,
        previous=champion.version,
        reason=f"test of variants {name!r}",
    )
    with store.atomic():
        refuse_another(store)
        store.append(test)
        store.append(routing)
    return test


def _left_to(control: Variant, variants: Sequence[Variant]) -> float:
    """Return the share that variants leave to the control.

    Raises:
        InvalidInputError: They leave none, or one is the control.
    """
    rest = 1.0 - sum(variant.share for variant in variants)
    if not variants or rest <= 1e-9:
        raise InvalidInputError(
            f"variants must leave a share to the control, got {len(variants)} with {rest:.0%} left"
        )
    for variant in variants:
        if (variant.version, variant.system_prompt) == (control.version, control.system_prompt):
            raise InvalidInputError(
                f"a variant must differ from the champion, got {variant.label}; give it another "
                "version or system prompt"
            )
    return rest


def read_test(store: EventStore, test: VariantTest, now: datetime) -> VariantReadout:
    """Compare the variants on what is ripe, and store it; within one minute it is the same.

    Args:
        store: The store.
        test: The test.
        now: The time.
    """
    moment = datetime.fromtimestamp(now.timestamp() // LOOK_SECONDS * LOOK_SECONDS, UTC)
    key = derive_id("read-out", test.id, moment.isoformat())
    stored = store.get(VariantReadout, key)
    if stored is not None:
        return stored
    end = store.get(VariantTestEnd, test.id)
    until = moment - timedelta(seconds=test.lag_seconds)
    until = until if end is None else min(until, end.created_at)
    *others, control = test.variants
    tally = read_tally(
        store,
        [Period(test.created_at + _SETTLE, until)],
        experiment=test.id,
        arms=[control.label, *(variant.label for variant in others)],
        versions=[control.version, *(variant.version for variant in others)],
        lag=timedelta(seconds=test.lag_seconds),
        slow_seconds=test.slow_seconds,
        limits=test.limits,
        signals=[signal.name for signal in test.signals],
    )
    ratio, readouts = compare_variants(test, tally, final=end is not None)
    better = _shown_better(test, readouts)
    worse = tuple(dict.fromkeys(item.arm for item in readouts if item.says == "harm"))
    readout = VariantReadout(
        id=key,
        created_at=now,
        test_id=test.id,
        until=until,
        control=control.label,
        sample_ratio=ratio,
        readouts=readouts,
        shown_better=better,
        shown_worse=worse,
        conclusion=_conclusion(test, ratio, readouts, better, worse),
        interactions=tally.interactions,
    )
    store.append(readout)
    return readout


def compare_variants(
    test: VariantTest, tally: Tally, *, final: bool = False
) -> tuple[SampleRatio, tuple[Readout, ...]]:
    """Check the assignment, then read each signal of each variant beside the control.

    Args:
        test: The test.
        tally: What users met.
        final: Whether no more users come, so that the assignment is tested once, by chi-square.
    """
    others = test.variants[:-1]
    shares = [[variant.share for variant in others]]
    ratio = check_ratio(tally, shares, error=test.ratio_error, imbalance=test.imbalance)
    if final:
        ratio = _at_the_end(test, ratio)
    if ratio.broken:
        return ratio, ()
    comparisons = len(others) * len(test.signals)
    errors = Errors.shared(test.error / 2.0, test.error / (2.0 * comparisons), comparisons)
    return ratio, tuple(
        read_signal(
            tally, place, signal, shares, errors,
            ready=ratio.ready, minimum_users=test.minimum_users,
        )
        for place in range(1, len(others) + 1)
        for signal in test.signals
    )  # fmt: skip


def end_test(
    store: EventStore,
    *,
    by: str,
    now: datetime,
    winner: str | None = None,
    note: str = "",
    answering: Answering | None = None,
    dry_run: bool = False,
) -> AliasMove | None:
    """End the running test: everybody gets the champion again, or a winner that was shown.

    Args:
        store: The store.
        by: Who ends it.
        now: The time.
        winner: Label of the variant that everybody gets.
        note: Why.
        answering: What a winner has to answer by.
        dry_run: Whether everything is checked, and nothing stored.

    Returns:
        What the registry is to be told where there is a winner.

    Raises:
        NotAnsweringError: The winner does not answer.
        InvalidInputError: No test runs, or the winner was not shown to be better and no worse.
    """
    running = running_test(store)
    if answering is not None and running is not None and winner is not None:
        for variant in running.variants:
            if variant.label == winner:
                answering.require(variant.version)
    with store.atomic():
        test = running_test(store)
        if test is None:
            raise InvalidInputError("only a running test can be ended, got none")
        control = test.variants[-1]
        if winner is not None:
            _refuse_unshown(store, test, winner)
        if dry_run:
            return None
        store.append(VariantTestEnd(id=test.id, created_at=now, by=by, winner=winner, note=note))
        if winner is None:
            release = store.latest(Release)
            back = for_all(
                control,
                previous=release.previous if release else None,
                reason="test ended",
                key=f"end:{test.id}",
                now=now,
            )
            store.append(back)
            return None
        chosen = next(variant for variant in test.variants if variant.label == winner)
        promoted = Release(
            id=derive_id("release", test.id),
            created_at=now,
            action="promote",
            champion=chosen.version,
            previous=control.version,
        )
        return switch(store, promoted, variant=chosen, by=by, ends=False)


def _at_the_end(test: VariantTest, ratio: SampleRatio) -> SampleRatio:
    """Add the one-look test of users by arm."""
    *others, control = test.variants
    shares = {variant.label: variant.share for variant in (control, *others)}
    users = [ratio.users.get(label, 0) for label in shares]
    return final_ratio(ratio, one_look_p_value_of_arms(users, list(shares.values())), test)


def _refuse_unshown(store: EventStore, test: VariantTest, winner: str) -> None:
    readouts = [item for item in store.records(VariantReadout) if item.test_id == test.id]
    last = readouts[-1] if readouts else None
    if last is None or winner not in last.shown_better or winner in last.shown_worse:
        raise InvalidInputError(
            f"a winner must be shown to be better and no worse in the last read-out, got "
            f"{winner!r}; read on, or end the test without a winner and roll it out"
        )
    ratio = _at_the_end(test, last.sample_ratio)
    if ratio.fails_final_test:
        met = ", ".join(f"{count:,} with {arm}" for arm, count in ratio.users.items())
        raise InvalidInputError(
            f"a winner needs users who fell into the arms as agreed, got {met} "
            f"({final_words(ratio)}); find out who is missing, then start a new test"
        )


def _shown_better(test: VariantTest, readouts: Sequence[Readout]) -> tuple[str, ...]:
    primary = next(signal.name for signal in test.signals if signal.primary)
    return tuple(
        item.arm
        for item in readouts
        if item.signal == primary and item.upper is not None and item.upper < 0.0
    )


def _conclusion(
    test: VariantTest,
    ratio: SampleRatio,
    readouts: Sequence[Readout],
    better: Sequence[str],
    worse: Sequence[str],
) -> str:
    if ratio.broken:
        why = f" ({final_words(ratio)})" if ratio.fails_final_test else ""
        return f"the assignment is broken{why}: nothing can be read from this test"
    if not ratio.ready:
        return "too few users to trust the assignment; no rate is read yet"
    primary = next(signal.name for signal in test.signals if signal.primary)
    sentences = [
        f"{item.arm} is worse: {words_of(item.signal)}" for item in readouts if item.says == "harm"
    ]
    good = [label for label in better if label not in worse]
    sentences += [f"{label} is better: fewer {words_of(primary)}" for label in good]
    others = [variant.label for variant in test.variants[:-1]]
    unknown = [label for label in others if label not in {*better, *worse}]
    if unknown:
        sentences.append(f"no difference is shown for {', '.join(unknown)}")
    return "; ".join(sentences)
