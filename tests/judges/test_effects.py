"""Biases planted into labelled verdicts come out as figures; where there are none, none do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import special

from ratchet.judges.effects import FIRST, SECOND, effect_figures, worth
from ratchet.judges.label_sets import LabelledVerdict
from ratchet.records import Figure

PAIR = ("1", "2", "tie")


def figures(rows: list[LabelledVerdict], family: str | None = None) -> dict[str, Figure]:
    found = effect_figures(rows, PAIR, family)
    assert len({figure.name for figure in found}) == len(found)
    return {figure.name: figure for figure in found}


def row(number: int, **changes: Any) -> LabelledVerdict:
    return LabelledVerdict(**{"item_id": str(number), "human": "1", "judge": "1"} | changes)


def holds(figure: Figure, value: float) -> bool:
    assert figure.value is not None
    assert figure.lower is not None
    assert figure.upper is not None
    assert figure.lower <= figure.value <= figure.upper
    return figure.lower <= value <= figure.upper


@pytest.mark.parametrize(
    ("label", "expected"),
    [("1", 1.0), ("2", 0.0), ("tie", 0.5), ("A", 1.0), ("b", 0.0), ("First", 1.0), ("Tie", 0.5)],
)
def test_a_winner_is_worth_1_for_the_first_answer_0_for_the_second_and_a_half_for_a_tie(
    label, expected
):
    assert worth(label) == expected


@pytest.mark.parametrize("label", [None, "", "3", "neither"])
def test_what_is_no_winner_is_worth_nothing_rather_than_0(label):
    assert math.isnan(worth(label))


def test_no_name_is_both_the_first_and_the_second_answer():
    assert not FIRST & SECOND


# Position ----------------------------------------------------------------------------------------


def positioned(by_content: int, by_place: int, *, to_first: bool = True) -> list[LabelledVerdict]:
    """Pairs judged by content in both orders, and pairs where the shown place decides.

    `swapped` names the winner by identity: whoever goes by place names the other one.
    """
    rows = [
        row(n, judge="12"[n % 2], swapped="12"[n % 2], both_orders=True) for n in range(by_content)
    ]
    by = ("1", "2") if to_first else ("2", "1")
    rows += [
        row(by_content + n, judge=by[0], swapped=by[1], both_orders=True) for n in range(by_place)
    ]
    return rows


def test_a_judge_that_goes_by_content_has_no_position_effect():
    found = figures(positioned(100, 0))
    assert found["position_effect"].value == 0.0
    assert holds(found["position_effect"], 0.0)
    assert "first_shown_among_disagreements" not in found  # there are none


@pytest.mark.parametrize(("to_first", "sign"), [(True, 1.0), (False, -1.0)])
def test_a_planted_preference_for_a_position_is_recovered(to_first, sign):
    # Of 100 pairs 40 go to the place: it wins (60 / 2 + 40) / 100 = 0.7 of them, 0.2 above a half.
    found = figures(positioned(60, 40, to_first=to_first))
    effect = found["position_effect"]
    assert effect.value == pytest.approx(sign * 0.2)
    assert not holds(effect, 0.0)
    assert effect.observations == 100
    share = found["first_shown_among_disagreements"]
    assert (share.value, share.observations) == (1.0 if to_first else 0.0, 40)


def test_a_judge_that_is_only_unsteady_has_no_position_effect():
    rows = positioned(0, 50) + [
        row(100 + n, judge="2", swapped="1", both_orders=True) for n in range(50)
    ]
    found = figures(rows)
    assert found["position_effect"].value == 0.0
    assert found["first_shown_among_disagreements"].value == 0.5


def test_pairs_without_a_verdict_in_one_order_do_not_count_for_the_position():
    rows = [*positioned(60, 40), *(row(n, swapped=None, both_orders=True) for n in range(200, 230))]
    found = figures(rows)["position_effect"]
    assert (found.value, found.observations) == (pytest.approx(0.2), 100)


def test_a_position_effect_without_any_pair_in_both_orders_is_undefined_with_its_reason():
    rows = [row(n, judge=None, swapped="1", both_orders=True) for n in range(5)]
    found = figures(rows)["position_effect"]
    assert (found.value, found.lower, found.upper, found.observations) == (None, None, None, 5)
    assert "needs a pair with a verdict in both orders, got none of 5" in (found.reason or "")


# Length ------------------------------------------------------------------------------------------


def lengthy(count: int, slope: float, seed: int = 0) -> list[LabelledVerdict]:
    """The judge's log odds rise by `slope` tanh of the log ratio of lengths; people do not look."""
    rng = np.random.default_rng(seed)
    first, second = (np.exp(rng.normal(6.0, 0.7, size=count)).round() for _ in range(2))
    gap = np.log(first + 1.0) - np.log(second + 1.0)
    wins = rng.random(count) < special.expit(slope * np.tanh(gap / gap.std()))
    people = rng.random(count) < 0.5
    return [
        row(n, judge="21"[int(won)], human="21"[int(liked)], lengths=(float(a), float(b)))
        for n, (won, liked, a, b) in enumerate(zip(wins, people, first, second, strict=True))
    ]


SEEDS = 40


@pytest.mark.parametrize("slope", [0.0, 2.0])
def test_planted_effects_of_length_are_in_their_intervals_as_often_as_those_say(slope):
    planted = {
        # At one standard deviation more the chance is expit(slope tanh 1), at equal length 1/2.
        "length_effect": float(special.expit(slope * np.tanh(1.0))) - 0.5,
        "length_controlled_win_rate": 0.5,
        "longest_answer_human": 0.5,
    }
    measured = [figures(lengthy(400, slope, seed)) for seed in range(SEEDS)]
    # Three standard errors of a binomial count of 40 at the nominal 0.95.
    fewest = SEEDS * 0.95 - 3.0 * (SEEDS * 0.95 * 0.05) ** 0.5
    for name, value in planted.items():
        assert sum(holds(found[name], value) for found in measured) >= fewest
    moved = sum(not holds(found["length_effect"], 0.0) for found in measured)
    assert moved == SEEDS if slope else moved <= SEEDS - fewest
    agreeing = np.mean([found["longest_answer_judge"].value or 0.0 for found in measured])
    assert agreeing > 0.7 if slope else abs(agreeing - 0.5) < 0.02
    assert {found["raw_win_rate"].observations for found in measured} == {400}


def test_exchanging_the_answers_of_all_pairs_turns_the_rates_around():
    rows = lengthy(300, 1.0)
    turned = [
        row(
            n,
            judge={"1": "2", "2": "1"}[str(old.judge)],
            human={"1": "2", "2": "1"}[old.human],
            lengths=(old.lengths or (0.0, 0.0))[::-1],
        )
        for n, old in enumerate(rows)
    ]
    one, other = figures(rows), figures(turned)
    for name in ("raw_win_rate", "length_controlled_win_rate"):
        assert one[name].value == pytest.approx(1.0 - (other[name].value or 0.0))
    for name in ("longest_answer_judge", "longest_answer_human"):
        assert one[name].value == pytest.approx(other[name].value)


def test_a_length_effect_of_few_pairs_is_undefined_with_its_reason():
    found = figures(lengthy(29, 1.0))["length_controlled_win_rate"]
    assert (found.value, found.observations) == (None, 29)
    assert "needs 30 pairs" in (found.reason or "")


def test_pairs_of_two_empty_answers_count_but_neither_answer_is_the_longer():
    rows = lengthy(100, 1.0)
    more = figures([*rows, *(row(n, lengths=(0.0, 0.0)) for n in range(200, 210))])
    assert more["raw_win_rate"].observations == 110
    longest = figures(rows)["longest_answer_judge"]
    assert more["longest_answer_judge"] == longest


def test_length_uses_the_verdict_of_both_orders_together():
    # Every pair is decided by place: all are ties, so that no length explains anything.
    rng = np.random.default_rng(0)
    rows = [
        row(n, judge="1", swapped="2", both_orders=True, lengths=(float(a), float(b)))
        for n, (a, b) in enumerate(rng.integers(1, 500, size=(100, 2)))
    ]
    found = figures(rows)
    length = found["length_controlled_win_rate"]
    assert length.value is None
    assert "got 0.5 for all 100 pairs" in (length.reason or "")


# Family ------------------------------------------------------------------------------------------


def families(kin: int, favoured: int, others: int) -> list[LabelledVerdict]:
    """`kin` pairs of the judge's family, half of which people like; `favoured` of the others win.

    In every other pair the own answer is the second one.
    """
    rows = []
    for n in range(kin):
        own, foreign = ("1", "2") if n % 2 else ("2", "1")
        people = own if n % 4 < 2 else foreign
        lost = [m for m in range(kin) if m % 4 >= 2]
        judge = own if n in lost[:favoured] else people
        pair = ("llama", "gpt") if n % 2 else ("gpt", "llama")
        rows.append(row(n, human=people, judge=judge, families=pair))
    for n in range(others):
        winner = "12"[n % 2]
        rows.append(row(kin + n, human=winner, judge=winner, families=("gpt", "qwen")))
    return rows


def test_a_planted_preference_for_the_own_family_is_recovered():
    found = figures(families(200, 60, 200), "llama")
    # The judge gives its family 60 of 200 wins more than people do.
    assert found["self_preference"].value == pytest.approx(0.3)
    assert not holds(found["self_preference"], 0.0)
    assert found["self_preference"].observations == 200
    over = found["self_preference_over_others"]
    assert (over.value, over.observations) == (pytest.approx(0.3), 400)


def test_a_judge_that_agrees_with_people_does_not_prefer_its_family():
    found = figures(families(200, 0, 200), "llama")
    assert found["self_preference"].value == 0.0
    assert holds(found["self_preference"], 0.0)


def test_pairs_of_two_own_answers_count_among_the_others():
    rows = [*families(40, 0, 0), *(row(100 + n, families=("llama", "llama")) for n in range(10))]
    found = figures(rows, "llama")
    assert found["self_preference"].observations == 40
    assert found["self_preference_over_others"].observations == 50


def test_a_family_that_wrote_no_answer_is_undefined_with_its_reason():
    found = figures(families(40, 0, 10), "mistral")["self_preference"]
    assert (found.value, found.observations) == (None, 50)
    assert "needs 2 pairs with an answer of the judge's family" in (found.reason or "")


def test_without_the_judge_s_family_nothing_is_said_of_it():
    assert figures(families(40, 10, 10)) == {}


# What is measured --------------------------------------------------------------------------------


def test_grades_are_no_winners_of_pairs():
    rows = [row(n, judge="1", swapped="2", both_orders=True, lengths=(1.0, 2.0)) for n in range(50)]
    assert effect_figures(rows, ["1", "2", "3"], "llama") == []
    assert effect_figures(rows, ["unsafe", "safe"], "llama") == []


def test_rows_that_allow_no_bias_to_be_measured_have_no_figures():
    assert effect_figures([row(n) for n in range(50)], PAIR, "llama") == []
    assert effect_figures([], PAIR, "llama") == []


def test_each_bias_is_measured_on_the_rows_that_allow_it():
    rows = [*positioned(50, 50), *lengthy(100, 1.0), *families(40, 10, 0)]
    found = figures(rows, "llama")
    assert found["position_effect"].observations == 100
    assert found["raw_win_rate"].observations == 100
    assert found["self_preference"].observations == 40


def test_winners_may_be_called_a_and_b():
    rows = [row(n, judge="A", swapped="B", human="A", both_orders=True) for n in range(20)]
    (effect, share) = effect_figures(rows, ["A", "B", "tie"], None)
    assert (effect.value, share.value) == (0.5, 1.0)
