"""The catalogue of metrics, and what is held equal to it."""

import re
from pathlib import Path

import pytest

import ratchet
from ratchet.evaluation.answer_scores import known_metrics
from ratchet.evaluation.directions import direction_of
from ratchet.evaluation.metrics import METRICS, metric_named, pass_k

DOCS = Path(ratchet.__file__).parents[2] / "docs" / "evaluation.md"


def test_the_documentations_table_is_the_catalogue():
    text = DOCS.read_text("utf-8")
    table = text.partition("<!-- metrics:begin -->\n")[2].partition("\n<!-- metrics:end -->")[0]
    head, line, *rows = table.split("\n")
    assert head == "| metric | better | needs | what |"
    assert line == "|---|---|---|---|"
    assert rows == [
        f"| `{one.name}` | {'higher' if one.higher_is_better else 'lower'} "
        f"| {one.needs} | {one.what} |"
        for one in METRICS
    ]


def test_the_names_that_the_documentation_gives_directions_have_them():
    text = DOCS.read_text("utf-8")
    for word, higher in (("higher", True), ("lower", False)):
        row = re.search(rf"^\| {word} \| (`right`|`loss`).*$", text, re.MULTILINE)
        names = re.findall(r"`([a-z0-9_]+)\*?`", row[0])
        assert len(names) > 10
        for name in names:
            assert direction_of(name) is higher, name


def test_names_are_there_once_and_all_but_three_score_answers():
    names = [one.name for one in METRICS]
    assert len(set(names)) == len(names)
    assert set(names) - set(known_metrics()) == {"perplexity", "win_rate", "pass@k"}


@pytest.mark.parametrize(
    ("name", "k"),
    [("pass@1", 1), ("pass@10", 10), ("pass@1000", 1000), ("pass@0", None), ("pass@01", None),
     ("pass@1001", None), ("pass@k", None), ("pass@1 ", None), ("pass@-1", None),
     ("pass@１", None)],
)  # fmt: skip
def test_pass_at_k_is_a_metric_for_every_k(name, k):
    assert pass_k(name) == k
    if k is not None:
        spec = metric_named(name)
        assert (spec.name, spec.needs, spec.higher_is_better) == (name, "tests", True)
