"""Juries: how verdicts are combined, and which juries are refused."""

from __future__ import annotations

import numpy as np
import pytest

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.judges.judge import Judgement
from ratchet.judges.jury import JurySpec, combine, jury_version, load_juries, outcomes_of
from ratchet.judges.rubrics import load_judges

MENU = ("wrong", "right")
JUDGES = """
judges:
  - {name: a, endpoint: {url: "http://127.0.0.1:1", model: m}}
  - {name: b, endpoint: {url: "http://127.0.0.1:1", model: n}}
  - {name: c, endpoint: {url: "http://127.0.0.1:1", model: o}}
  - {name: pairs, mode: pairwise, endpoint: {url: "http://127.0.0.1:1", model: m}}
"""


def score(outcome):
    return {"wrong": 0.0, "right": 1.0, "first": 1.0, "tie": 0.5, "second": 0.0}[outcome]


def panel(*outcomes):
    return [
        Judgement(
            f"i{number}", outcome, None if outcome is None else score(outcome), None, None, ()
        )
        for number, outcome in enumerate(outcomes)
    ]


def jury(method="majority", judges=("a", "b", "c")):
    return JurySpec(name="panel", judges=judges, method=method)


def said(found):
    return [judgement.outcome for judgement in found]


def test_the_most_frequent_verdict_is_the_jurys():
    panels = [panel("right", "wrong"), panel("right", "right"), panel("wrong", "wrong")]
    found = combine(jury(), MENU, score, panels)
    assert said(found) == ["right", "wrong"]
    assert [judgement.score for judgement in found] == [1.0, 0.0]


def test_a_split_jury_is_unscored_on_a_menu_and_a_tie_on_a_pair():
    (split,) = combine(jury(judges=("a", "b")), MENU, score, [panel("right"), panel("wrong")])
    assert (split.outcome, split.score, split.reason) == (None, None, "the jury is split")
    outcomes = ("second", "tie", "first")
    (tie,) = combine(jury(judges=("a", "b")), outcomes, score, [panel("first"), panel("second")])
    assert (tie.outcome, tie.score) == ("tie", 0.5)


def test_a_judge_without_a_verdict_has_no_vote_and_an_item_without_votes_is_unscored():
    panels = [panel(None, None), panel("right", None), panel("right", None)]
    found = combine(jury(), MENU, score, panels)
    assert said(found) == ["right", None]
    assert found[1].reason == "no judge of the jury has a verdict"


def test_a_judge_who_errs_weighs_less_where_errors_are_fitted():
    # two good judges against three that guess: by majority the guessers win, fitted they do not
    rng = np.random.default_rng(3)
    truth = rng.random(600) < 0.5
    panels = []
    for accuracy in (0.95, 0.95, 0.5, 0.5, 0.5):
        right = rng.random(600) < accuracy
        panels.append(panel(*(MENU[int(t == r)] for t, r in zip(truth, right, strict=True))))
    names = tuple("abcde")

    def accuracy(method):
        found = combine(jury(method, names), MENU, score, panels)
        hits = [one.outcome == MENU[int(t)] for one, t in zip(found, truth, strict=True)]
        return float(np.mean(hits))

    assert accuracy("dawid_skene") > accuracy("majority") + 0.05


def test_judges_of_different_items_are_refused():
    with pytest.raises(InvalidInputError, match="same items in one order"):
        combine(jury(), MENU, score, [panel("right"), panel("right", "wrong"), panel("right")])


def test_a_jury_without_any_verdict_is_refused():
    with pytest.raises(InsufficientDataError, match="needs verdicts, got none"):
        combine(jury(), MENU, score, [panel(None)] * 3)


def test_the_version_of_a_jury_changes_with_its_method_and_with_each_member():
    versions = {
        jury_version(jury(), ["1", "2", "3"]),
        jury_version(jury(), ["1", "2", "4"]),
        jury_version(jury("dawid_skene"), ["1", "2", "3"]),
    }
    assert len(versions) == 3


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{name: p, judges: [a]}", "at least 2 items"),
        ("{name: p, judges: [a, a]}", "names each judge once, got a, a"),
        ("{name: p, judges: [a, b], method: dawid_skene}", "needs 3 judges, got 2"),
        ("{name: p, judges: [a, x]}", "no judge is named x"),
        ("{name: p, judges: [a, pairs]}", "must share dimension and mode"),
        ("{name: p, judges: [a, b], method: vote}", "'majority' or 'dawid_skene'"),
    ],
)
def test_a_jury_that_does_not_hold_together_is_one_error(tmp_path, entry, message):
    path = tmp_path / "judges.yaml"
    path.write_text(f"{JUDGES}juries: [{entry}]\n")
    with pytest.raises(InvalidInputError, match=message):
        load_juries(path, load_judges(path))


def test_juries_are_read_beside_their_judges(tmp_path):
    path = tmp_path / "judges.yaml"
    path.write_text(f"{JUDGES}juries: [{{name: panel, judges: [a, b, c], method: dawid_skene}}]\n")
    judges = load_judges(path)
    assert load_juries(path, judges) == (jury("dawid_skene"),)
    assert outcomes_of(judges[0]) == ("1", "2", "3", "4", "5")
    assert outcomes_of(judges[3]) == ("second", "tie", "first")


def test_juries_that_are_no_list_are_one_error(tmp_path):
    path = tmp_path / "judges.yaml"
    path.write_text(f"{JUDGES}juries: 5\n")
    with pytest.raises(InvalidInputError, match="juries must be a list, got 5"):
        load_juries(path, load_judges(path))
