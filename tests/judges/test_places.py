"""Kappa of pairs by place: closed forms, and who must not be called usable.

Without ties chance agrees on 1/2 of places, so that kappa is 2 po - 1 whoever wins; with shares h
and j of ties from people and judge chance agrees on h j + (1 - h)(1 - j) / 2.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ratchet.judges.jury import JurySpec, combine
from ratchet.judges.jury_on_files import pair_score
from ratchet.judges.label_sets import LabelledVerdict, read_label_file
from ratchet.judges.places import by_place
from ratchet.judges.prompts import Item, second_first
from ratchet.judges.validation import validate_judge
from ratchet.records import Message
from ratchet.stats.agreement import cohen_kappa
from tests.judges.test_jury import panel, said
from tests.parameters import examples

EXCHANGED = {"1": "2", "2": "1", "tie": "tie", None: None}
NAMES = ("1", "tie", "2")


def pairs(counts):
    """Pairs in both orders by (label of people, verdict), as often as counted."""
    return [
        LabelledVerdict(f"{human}{judge}{n}", human, judge, judge, both_orders=True)
        for (human, judge), times in counts.items()
        for n in range(times)
    ]


def exchanged(row):
    """The same pair with its two answers in the other order."""
    return replace(
        row,
        human=EXCHANGED[row.human],
        judge=EXCHANGED[row.judge],
        swapped=EXCHANGED[row.swapped],
        place={"first": "second", "second": "first"}.get(row.place, row.place),
    )


def validated(rows):
    return validate_judge(rows, rng=np.random.default_rng(0))


def one_order(places, judge, human):
    """Pairs that a judge saw in one order each."""
    return [
        LabelledVerdict(f"i{n}", human(n), judge(place), place=place)
        for n, place in enumerate(places)
    ]


def test_a_judge_that_is_right_in_85_percent_is_usable_though_one_side_wins_95_percent():
    # 95 % of 400 pairs are won by the first answer; 85 % of either kind are judged right
    found = validated(pairs({("1", "1"): 323, ("1", "2"): 57, ("2", "2"): 17, ("2", "1"): 3}))
    assert found.kappa.value == pytest.approx(2 * 0.85 - 1)
    assert found.kappa.standard_error == pytest.approx(2 * np.sqrt(0.85 * 0.15 / 400))
    assert found.decision == "usable"
    # by winner chance agrees on 0.95 * 0.815 + 0.05 * 0.185
    assert found.figure("kappa_by_winner").value == pytest.approx((0.85 - 0.7835) / (1 - 0.7835))
    assert found.confusion == ((323, 57), (3, 17)), "who won stays readable"


def test_a_coin_is_not_usable_though_one_side_wins_95_percent():
    found = validated(pairs({("1", "1"): 95, ("1", "2"): 95, ("2", "2"): 5, ("2", "1"): 5}))
    assert found.kappa.value == pytest.approx(0.0)
    assert found.decision == "not usable"


def test_a_judge_that_names_a_place_is_not_usable_though_one_side_always_wins():
    in_both = [LabelledVerdict(str(n), "1", "1", "2", both_orders=True) for n in range(200)]
    assert validated(in_both).decision == "not usable"
    places = ["first", "second"] * 100
    named = validated(
        one_order(places, lambda place: "1" if place == "first" else "2", lambda n: "1")
    )
    assert named.kappa.value == 0.0
    assert named.decision == "not usable"


def test_in_one_order_whoever_looks_is_usable_though_one_side_always_wins():
    found = validated(one_order(["first", "second"] * 100, lambda place: "1", lambda n: "1"))
    assert found.kappa.value == 1.0
    assert found.decision == "usable"


def test_where_every_pair_was_shown_in_one_order_who_wins_cannot_be_told_from_a_place():
    """A judge that names the first shown says the same; nothing is claimed of either."""
    for place in ("first", None):
        found = validated(one_order([place] * 200, lambda _: "1", lambda n: "1" if n % 20 else "2"))
        assert found.kappa.value == 0.0
        assert found.decision == "not usable"


def test_whoever_always_names_one_system_is_usable_only_where_people_nearly_always_do_too():
    """The judge is shown no name; where one system always wins, it is right in each pair."""
    always = validated(pairs({("1", "1"): 100}))
    assert always.kappa.value == 1.0
    assert always.kappa_bound < 1.0
    assert always.decision == "usable"
    for wins in (60, 75, 85):
        found = validated(pairs({("1", "1"): wins, ("2", "1"): 100 - wins}))
        assert found.kappa.value == pytest.approx(wins / 50 - 1)
        assert found.decision != "usable"


def test_ties_are_ties_in_either_place_and_chance_agrees_on_them():
    rows = pairs({("1", "1"): 60, ("tie", "tie"): 20, ("1", "tie"): 10, ("tie", "1"): 10})
    chance = 0.3 * 0.3 + 0.7 * 0.7 / 2
    assert validated(rows).kappa.value == pytest.approx((0.8 - chance) / (1 - chance))
    nothing_else = validated(pairs({("tie", "tie"): 190, ("1", "tie"): 10}))
    assert nothing_else.kappa.value == 0.0
    assert nothing_else.decision == "not usable", "who always says tie has not looked"


def test_whoever_counts_each_pair_once_in_either_place_gets_the_same_kappa():
    rows = pairs({("1", "1"): 41, ("2", "2"): 7, ("1", "2"): 9, ("tie", "1"): 5, ("1", "tie"): 3})
    both = [*rows, *map(exchanged, rows)]
    plain = cohen_kappa([row.human for row in both], [str(row.verdict) for row in both])
    found = validated(rows)
    assert found.kappa.value == pytest.approx(plain.value)
    assert found.kappa.items == len(rows), "no label counts twice"
    assert found.kappa.standard_error == pytest.approx(plain.standard_error * np.sqrt(2))


labels = st.sampled_from(("1", "2", "tie"))
seen = st.lists(st.tuples(labels, labels, labels, st.booleans()), min_size=2, max_size=60)


@settings(max_examples=examples(60), deadline=None)
@given(seen)
def test_exchanging_the_answers_of_any_pairs_changes_nothing(drawn):
    rows = [
        LabelledVerdict(str(n), human, judge, swapped, both_orders=True)
        for n, (human, judge, swapped, _) in enumerate(drawn)
    ]
    verdicts = {row.verdict for row in rows}
    assume({row.human for row in rows} - {"tie"} and verdicts - {"tie"})
    turned = [exchanged(row) if turn else row for row, (*_, turn) in zip(rows, drawn, strict=True)]
    one, other = (by_place(given, NAMES) for given in (rows, turned))
    kappas = [
        cohen_kappa(x.human, x.judge, categories=NAMES, exchangeable=x.exchangeable)
        for x in (one, other)
    ]
    assert kappas[0].value == pytest.approx(kappas[1].value)
    assert kappas[0].standard_error == pytest.approx(kappas[1].standard_error)


def test_a_file_may_say_which_answer_was_shown_first(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(
        "item_id,human,judge,shown_first\n"
        + "".join(f"i{n},1,1,{'AB'[n % 2]}\n" for n in range(100))
        + "bad,1,1,neither\n"
    )
    read = read_label_file(path)
    assert [row.place for row in read.runs[0].rows[:2]] == ["first", "second"]
    assert "shown_first must be 1 or 2" in read.set_aside[0].reason
    assert validated(read.runs[0].rows).decision == "usable"


def test_chance_places_answers_evenly_and_whatever_they_are():
    """Within four standard errors of a half, over all pairs and over those won by either side."""
    asked = (Message(role="user", content="How?"),)
    items = [Item(str(n), asked, f"good {n}", f"bad {n}") for n in range(4_000)]
    for part in (items, items[:2_000], [Item(i.id, asked, i.other, i.answer) for i in items]):
        share = sum(map(second_first, part)) / len(part)
        assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(len(part))


@pytest.mark.parametrize("method", ["majority", "dawid_skene"])
def test_a_jury_does_not_learn_whose_answers_win(method):
    """Of judges that are right in 60 %, where the first answer always wins."""
    rng = np.random.default_rng(7)
    spec = JurySpec(name="panel", judges=("a", "b", "c"), method=method)
    panels = [panel(*np.where(rng.random(400) < 0.6, "first", "second")) for _ in range(3)]
    turn = rng.random(400) < 0.5
    other = {"first": "second", "second": "first", "tie": "tie"}
    turned = [
        panel(
            *(other[one.outcome] if t else one.outcome for one, t in zip(each, turn, strict=True))
        )
        for each in panels
    ]
    found, found_turned = (
        said(combine(spec, ("second", "tie", "first"), pair_score, given))
        for given in (panels, turned)
    )
    assert found_turned == [other[one] if t else one for one, t in zip(found, turn, strict=True)]
    right = found.count("first") / 400
    assert 0.55 < right < 0.75, "three such judges are right in 65 % at best"
