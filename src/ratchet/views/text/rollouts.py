"""Rollouts and tests of variants in words: Markdown, and plain text for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ratchet.files.text import cell, counted, one_line
from ratchet.records import (
    Readout,
    Release,
    Rollout,
    RolloutLook,
    RolloutStop,
    SampleRatio,
    Variant,
    VariantReadout,
    VariantTest,
)
from ratchet.views.words import LOOKS, READOUTS, RELEASES, words_of


def rollout_markdown(rollout: Rollout, look: RolloutLook | None, outcome: str) -> str:
    """Write a rollout with its last look as Markdown.

    Args:
        rollout: The rollout.
        look: Its last look, None before the first.
        outcome: How it stands.
    """
    lines = [
        f"# Rollout of {cell(_named(rollout.challenger))}: {cell(outcome)}",
        "",
        f"Against {cell(_named(rollout.champion))}, begun {rollout.created_at:%F %H:%M} UTC.",
        "",
    ]
    if look is None:
        return "\n".join([*lines, "No look was taken yet.", ""])
    lines += [
        f"Look {look.number} at {look.until:%F %H:%M} UTC, stage {look.stage} of "
        f"{len(rollout.plan.stages)} ({look.share:.0%} of users), "
        f"{counted(look.interactions, 'answer')}: **{LOOKS[look.decision]}**",
        "",
        *[f"- {cell(reason)}" for reason in look.reasons],
        "",
        *_ratio(look.sample_ratio),
        "",
        *_table(look.readouts, variants=False),
    ]
    if rollout.unwatched:
        lines += ["", "Not watched:", ""]
        lines += [f"- {cell(name)}: {cell(reason)}" for name, reason in rollout.unwatched]
    if rollout.fitted:
        lines += ["", "The plan was changed to suit the number of users:", ""]
        lines += [f"- {cell(note)}" for note in rollout.fitted]
    lines += [
        "",
        f"A release that does no harm is stopped in at most {rollout.plan.largest_error:.0%} of "
        f"rollouts; one that is worse by more than a margin passes the stages that test it in at "
        f"most {rollout.plan.pass_error:.0%}, however many looks are taken.",
    ]
    return "\n".join(lines) + "\n"


def variants_markdown(test: VariantTest, readout: VariantReadout) -> str:
    """Write a test's read-out as Markdown."""
    shares = [
        f"| {cell(variant.label)} | {cell(variant.version)} "
        f"| {'its own' if variant.system_prompt is not None else 'the application’s'} "
        f"| {variant.share:.0%} | {readout.sample_ratio.users.get(variant.label, 0):,} |"
        for variant in test.variants
    ]
    return (
        "\n".join(
            [
                f"# Test of variants: {cell(test.name)}",
                "",
                f"**{cell(readout.conclusion)}**",
                "",
                f"{counted(readout.interactions, 'answer')} up to {readout.until:%F %H:%M} "
                "UTC; the control "
                f"is {cell(readout.control)}.",
                "",
                "| variant | version | system prompt | share | users |",
                "|---|---|---|---:|---:|",
                *shares,
                "",
                *_ratio(readout.sample_ratio),
                "",
                *_table(readout.readouts, variants=True),
                "",
                f"All intervals of all variants and signals hold together with at least "
                f"{1 - test.error:.0%}, at all looks. The test does not say "
                "which of several better variants is the best.",
            ]
        )
        + "\n"
    )


def rollout_events(
    rollout: Rollout,
    looks: Sequence[RolloutLook],
    stop: RolloutStop | None,
    releases: Sequence[Release] = (),
) -> list[str]:
    """Write what happened to a rollout, a line each, in order of time.

    Args:
        rollout: The rollout.
        looks: All of them; of those that waited the last one is told.
        stop: Who stopped it, if anybody did.
        releases: Changes of the champion, told from the start of the rollout on.
    """
    stages = rollout.plan.stages
    first = (
        f"{_named(rollout.challenger)} gets {stages[0].share:.0%} of users, "
        f"stage 1 of {len(stages)}"
    )
    events: list[tuple[datetime, str]] = [(rollout.created_at, first)]
    acted = [look for look in looks if look.decision != "wait"]
    if looks and looks[-1].decision == "wait":
        acted.append(looks[-1])
    for look in acted:
        action = _action(rollout, look)
        events.append((look.created_at, f"look {look.number}: {action}: {'; '.join(look.reasons)}"))
    if stop is not None:
        note = f": {stop.note}" if stop.note else ""
        events.append((stop.created_at, f"stopped by {stop.by}{note}"))
    for release in releases:
        if release.created_at >= rollout.created_at:
            events.append((release.created_at, f"{release.champion} {RELEASES[release.action]}"))
    ordered = sorted(events, key=lambda item: item[0])
    return [f"{moment:%F %H:%M:%S}  {one_line(text)}" for moment, text in ordered]


def _action(rollout: Rollout, look: RolloutLook) -> str:
    if look.decision == "advance":
        share = rollout.plan.stages[look.stage].share
        return f"advance to stage {look.stage + 1}, {share:.0%} of users"
    return LOOKS[look.decision]


def _named(variant: Variant) -> str:
    prompt = " with its own system prompt" if variant.system_prompt is not None else ""
    return f"{variant.version}{prompt}"


def _ratio(ratio: SampleRatio) -> list[str]:
    users = ", ".join(f"{count:,} with {cell(arm)}" for arm, count in ratio.users.items())
    if ratio.broken:
        state = (
            f"**broken** ({counted(ratio.moved, 'user')} changed arms)"
            if ratio.moved
            else "**broken**"
        )
        if ratio.fails_final_test:
            state += f" (chi-square test at the end, p = {ratio.final_p_value:.2g})"
    else:
        state = "as agreed" if ratio.ready else "as agreed so far; too few users to be sure"
    return [
        f"Users: {users}. Assignment: {state} (log evidence {ratio.log_evidence:.1f} of "
        f"{ratio.log_threshold:.1f})."
    ]


def _table(readouts: Sequence[Readout], *, variants: bool) -> list[str]:
    if not readouts:
        return ["No rate is read."]
    head = ["variant"] if variants else []
    head += [
        "bad answers", "control", "variant", "difference (points)", "allowed rise (points)",
        "log evidence of harm", "result",
    ]  # fmt: skip
    rows = [_row(item, variants=variants) for item in readouts]
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *rows]


def _row(item: Readout, *, variants: bool) -> str:
    difference = "–"
    rates = (f"{item.control[0]:,} of {item.control[1]:,}",
             f"{item.variant[0]:,} of {item.variant[1]:,}")  # fmt: skip
    if item.rates is not None:
        rates = (f"{item.rates[0]:.1%} ({rates[0]})", f"{item.rates[1]:.1%} ({rates[1]})")
        mean, low, high = (
            100 * (value or 0.0) for value in (item.difference, item.lower, item.upper)
        )
        difference = f"{mean:+.2f} ({low:+.2f} to {high:+.2f})".replace("-", "−")
    cells = [cell(item.arm)] if variants else []
    cells += [
        words_of(item.signal),
        *rates,
        difference,
        f"+{100 * item.margin:.1f}",
        f"{item.log_alarm:.1f} (harm from {item.alarm_threshold:.1f})",
        f"**{READOUTS[item.says]}**" if item.says == "harm" else READOUTS[item.says],
    ]
    return f"| {' | '.join(cells)} |"
