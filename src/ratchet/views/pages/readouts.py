"""Read-out pages: a test of variants, or a rollout, with every interval drawn beside its numbers.

page = variants_page(test, readout, now=now)
page = rollout_page(rollout, look, outcome, now=now, events=timeline(...))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ratchet.files.text import counted
from ratchet.records import (
    Readout,
    Rollout,
    RolloutLook,
    SampleRatio,
    Variant,
    VariantReadout,
    VariantTest,
)
from ratchet.views.pages.rendering import render
from ratchet.views.words import LOOKS, READOUTS, words_of

_WIDTH = 1_000.0
_REACH = 1.5
"""The axis ends at this many times the margin, or where the widest interval is shown whole."""


@dataclass(frozen=True, slots=True)
class Row:
    """One signal of one variant, as the page shows it.

    Attributes:
        bar: Left end, dot and right end on a line of 1,000, None where nothing is read.
        margin: Place of what must be excluded on the same line.
    """

    arm: str
    control: str
    variant: str
    difference: str
    interval: str
    to_exclude: str
    says: str
    kind: str
    bar: tuple[float, float, float] | None
    margin: float


@dataclass(frozen=True, slots=True)
class Panel:
    """All variants' rows of one signal, on one axis."""

    title: str
    primary: bool
    reach: str
    rows: tuple[Row, ...]


def variants_page(test: VariantTest, readout: VariantReadout, *, now: datetime) -> str:
    """Return one HTML file about a test of variants that needs nothing else.

    Args:
        test: The test.
        readout: What was read last.
        now: When the page is made.
    """
    guarantee = (
        f"All intervals of all variants and signals hold together with at least "
        f"{1 - test.error:.0%}, however often one looks. The test does not say "
        "which of several better variants is the best."
    )
    return render(
        "readout",
        kicker=f"Test of variants · {test.name}",
        headline=readout.conclusion,
        facts=_facts(readout.interactions, readout.until, f"control {readout.control}"),
        arms=_arms(test.variants, readout.sample_ratio),
        ratio=_ratio(readout.sample_ratio),
        broken=readout.sample_ratio.broken,
        panels=_panels(readout.readouts, [item.name for item in test.signals if item.primary]),
        reasons=(),
        events=(),
        guarantee=guarantee,
        made=f"{now:%F %H:%M} UTC",
    )


def rollout_page(
    rollout: Rollout,
    look: RolloutLook | None,
    outcome: str,
    *,
    now: datetime,
    events: Sequence[str] = (),
) -> str:
    """Return one HTML file about a rollout that needs nothing else.

    Args:
        rollout: The rollout.
        look: Its last look, None before the first.
        outcome: How it stands.
        now: When the page is made.
        events: What happened, a line each (`ratchet.views.text.rollouts.rollout_events`).
    """
    share = rollout.plan.stages[0].share if look is None else look.share
    arms = (
        rollout.challenger.model_copy(update={"share": share}),
        rollout.champion.model_copy(update={"share": 1.0 - share}),
    )
    stage = 1 if look is None else look.stage
    facts = _facts(
        0 if look is None else look.interactions,
        rollout.created_at if look is None else look.until,
        f"stage {stage} of {len(rollout.plan.stages)}",
    )
    errors = rollout.plan.largest_error
    return render(
        "readout",
        kicker=f"Rollout of {rollout.challenger.version}",
        headline=f"{rollout.challenger.version} at {share:.0%} of users: {outcome}",
        facts=facts,
        arms=_arms(arms, None if look is None else look.sample_ratio),
        ratio="" if look is None else _ratio(look.sample_ratio),
        broken=look is not None and look.sample_ratio.broken,
        panels=_panels(
            () if look is None else look.readouts,
            [item.name for item in rollout.signals if item.primary],
        ),
        reasons=()
        if look is None
        else (f"Look {look.number}: {LOOKS[look.decision]}", *look.reasons),
        events=tuple(events),
        guarantee=(
            f"A release that does no harm is stopped in at most {errors:.0%} of rollouts, one that "
            f"is worse by more than a margin passes a stage that tests it in at most "
            f"{rollout.plan.pass_error:.0%}, however many looks are taken."
        ),
        made=f"{now:%F %H:%M} UTC",
    )


def _facts(interactions: int, until: datetime, third: str) -> tuple[tuple[str, str], ...]:
    name, _, value = third.partition(" ")
    return (
        ("Answers read", f"{interactions:,}"),
        ("Up to", f"{until:%F %H:%M} UTC"),
        (name.capitalize(), value),
    )


def _arms(
    variants: Sequence[Variant], ratio: SampleRatio | None
) -> tuple[tuple[str, str, str, str, str], ...]:
    """Return name, version, prompt, share and users of each arm."""
    users = {} if ratio is None else ratio.users
    return tuple(
        (
            item.label,
            item.version,
            "the application's" if item.system_prompt is None else "its own",
            f"{item.share:.0%}",
            f"{users[item.label]:,}" if item.label in users else "–",
        )
        for item in variants
    )


def _ratio(ratio: SampleRatio) -> str:
    shown = f"{ratio.log_evidence:.1f}".replace("-", "−")
    evidence = f"log evidence {shown} of the {ratio.log_threshold:.1f} needed"
    if ratio.broken:
        moved = f"; {counted(ratio.moved, 'user')} changed arms" if ratio.moved else ""
        if ratio.fails_final_test:
            moved += f"; chi-square test at the end, p = {ratio.final_p_value:.2g}"
        return f"The assignment is broken ({evidence}{moved}), so no rate is read."
    if not ratio.ready:
        return (
            f"Users fall into the arms as agreed so far, but are too few to be sure ({evidence})."
        )
    return f"Users fall into the arms as agreed ({evidence})."


def _panels(readouts: Sequence[Readout], primary: Sequence[str]) -> tuple[Panel, ...]:
    panels = []
    for signal in dict.fromkeys(item.signal for item in readouts):
        own = [item for item in readouts if item.signal == signal]
        ends = [abs(end) for item in own for end in (item.lower, item.upper) if end is not None]
        reach = max([_REACH * item.margin for item in own] + ends)
        panels.append(
            Panel(
                title=words_of(signal),
                primary=signal in primary,
                reach=f"{100 * reach:.1f}",
                rows=tuple(_row(item, reach) for item in own),
            )
        )
    return tuple(panels)


def _row(item: Readout, reach: float) -> Row:
    control, variant = (f"{part[0]:,} of {part[1]:,}" for part in (item.control, item.variant))
    difference, interval, bar = "not read", "", None
    if item.rates is not None:
        control = f"{item.rates[0]:.1%} ({control})"
        variant = f"{item.rates[1]:.1%} ({variant})"
    low, high, middle = item.lower, item.upper, item.difference
    if low is not None and high is not None and middle is not None:
        difference = _points(middle)
        interval = f"{_points(low)} to {_points(high)}"
        bar = (_place(low, reach), _place(middle, reach), _place(high, reach))
    return Row(
        arm=item.arm,
        control=control,
        variant=variant,
        difference=difference,
        interval=interval,
        to_exclude=_points(item.margin),
        says=READOUTS[item.says],
        kind=item.says.replace(" ", "-"),
        bar=bar,
        margin=_place(item.margin, reach),
    )


def _place(value: float, reach: float) -> float:
    return round(_WIDTH * (0.5 + 0.5 * value / reach), 1)


def _points(value: float) -> str:
    return f"{100 * value:+.2f}".replace("-", "−")
