"""What the reader of a decision is told beside the verdict."""

import csv
import json

import numpy as np
import pytest
from scipy import stats

from ratchet.deploy.gate import run_gate
from ratchet.deploy.gate.policy import GatePolicy, Primary
from ratchet.deploy.gate.report import gate_json, gate_text
from ratchet.deploy.gate.scores import GateScores, MetricScores, read_scores
from ratchet.errors import InvalidInputError

HEAD = "example_id,metric,champion,challenger"
RIGHT = GatePolicy(primary=Primary(metric="right"))


def notes_of(path, policy=RIGHT):
    return run_gate(read_scores(path), policy).notes


def random_rows(count=60, seed=0):
    rng = np.random.default_rng(seed)
    return [(f"e{n}", "right", *rng.integers(0, 2, 2)) for n in range(count)]


def written(path, rows, head=HEAD):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head.split(","))
        writer.writerows(rows)
    return path


def test_independent_rows_of_one_metric_are_worth_no_note(tmp_path):
    assert notes_of(written(tmp_path / "s.csv", random_rows())) == ()


def test_a_secondary_metric_without_scores_and_scores_without_a_rule_are_told(tmp_path):
    rows = random_rows() + [(f"e{n}", "length", 10 + n % 7, 12) for n in range(60)]
    policy = GatePolicy(primary=Primary(metric="right"), secondary=("bleu",))
    found = notes_of(written(tmp_path / "s.csv", rows), policy)
    assert any("bleu as secondary, and no score is of it" in note for note in found)
    assert any("scores of length are not used" in note for note in found)


@pytest.mark.mostly_slow("3 blank")
@pytest.mark.parametrize(
    ("blank", "words"),
    [("\n", "1 blank line was left out"), ("\n\n\n", "3 blank lines were left out"),
     (",,,\n", "1 blank line was left out")],
)  # fmt: skip
def test_blank_lines_between_rows_are_counted_with_the_first(tmp_path, blank, words):
    lines = [",".join(map(str, row)) + "\n" for row in random_rows()]
    path = tmp_path / "s.csv"
    path.write_text(HEAD + "\n" + "".join(lines[:4]) + blank + "".join(lines[4:]))
    (note,) = notes_of(path)
    assert words in note
    assert "line 6 first" in note


def test_blank_lines_of_json_lines_are_counted_and_a_value_over_lines_is_none(tmp_path):
    rows = [
        {"example_id": name, "metric": metric, "champion": int(a), "challenger": int(b)}
        for name, metric, a, b in random_rows()
    ]
    path = tmp_path / "s.jsonl"
    path.write_text("\n\n".join(json.dumps(row) for row in rows[:2]) + "\n")
    assert read_scores(path).notes == (
        "1 blank line was left out of s.jsonl, line 2 first; no example stands there",
    )
    array = tmp_path / "array.json"
    array.write_text(json.dumps(rows, indent=2))
    assert read_scores(array).notes == ()


def test_a_quoted_text_with_empty_lines_in_it_is_no_blank_line(tmp_path):
    rows = [(*row, "one\n\ntwo", "three") for row in random_rows()]
    rows.insert(3, ())
    path = written(tmp_path / "s.csv", rows, f"{HEAD},champion_output,challenger_output")
    assert [note.split(" was")[0] for note in read_scores(path).notes] == ["1 blank line"]


def test_examples_without_a_row_of_a_metric_are_told(tmp_path):
    rows = random_rows() + [(f"e{n}", "length", 10, 12 + n % 3) for n in range(50)]
    (note,) = read_scores(written(tmp_path / "s.csv", rows)).notes
    assert note.startswith("10 of 60 examples have no row of length")


def autocorrelated(share, count=400, seed=3):
    """Differences of an autoregressive series of first order."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=count)
    series = np.zeros(count)
    for place in range(1, count):
        series[place] = share * series[place - 1] + noise[place]
    champion = 5.0 + rng.normal(size=count)
    return MetricScores("score", champion, champion + series)


SCORE = GatePolicy(primary=Primary(metric="score"))


def test_rows_that_resemble_their_neighbours_are_told_where_nobody_says_whose_they_are():
    dependent = autocorrelated(0.5)
    result = run_gate(GateScores({"score": dependent}), SCORE)
    assert any("consecutive examples of score resemble each other" in n for n in result.notes)
    assert "note: consecutive examples" in gate_text(result)
    assert gate_json(result)["notes"] == list(result.notes)
    users = np.repeat(np.arange(40), 10)
    known = MetricScores("score", dependent.champion, dependent.challenger, users)
    assert run_gate(GateScores({"score": known}), SCORE).notes == ()


def test_rows_of_one_user_behind_each_other_are_told_too():
    rng = np.random.default_rng(5)
    liking = np.repeat(rng.normal(size=50), 8)
    champion = 5.0 + rng.normal(size=400)
    scores = MetricScores("score", champion, champion + liking + rng.normal(size=400))
    assert len(run_gate(GateScores({"score": scores}), SCORE).notes) == 1


def test_independent_rows_are_called_dependent_in_about_one_of_a_hundred_files():
    told = sum(
        bool(run_gate(GateScores({"score": autocorrelated(0.0, seed=seed)}), SCORE).notes)
        for seed in range(300)
    )
    assert told <= 3 + 3 * np.sqrt(3)  # 1 % of 300, three standard errors


@pytest.mark.mostly_slow("Timestamp")
@pytest.mark.parametrize("column", ["time", "Timestamp", "created_at"])
def test_a_time_without_users_or_groups_is_told(tmp_path, column):
    rows = [
        (*row, f"2026-11-{1 + n // 24:02}T{n % 24:02}:00") for n, row in enumerate(random_rows())
    ]
    (note,) = notes_of(written(tmp_path / "s.csv", rows, f"{HEAD},{column}"))
    assert f"rows have a time ({column.lower()})" in note
    grouped = [(*row, f"g{n % 30}") for n, row in enumerate(rows)]
    assert notes_of(written(tmp_path / "g.csv", grouped, f"{HEAD},{column},group")) == ()


def test_a_group_says_which_examples_belong_together_and_goes_before_the_user(tmp_path):
    rows = [(*row, f"u{n}", f"day{n // 3}") for n, row in enumerate(random_rows())]
    path = written(tmp_path / "s.csv", rows, f"{HEAD},user_id,Group")
    assert np.unique(read_scores(path).metrics["right"].users).size == 20


def test_names_of_json_rows_are_known_in_any_case(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_text('{"Example_ID": "a", "METRIC": "right", "Champion": 1, " challenger": 0}\n')
    assert read_scores(path).metrics["right"].champion.tolist() == [1.0]
    path.write_text('{"example_id": "a", "metric": "m", "champion": 1, "Champion": 0}\n')
    with pytest.raises(InvalidInputError, match="got 'Champion' beside another way to write"):
        read_scores(path)


@pytest.mark.parametrize("rows", ['{"name": "a", "old": 1, "new": 0}', '{"Beispiel": 1}'])
def test_a_row_with_none_of_the_names_is_told_what_it_has(tmp_path, rows):
    path = tmp_path / "s.jsonl"
    path.write_text(rows + "\n")
    first = next(iter(json.loads(rows)))
    with pytest.raises(InvalidInputError, match=f"among '{first}'"):
        read_scores(path)


def test_times_as_names_of_examples_are_times_too(tmp_path):
    rows = [(f"2026-11-01T10:{n:02}", *row[1:]) for n, row in enumerate(random_rows())]
    (note,) = notes_of(written(tmp_path / "s.csv", rows))
    assert "rows have a time (example_id)" in note


def test_rows_of_nobody_among_rows_of_users_are_counted(tmp_path):
    rows = [(*row, f"u{n % 20}" if n % 3 else "") for n, row in enumerate(random_rows())]
    (note,) = notes_of(written(tmp_path / "s.csv", rows, f"{HEAD},user_id"))
    assert note.startswith("20 of 60 rows have no user_id and count as independent")


def test_users_with_one_example_each_do_not_hide_that_rows_resemble_their_neighbours():
    dependent = autocorrelated(0.5)
    alone = MetricScores("score", dependent.champion, dependent.challenger, np.arange(400))
    assert len(run_gate(GateScores({"score": alone}), SCORE).notes) == 1


# p beside its interval ----------------------------------------------------------------------------


def right_or_wrong(only_champion, only_challenger, same=200, **changes):
    champion = np.repeat([1.0, 0.0, 1.0], [only_champion, only_challenger, same])
    challenger = np.repeat([0.0, 1.0, 1.0], [only_champion, only_challenger, same])
    return MetricScores("right", champion, challenger, **changes)


def test_a_p_value_is_explained_exactly_where_its_interval_says_another_thing():
    told = set()
    for losses in range(13):
        for wins in range(losses, losses + 16):
            result = run_gate(GateScores({"right": right_or_wrong(losses, wins)}), RIGHT)
            # exact McNemar: binomial over the discordant pairs (scipy)
            exact = stats.binom.sf(wins - 1, losses + wins, 0.5) if losses + wins else 1.0
            disagrees = (exact <= 0.05) != (result.primary.interval[0] > 0.0)
            notes = [note for note in result.notes if "different procedures" in note]
            assert bool(notes) == disagrees, (losses, wins)
            told |= {(losses, wins)} if disagrees else set()
    assert told  # there are such tables


def test_the_explanation_says_which_decides_in_text_json_and_the_stored_decision():
    losses, wins = next(
        (losses, losses + more)
        for losses in range(1, 40)
        for more in range(1, 20)
        if any(
            "different procedures" in note
            for note in run_gate(
                GateScores({"right": right_or_wrong(losses, losses + more)}), RIGHT
            ).notes
        )
    )
    result = run_gate(GateScores({"right": right_or_wrong(losses, wins)}), RIGHT)
    (note,) = (one for one in result.notes if "different procedures" in one)
    assert f"p = {result.primary.p_shown:.3g} is" in note
    assert "p decides" in note
    assert f"note: {note}" in gate_text(result)
    assert note in gate_json(result)["notes"]


def test_means_are_held_against_what_their_own_test_rejects_and_need_no_explanation():
    rng = np.random.default_rng(5)
    for shift in np.linspace(0.0, 0.6, 60):
        differences = rng.normal(shift, 1.0, 40)
        scores = MetricScores("score", np.zeros(40), differences)
        result = run_gate(GateScores({"score": scores}), SCORE)
        assert not any("different procedures" in note for note in result.notes)
