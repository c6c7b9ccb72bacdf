"""The report in words and as JSON: nothing undefined is a number, and every figure has a name."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ratchet.errors import InvalidInputError
from ratchet.files.rows import SetAsideRow
from ratchet.judges.label_sets import LabelledVerdict
from ratchet.judges.validation import validate_judge
from ratchet.judges.validation_report import SAYS, figure_line, validation_json, validations_text
from ratchet.records import Figure


def validated(rows, **options):
    return validate_judge(rows, rng=np.random.default_rng(0), **options)


def pairs(size=60):
    """Pairs with everything that can be measured: both orders, lengths, families, two people."""
    rng = np.random.default_rng(1)
    rows = []
    for n in range(size):
        human = "12"[n % 2]
        first = human if n % 10 else "12"[(n + 1) % 2]
        rows.append(
            LabelledVerdict(
                f"pair-{n:02}", human, first, first if n % 7 else "1", both_orders=True,
                others=(human if n % 5 else "1",),
                lengths=tuple(rng.integers(50, 900, 2).astype(float)),
                families=(("gpt", "llama"), ("llama", "gpt"), ("palm", "llama"))[n % 3],
            )
        )  # fmt: skip
    return rows


def single(agreeing, disagreeing, unscored=0):
    rows = [LabelledVerdict(f"a{n}", "12"[n % 2], "12"[n % 2]) for n in range(agreeing)]
    rows += [LabelledVerdict(f"d{n}", "12"[n % 2], "21"[n % 2]) for n in range(disagreeing)]
    return rows + [LabelledVerdict(f"u{n}", "1", None, reason="mumbled") for n in range(unscored)]


RICH = validated(pairs(), judge_family="gpt")
CASES = {
    "rich": RICH,
    "usable": validated(single(95, 5)),
    "undecided": validated(single(34, 6, 2)),
    "constant": validated([LabelledVerdict(str(n), "1", "1") for n in range(40)]),
    "unscored": validated(single(0, 0, 40)),
    "never the same": validated(
        [LabelledVerdict(str(n), "1", "2") for n in range(40)], categories=["1", "2"]
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_json_is_standard_and_says_what_the_validation_found(name):
    found = CASES[name]
    read = json.loads(json.dumps(validation_json(found), allow_nan=False))
    assert read["decision"] == found.decision
    assert read["usable"] == (found.decision == "usable")
    assert read["reasons"] == list(found.reasons)
    assert read["kappa"]["value"] == found.kappa.value
    assert read["kappa"]["lower_bound"] == found.kappa_bound
    assert (read["kappa"]["value"] is None) == (read["kappa"]["reason"] is not None)
    assert read["more_labels"] == found.more_labels
    assert [sum(row) for row in read["confusion"]] == [sum(row) for row in found.confusion]
    assert set(read["figures"]) == {figure.name for figure in found.figures}
    for figure in found.figures:
        shown = read["figures"][figure.name]
        assert shown["value"] == figure.value
        assert (shown["value"] is None) == ("reason" in shown)


def test_every_figure_has_words_and_all_biases_of_pairs_are_measured():
    names = {figure.name for figure in RICH.figures}
    assert names - {"scored"} <= set(SAYS)
    for measured in ("position_effect", "length_controlled_win_rate", "self_preference",
                     "over_human_ceiling", "longest_answer_judge", "kappa_of_orders"):  # fmt: skip
        assert RICH.figure(measured).value is not None, measured


def test_one_validation_is_told_in_full():
    text = validations_text([("my-judge", CASES["undecided"])], (), ())
    lines = text.splitlines()
    assert lines[0] == "my-judge: not enough labels"
    found = CASES["undecided"]
    assert f"  {found.reasons[0]}" in lines
    more = f"  about {found.more_labels} more labels"
    assert f"{more} would decide it if they come out like those so far" in lines
    assert "40 items with a label and a verdict" in lines
    assert "  unscored: 2 × mumbled" in lines
    assert any(line.split()[:3] == ["Cohen's", "kappa", "0.700"] for line in lines)
    place = lines.index("people in rows, the judge in columns")
    assert [line.split() for line in lines[place + 1 : place + 4]] == [
        ["1", "2"], ["1", "17", "3"], ["2", "3", "17"],
    ]  # fmt: skip
    place = lines.index("disagreements to read first (item: people / judge)")
    assert lines[place + 1 :] == [f"  d{n}: {'12'[n % 2]} / {'21'[n % 2]}" for n in range(5)]


def test_what_is_undefined_is_a_dash_with_its_reason():
    line = figure_line(Figure(name="ac1", value=None, observations=9, reason="too few"))
    assert line.split() == ["Gwet's", "AC1", "-", "too", "few"]
    constant = validations_text([("", CASES["constant"])], (), ())
    assert constant.startswith("not enough labels\n")
    assert "kappa needs two labels" in constant
    assert "nan" not in constant.lower()
    assert "None" not in constant


def test_several_validations_are_a_table_with_counts_and_a_warning_about_the_best_of_many():
    error = InvalidInputError("judge and people must use one set of labels")
    results = [*CASES.items(), ("mislabelled", error)]
    text = validations_text(results, [SetAsideRow(7, "line 7", "not JSON", "x")], ["strategy"])
    lines = text.splitlines()
    assert len({line.index("decision") for line in lines[:1]}) == 1
    by_name = {line.split()[0]: line for line in lines[1:]}
    assert by_name["mislabelled"].endswith(f"refused: {error}")
    assert by_name["usable"].endswith("usable")
    assert by_name["unscored"].split()[1:3] == ["0", "40"]
    (counted,) = [line for line in lines if line.startswith("7 runs: ")]
    said = dict(
        reversed(part.split(" ", 1)) for part in counted.removeprefix("7 runs: ").split(", ")
    )
    decisions = [found.decision for found in CASES.values()]
    assert said == {"refused": "1"} | {d: str(decisions.count(d)) for d in decisions}
    assert any("the best one looks better than it is" in line for line in lines)
    assert lines[-3:] == [
        "not used: the fields strategy", "set aside: 1 row", "  set aside, line 7: not JSON",
    ]  # fmt: skip
    none = validations_text([("a", CASES["unscored"]), ("b", error)], (), ())
    assert "looks better" not in none


def test_of_many_rows_set_aside_fifty_are_shown_and_the_rest_counted():
    aside = [SetAsideRow(n, f"line {n}", "broken", "x") for n in range(1, 500)]
    text = validations_text([("a", CASES["usable"])], aside, ())
    assert "set aside: 499 rows" in text
    assert text.count("broken") == 50
    assert "and 449 more rows set aside" in text
