import json
import math

import numpy as np
import pytest

from ratchet.deploy.gate import run_gate
from ratchet.deploy.gate.policy import GatePolicy, Primary
from ratchet.deploy.gate.scores import GateScores, MetricScores, read_scores
from ratchet.errors import InvalidInputError

HEAD = "example_id,metric,champion,challenger"


@pytest.fixture
def file(tmp_path):
    def write(text, name="scores.csv"):
        path = tmp_path / name
        path.write_text(text, "utf-8")
        return path

    return write


def test_csv_and_json_lines_with_the_same_scores_are_the_same(file):
    csv = file(
        f"{HEAD},user_id,cluster\n"
        "e1,quality,0.5,0.75,u1,fees\ne2,quality,,1,u2,cards\ne1,length,10,12,u1,fees\n"
    )
    rows = [
        {"example_id": "e1", "metric": "quality", "champion": 0.5, "challenger": 0.75,
         "user_id": "u1", "cluster": "fees"},
        {"example_id": "e2", "metric": "quality", "champion": None, "challenger": 1,
         "user_id": "u2", "cluster": "cards"},
        {"example_id": "e1", "metric": "length", "champion": 10, "challenger": 12,
         "user_id": "u1", "cluster": "fees"},
    ]  # fmt: skip
    lines = file("\n".join(json.dumps(row) for row in rows) + "\n", "scores.jsonl")
    for found in (read_scores(csv), read_scores(lines)):
        assert list(found.metrics) == ["quality", "length"]
        assert found.cluster_names == ("fees", "cards")
        quality = found.metrics["quality"]
        assert quality.challenger.tolist() == [0.75, 1.0]
        assert math.isnan(quality.champion[1])
        assert quality.users is not None
        assert quality.users[0] == found.metrics["length"].users[0] != quality.users[1]
        assert quality.clusters.tolist() == [0, 1]
        assert found.identical_outputs is None


def test_columns_come_in_any_order_others_are_left_out_and_spaces_trimmed(file):
    found = read_scores(
        file("note, challenger,metric ,champion,example_id\nx, 1 , m,true, a\ny,false,m,0,b \n")
    )
    assert list(found.metrics) == ["m"]
    assert found.metrics["m"].champion.tolist() == [1.0, 0.0]
    assert found.metrics["m"].challenger.tolist() == [1.0, 0.0]
    assert found.metrics["m"].users is None


@pytest.mark.parametrize("empty", ["", "null", "NaN", "None", "n/a"])
def test_an_empty_score_is_none(file, empty):
    found = read_scores(file(f"{HEAD}\na,m,{empty},1\nb,m,1,0\n"))
    assert math.isnan(found.metrics["m"].champion[0])


def test_a_row_without_a_user_is_a_user_of_its_own(file):
    found = read_scores(file(f"{HEAD},user_id\na,m,1,0,u\nb,m,1,0,u\nc,m,1,0,\nd,m,1,0,\n"))
    assert np.unique(found.metrics["m"].users).size == 3


def test_identical_outputs_are_found_where_all_are_there(file):
    head = f"{HEAD},champion_output,challenger_output"
    same = file(f'{head}\na,m,1,1,"x, y","x, y"\nb,m,0,0,z,z\n')
    other = file(f"{head}\na,m,1,1,x,x\nb,m,0,0,z,w\n", "other.csv")
    missing = file(f"{head}\na,m,1,1,x,x\nb,m,0,0,,\n", "missing.csv")
    assert [read_scores(path).identical_outputs for path in (same, other, missing)] == [
        True, False, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must hold rows with .* got none: the file is empty"),
        (f"{HEAD}\n", "at least 1 row"),
        ("example_id,metric,champion\na,m,1", "none named challenger"),
        (
            f"{HEAD},metric\na,m,1,0,m",
            "must be there once, got 'metric' as column 2 and 'metric' as column 5",
        ),
        (f"{HEAD}\na,m,1,0\na,m,1,1", "line 3: m of a is there before"),
        (f"{HEAD}\na,m,1", "line 2: a row must have 4 cells as the header has, got 3"),
        (f"{HEAD}\n,m,1,0", "line 2: example_id must not be empty"),
        (f"{HEAD}\na, ,1,0", "line 2: metric must not be empty"),
        (f"{HEAD}\na,m,1,0\nb,m,high,inf", "line 3: champion must be a number or empty, got 'hi"),
        (f"{HEAD}\na,m,1,0\nb,m,high,inf", "line 3: challenger must be finite"),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused_with_the_line(file, text, words):
    with pytest.raises(InvalidInputError, match=words):
        read_scores(file(text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"example_id": "a"', "line 1"),
        ("[1]", "line 1, item 1: a row must be a JSON object"),
        ('{"example_id": "a", "metric": "m", "champion": 1}', "none named challenger"),
        (
            '{"example_id": "a", "metric": "m", "champion": [1], "challenger": 1}',
            "champion must be a number",
        ),
    ],
)
def test_json_lines_that_break_a_rule_are_refused_with_the_line(file, text, words):
    with pytest.raises(InvalidInputError, match=words):
        read_scores(file(text, "scores.jsonl"))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match=r"must be a readable file, got .*nowhere\.csv"):
        read_scores(tmp_path / "nowhere.csv")


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(InvalidInputError, match="one entry an example"):
        MetricScores("m", np.zeros(3), np.zeros(2))


@pytest.mark.parametrize("value", ["1e308", "-1e308", "1e101", "1e309"])
def test_scores_too_large_to_be_squared_are_refused_with_the_line(file, value):
    with pytest.raises(InvalidInputError, match="line 3: challenger must be finite and at most"):
        read_scores(file(f"{HEAD}\na,m,1,0\nb,m,1,{value}"))


@pytest.mark.parametrize("value", [1e308, -math.inf, 2e100])
def test_scores_too_large_are_refused_in_memory_too(value):
    with pytest.raises(InvalidInputError, match=r"scores of m must be between .*rescale"):
        MetricScores("m", np.array([0.0, value]), np.zeros(2))


def test_the_largest_scores_give_finite_results():
    rng = np.random.default_rng(0)
    champion = 1e100 * rng.uniform(-1.0, 0.0, 200)
    scores = MetricScores("score", champion, champion + 1e99 * rng.normal(1.0, 1.0, 200))
    result = run_gate(GateScores({"score": scores}), GatePolicy(primary=Primary(metric="score")))
    assert result.verdict == "promote"
    assert all(map(math.isfinite, result.primary.interval))
