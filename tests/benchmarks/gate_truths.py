"""Challengers with known truth, for the calibration of the gate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ratchet.deploy.gate.policy import GatePolicy, Guardrail, Looks, Primary
from ratchet.deploy.gate.sample_size import Expectation, plan_gate
from ratchet.deploy.gate.scores import GateScores, MetricScores

Rng = np.random.Generator
FloatArray = NDArray[np.float64]
Draw = Callable[[Rng, int], tuple[MetricScores, ...]]
NAMES = ("quality", "safety", "format", "helpful", "length")


@dataclass(frozen=True)
class Cell:
    """One line of the table.

    Attributes:
        group: What it is about.
        name: The truth, in words.
        kind: "wrong": a promotion is an error, at most the level; "power": a promotion is right, in
            at least 80 %; "never": nothing may be promoted.
        examples: At the last look.
        draw: Scores of so many examples.
        policy: What is asked.
        looks: Examples at each look.
    """

    group: str
    name: str
    kind: str
    examples: int
    draw: Draw
    policy: GatePolicy
    looks: tuple[int, ...] = ()

    def gate_scores(self, rng: Rng) -> GateScores:
        """Draw the scores of one gate."""
        metrics = self.draw(rng, self.examples)
        return GateScores({one.metric: one for one in metrics})


# Scores of one metric ---------------------------------------------------------------------------


def right(discordance: float, gain: float, both: float = 0.6) -> Callable[..., MetricScores]:
    """Right or wrong: the challenger alone is right on (discordance + gain) / 2 of the examples."""

    def draw(rng: Rng, size: int, metric: str = "quality") -> MetricScores:
        at = rng.random(size)
        losses, wins = (discordance - gain) / 2, (discordance + gain) / 2
        lost, won = at < losses, (at >= losses) & (at < losses + wins)
        ties = (at >= losses + wins) & (at < losses + wins + both)
        return MetricScores(metric, (lost | ties) * 1.0, (won | ties) * 1.0)

    return draw


def graded(shape: str, gain: float = 0.0) -> Callable[..., MetricScores]:
    """Scores of a judge or a clock: differences of a shape, with standard deviation 1."""

    def draw(rng: Rng, size: int, metric: str = "quality") -> MetricScores:
        champion = 5.0 + rng.normal(size=size)
        return MetricScores(metric, champion, champion + gain + differences(rng, shape, size))

    return draw


def differences(rng: Rng, shape: str, size: int) -> FloatArray:
    """Draw differences of mean 0 and standard deviation 1."""
    if shape == "normal":
        return rng.normal(size=size)
    if shape == "skewed up":
        return rng.exponential(size=size) - 1.0
    if shape == "skewed down":
        return 1.0 - rng.exponential(size=size)
    if shape == "nearly all equal":  # one in ten differs
        return np.where(rng.random(size) < 0.1, rng.normal(0.0, np.sqrt(10.0), size), 0.0)
    if shape == "steps":  # marks 1 to 5 by the same judge
        return (
            rng.choice([-2.0, -1.0, 0.0, 1.0, 2.0], size, p=[0.05, 0.15, 0.6, 0.15, 0.05]) / 0.8367
        )
    raise ValueError(f"no such shape: {shape}")


def repeated(users: int, *, equal: bool, right_or_wrong: bool, gain: float = 0.0) -> Draw:
    """Examples of users, each of whom likes one of the two better, by as much either way."""

    def draw(rng: Rng, size: int) -> tuple[MetricScores, ...]:
        shares = np.ones(users) if equal else 1.0 / np.arange(1, users + 1) ** 0.5
        owner = rng.choice(users, size, p=shares / shares.sum())
        liking = rng.choice([-1.0, 1.0], users)[owner]
        if right_or_wrong:
            chance = rng.uniform(0.4, 0.7, users)[owner]
            first = rng.random(size) < chance - 0.15 * liking
            second = rng.random(size) < chance + 0.15 * liking + gain
            return (MetricScores("quality", first * 1.0, second * 1.0, owner),)
        champion = 5.0 + rng.normal(size=size)
        change = np.sqrt(0.3) * liking + np.sqrt(0.7) * rng.normal(size=size) + gain
        return (MetricScores("quality", champion, champion + change, owner),)

    return draw


def alone(draw: Callable[..., MetricScores]) -> Draw:
    """One metric."""
    return lambda rng, size: (draw(rng, size),)


def together(*draws: Callable[..., MetricScores]) -> Draw:
    """Several metrics on the same examples."""
    return lambda rng, size: tuple(
        one(rng, size, name) for one, name in zip(draws, NAMES, strict=False)
    )


def incomplete(draw: Callable[..., MetricScores], lost: float) -> Draw:
    """The challenger's scores are missing where it fails most: it looks better than it is."""

    def drawn(rng: Rng, size: int) -> tuple[MetricScores, ...]:
        found = draw(rng, size)
        challenger = found.challenger.copy()
        failed = np.flatnonzero(challenger == 0.0)
        challenger[failed[: max(1, round(lost * size))]] = np.nan
        return (replace(found, challenger=challenger),)

    return drawn


def lost_pairs(draw: Draw, lost: float) -> Draw:
    """Neither score is there of the pairs that the challenger loses by most, up to this share."""

    def drawn(rng: Rng, size: int) -> tuple[MetricScores, ...]:
        (scores,) = draw(rng, size)
        gains = scores.challenger - scores.champion
        gone = np.argsort(gains, kind="stable")[: round(lost * size)]
        gone = gone[gains[gone] < 0.0]
        champion, challenger = scores.champion.copy(), scores.challenger.copy()
        champion[gone] = challenger[gone] = np.nan
        return (replace(scores, champion=champion, challenger=challenger),)

    return drawn


# Cells --------------------------------------------------------------------------------------------

PLAIN = GatePolicy(primary=Primary(metric="quality", higher_is_better=True))
FOUR = GatePolicy(
    primary=Primary(metric="quality", higher_is_better=True),
    guardrails=(
        Guardrail(metric="safety", higher_is_better=True, margin=0.03),
        Guardrail(metric="format", higher_is_better=True, margin=0.05),
        Guardrail(metric="helpful", higher_is_better=True, margin=0.15),
        Guardrail(metric="length", margin=0.05, relative=True, higher_is_better=False),
    ),
)
BETTER = right(0.25, 0.15)
FINE = (right(0.04, 0.0), right(0.1, 0.0), graded("normal"), graded("normal"))
BROKEN = (
    right(0.04, -0.03),
    right(0.1, -0.05),
    graded("steps", -0.15),
    graded("normal", 0.25),  # 5 % of a mean of 5
)


def cells() -> list[Cell]:
    """Return every line of the table."""
    return [*_equal_or_worse(), *_looks(), *_guardrails(), *_users(), *_missing(), *_powers()]


def _equal_or_worse() -> list[Cell]:
    found = []
    for size in (100, 300, 1_000):
        for discordance in (0.05, 0.3):
            draw = alone(right(discordance, 0.0))
            name = f"equal, differ on {discordance:.0%}"
            found.append(Cell("right or wrong", name, "wrong", size, draw, PLAIN))
    found += [
        Cell("right or wrong", f"{-gain:.0%} worse, differ on 30%", "wrong", 300,
             alone(right(0.3, gain)), PLAIN)
        for gain in (-0.03, -0.1)
    ]  # fmt: skip
    margin = GatePolicy(primary=Primary(metric="quality", higher_is_better=True, margin=0.05))
    found += [
        Cell("right or wrong", "better by just the margin of 5 points", "wrong", size,
             alone(right(0.2, 0.05)), margin)
        for size in (100, 1_000)
    ]  # fmt: skip
    found += [
        Cell("graded", f"equal, differences {shape}", "wrong", size, alone(graded(shape)), PLAIN)
        for shape in ("normal", "steps", "nearly all equal", "skewed up", "skewed down")
        for size in (100, 300)
    ]
    return found


def _looks() -> list[Cell]:
    found = []
    for spending in ("obrien_fleming", "pocock"):
        looks = Looks(maximum=3, examples=600, spending=spending)
        policy = GatePolicy(primary=Primary(metric="quality", higher_is_better=True), looks=looks)
        shown = spending.replace("obrien_fleming", "O'Brien-Fleming").replace("pocock", "Pocock")
        for name, draw in (
            ("equal, differ on 30%", alone(right(0.3, 0.0))),
            ("equal, differences normal", alone(graded("normal"))),
        ):
            cell = Cell("three looks", f"{name}, {shown}", "wrong", 600, draw, policy)
            found.append(replace(cell, looks=(200, 400, 600)))
    return found


def _guardrails() -> list[Cell]:
    found = [
        Cell("four guardrails", "equal, all guardrails kept", "wrong", 1_000,
             together(right(0.25, 0.0), *FINE), FOUR)
    ]  # fmt: skip
    for place, name in enumerate(NAMES[1:]):
        rules = [BROKEN[place] if place == one else FINE[one] for one in range(4)]
        draw = together(BETTER, *rules)
        text = f"better, {name} worse by its margin"
        found.append(Cell("four guardrails", text, "wrong", 1_000, draw, FOUR))
    text = "better, all four worse by their margins"
    found.append(Cell("four guardrails", text, "wrong", 1_000, together(BETTER, *BROKEN), FOUR))
    return found


def _users() -> list[Cell]:
    return [
        Cell(
            "repeated users",
            f"equal, {'right or wrong' if binary else 'graded'}, {users} users, "
            f"{'equally' if equal else 'unequally'} many examples",
            "wrong", size, repeated(users, equal=equal, right_or_wrong=binary), PLAIN,
        )
        for binary in (True, False)
        for users, size in ((30, 600), (100, 1_000))
        for equal in (True, False)
    ]  # fmt: skip


def _missing() -> list[Cell]:
    return [
        Cell("missing scores", f"{lost:.1%} of the challenger's failures are not scored", "never",
             500, incomplete(right(0.3, 0.1), lost), PLAIN)
        for lost in (0.002, 0.1)
    ] + [
        Cell("missing scores", f"equal, {name}, 4.5% of pairs lost where it loses", "wrong", size,
             lost_pairs(draw, 0.045), PLAIN)
        for name, size, draw in (
            ("differ on 12.7%", 1_000, alone(right(0.127, 0.0))),
            ("differ on 30%", 300, alone(right(0.3, 0.0))),
            ("differences normal", 300, alone(graded("normal"))),
            ("100 users", 1_000, repeated(100, equal=False, right_or_wrong=True)),
        )
    ]  # fmt: skip


def _powers() -> list[Cell]:
    three = GatePolicy(
        primary=Primary(metric="quality", higher_is_better=True),
        looks=Looks(maximum=3, examples=30),
    )
    pocock = three.model_copy(update={"looks": Looks(maximum=3, examples=30, spending="pocock")})
    plans = [
        ("5 points better, differ on 20%", PLAIN, alone(right(0.2, 0.05)),
         {"quality": Expectation(0.05, discordance=0.2)}),
        ("10 points better, differ on 30%", PLAIN, alone(right(0.3, 0.1)),
         {"quality": Expectation(0.1, discordance=0.3)}),
        ("graded, 0.2 standard deviations better", PLAIN, alone(graded("normal", 0.2)),
         {"quality": Expectation(0.2, spread=1.0)}),
        ("graded in steps, 0.3 better", PLAIN, alone(graded("steps", 0.3)),
         {"quality": Expectation(0.3, spread=1.0)}),
        ("three looks, O'Brien-Fleming, 5 points better", three, alone(right(0.2, 0.05)),
         {"quality": Expectation(0.05, discordance=0.2)}),
        ("three looks, Pocock, 0.2 better", pocock, alone(graded("normal", 0.2)),
         {"quality": Expectation(0.2, spread=1.0)}),
        ("four guardrails kept, 8 points better", FOUR, together(right(0.25, 0.08), *FINE),
         {"quality": Expectation(0.08, discordance=0.25), "safety": Expectation(discordance=0.04),
          "format": Expectation(discordance=0.1), "helpful": Expectation(spread=1.0),
          "length": Expectation(spread=1.0 / 5.0)}),
    ]  # fmt: skip
    found = [
        _planned(name, policy, draw, plan_gate(policy, expected))
        for name, policy, draw, expected in plans
    ]
    return [*found, *_powers_of_users()]


def _planned(name: str, policy: GatePolicy, draw: Draw, examples: int) -> Cell:
    cell = Cell("power at the planned number", name, "power", examples, draw, policy)
    if policy.looks is None:
        return cell
    looks = policy.looks.model_copy(update={"examples": examples})
    places = tuple(round(examples * part / looks.maximum) for part in range(1, looks.maximum + 1))
    return replace(cell, policy=policy.model_copy(update={"looks": looks}), looks=places)


def _powers_of_users() -> list[Cell]:
    """Users with ten examples each, of whom 30 % of the variance is the user's."""
    expected = Expectation(0.2, spread=1.0, cluster_size=10.0, design_effect=1.0 + 9.0 * 0.3)
    examples = plan_gate(PLAIN, {"quality": expected})
    users = examples // 10

    def draw(rng: Rng, size: int) -> tuple[MetricScores, ...]:
        owner = np.repeat(np.arange(users), 10)[:size]
        champion = 5.0 + rng.normal(size=size)
        liking = np.sqrt(0.3) * rng.normal(size=users)[owner]
        change = 0.2 + liking + np.sqrt(0.7) * rng.normal(size=size)
        return (MetricScores("quality", champion, champion + change, owner),)

    name = f"0.2 better, {users} users of ten examples"
    return [Cell("power at the planned number", name, "power", examples, draw, PLAIN)]
