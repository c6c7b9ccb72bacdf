"""Missing scores count against the challenger, and how few unseen losses overturn a promotion."""

import csv
import dataclasses

import numpy as np
import pytest

from ratchet.deploy.gate import run_gate
from ratchet.deploy.gate.missing import counted_against, losses_to_overturn, with_losses
from ratchet.deploy.gate.policy import GatePolicy, Guardrail, Primary
from ratchet.deploy.gate.report import gate_json, gate_text
from ratchet.deploy.gate.scores import REGRESSION, GateScores, MetricScores, read_scores
from ratchet.stats.comparisons import mcnemar_exact
from ratchet.stats.comparisons.means import paired_mean_test

RIGHT = GatePolicy(primary=Primary(metric="right"))


def cells(lost, won, both=0, neither=0, unscored=0, metric="right"):
    """Scores by how many examples of each kind there are; what is unscored has neither score."""
    kinds = ((1, 0, lost), (0, 1, won), (1, 1, both), (0, 0, neither), (np.nan, np.nan, unscored))
    return MetricScores(
        metric,
        np.concatenate([np.full(count, first, float) for first, _, count in kinds]),
        np.concatenate([np.full(count, second, float) for _, second, count in kinds]),
    )


def gate(*metrics, policy=RIGHT, **more):
    return run_gate(GateScores({one.metric: one for one in metrics}, **more), policy)


def exact_p(lost, won):
    return mcnemar_exact(lost, won).p_value_second_better


def test_an_equal_challenger_whose_losses_lack_scores_is_not_promoted(tmp_path):
    # 63 losses and 64 wins in truth; 45 of the losses have no score
    path = tmp_path / "scores.csv"
    rows = [("1", "0")] * 18 + [("0", "1")] * 64 + [("1", "1")] * 600 + [("0", "0")] * 273
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("example_id", "metric", "champion", "challenger"))
        writer.writerows((n, "right", *pair) for n, pair in enumerate([*rows, *[("", "")] * 45]))
    result = run_gate(read_scores(path), RIGHT)
    assert result.primary.p_shown == exact_p(18, 64) < 2e-7  # of what has scores
    assert result.verdict == "inconclusive"
    assert result.reasons[0] == "45 of 1,000 examples lack scores"
    assert f"p = {exact_p(63, 64):.2g}" in result.reasons[1]
    text = gate_text(result)
    assert "45 of 1,000 examples lack scores" in text
    assert "would decide it" not in text  # scores are missing, not examples


def test_a_promotion_that_survives_the_missing_pairs_says_so():
    result = gate(cells(20, 80, 390, 5, unscored=5))
    assert exact_p(25, 80) < 0.05
    assert result.verdict == "promote"
    assert "5 of 500 examples lack scores" in result.reasons[-1]
    assert "do not change the decision" in result.reasons[-1]


@pytest.mark.parametrize(("unscored", "verdict"), [(11, "promote"), (12, "inconclusive")])
def test_the_limit_is_where_the_exact_test_with_the_losses_added_no_longer_shows_it(
    unscored, verdict
):
    assert (exact_p(31, 47) <= 0.05, exact_p(32, 47) <= 0.05) == (True, False)
    result = gate(cells(20, 47, 400, 33, unscored=unscored))
    assert result.verdict == verdict
    assert result.losses_to_overturn == 12
    assert "12 unseen losses of the challenger would overturn a promotion" in gate_text(result)
    assert gate_json(result)["losses_to_overturn"] == 12


def test_where_one_score_of_a_pair_is_known_only_the_other_is_the_worst():
    known_champion = MetricScores("right", np.array([0.0, 1.0]), np.array([np.nan, np.nan]))
    known_challenger = MetricScores("right", np.array([np.nan]), np.array([1.0]))
    worst = counted_against(GateScores({"right": known_champion}), RIGHT).metrics["right"]
    assert (worst.champion.tolist(), worst.challenger.tolist()) == ([0.0, 1.0], [0.0, 0.0])
    worst = counted_against(GateScores({"right": known_challenger}), RIGHT).metrics["right"]
    assert (worst.champion.tolist(), worst.challenger.tolist()) == ([1.0], [1.0])


def test_where_less_is_better_the_worst_score_is_the_highest():
    policy = GatePolicy(primary=Primary(metric="latency"))
    scores = MetricScores("latency", np.array([2.0, np.nan, 9.0]), np.array([3.0, np.nan, 1.0]))
    worst = counted_against(GateScores({"latency": scores}), policy).metrics["latency"]
    assert (worst.champion[1], worst.challenger[1]) == (1.0, 9.0)


def test_graded_scores_within_zero_and_one_may_be_as_bad_as_zero():
    scores = MetricScores("token_f1", np.array([0.6, np.nan]), np.array([0.8, np.nan]))
    policy = GatePolicy(primary=Primary(metric="token_f1"))
    worst = counted_against(GateScores({"token_f1": scores}), policy).metrics["token_f1"]
    assert (worst.champion[1], worst.challenger[1]) == (1.0, 0.0)


def test_missing_graded_scores_leave_open_what_their_worst_would_not_show():
    rng = np.random.default_rng(0)
    champion = rng.uniform(0.4, 0.6, 400)
    challenger = champion + rng.normal(0.02, 0.05, 400)
    for unscored, verdict in ((2, "promote"), (15, "inconclusive")):
        one, two = champion.copy(), challenger.copy()
        one[:unscored] = two[:unscored] = np.nan
        policy = GatePolicy(primary=Primary(metric="token_f1"))
        result = gate(MetricScores("token_f1", one, two), policy=policy)
        worst = np.where(np.isnan(two), 0.0, two) - np.where(np.isnan(one), 1.0, one)
        assert (paired_mean_test(worst).p_above <= 0.05) == (verdict == "promote")
        assert result.verdict == verdict


def test_users_of_missing_pairs_stay_users():
    rng = np.random.default_rng(1)
    users = np.repeat(np.arange(40), 10)
    champion = (rng.random(400) < 0.2) * 1.0
    challenger = np.where(rng.random(400) < 0.5, 1.0, champion)
    lost = users == 3  # all examples of one user
    champion[lost] = challenger[lost] = np.nan
    scores = MetricScores("right", champion, challenger, users)
    result = gate(scores)
    assert result.verdict == "promote"
    assert "10 of 400 examples lack scores" in result.reasons[-1]
    worst = counted_against(GateScores({"right": scores}), RIGHT).metrics["right"]
    assert worst.users is users


@pytest.mark.parametrize("requires", ["shown", "no_harm"])
def test_missing_scores_of_a_guardrail_count_against_it_too(requires):
    rule = Guardrail(metric="safety", higher_is_better=True, margin=0.02, requires=requires)
    policy = GatePolicy(primary=Primary(metric="right"), guardrails=(rule,))
    better = cells(20, 60, 300, 120)
    assert gate(better, cells(1, 1, 498, metric="safety"), policy=policy).verdict == "promote"
    result = gate(better, cells(1, 1, 473, unscored=25, metric="safety"), policy=policy)
    assert result.verdict == "inconclusive"
    assert result.reasons[0] == "25 of 500 examples lack scores of safety"


def test_missing_scores_of_a_regression_set_are_named_with_it():
    rule = Guardrail(metric="right", per_cluster=True, requires="no_harm", minimum_examples=6)
    policy = GatePolicy(primary=Primary(metric="right"), guardrails=(rule,))
    cluster = dataclasses.replace(
        cells(0, 3, 117, unscored=6), clusters=np.zeros(126, dtype=np.int64)
    )
    result = gate(
        cells(20, 60, 300, 120), policy=policy, cluster_names=("refunds",),
        sets={REGRESSION: {"right": cluster}},
    )  # fmt: skip
    assert result.verdict == "promote"
    assert "6 of 126 examples lack scores of right on regression" in result.reasons[-1]


def test_the_constant_answer_has_to_be_beaten_with_missing_answers_counted_as_wrong():
    policy = GatePolicy(primary=Primary(metric="right"), beat_constant_answer=True)
    complete, with_gaps = cells(2, 120, 40, 338), cells(2, 120, 40, 313, unscored=25)
    for scores in (complete, with_gaps):
        assert gate(scores, policy=policy, constant_answer_rate=0.25).verdict == "promote"
    seen = cells(2, 120, 40, 313)
    # 160 of 475 right beats 0.294 at 5 %; 160 of 500 does not (exact binomial bounds)
    assert gate(seen, policy=policy, constant_answer_rate=0.294).verdict == "promote"
    result = gate(with_gaps, policy=policy, constant_answer_rate=0.294)
    assert result.verdict == "inconclusive"
    assert "constant" in " ".join(result.reasons) or "most common answer" in result.reasons[1]


def test_further_losses_are_new_examples_of_new_users_outside_of_clusters():
    users, clusters = np.array([5, 5]), np.array([0, 1])
    scores = MetricScores("right", np.array([1.0, 0.0]), np.array([1.0, 1.0]), users, clusters)
    more = with_losses(scores, 2, higher_is_better=True)
    assert more.champion.tolist() == [1.0, 0.0, 1.0, 1.0]
    assert more.challenger.tolist() == [1.0, 1.0, 0.0, 0.0]
    assert more.users.tolist() == [5, 5, 6, 7]
    assert more.clusters.tolist() == [0, 1, -1, -1]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 64, 100])
def test_the_search_finds_the_smallest_number_of_losses(limit):
    assert losses_to_overturn(lambda losses: losses < limit, 100) == limit


def test_where_no_number_of_losses_changes_anything_there_is_none():
    assert losses_to_overturn(lambda _: True, 100) is None


def test_one_unseen_failure_at_a_ceiling_is_told():
    # a hair better on every example, and one total failure would outweigh all of it
    champion = np.linspace(0.95, 0.97, 150)
    result = gate(
        MetricScores("token_f1", champion, champion + np.tile([0.001, 0.003], 75)),
        policy=GatePolicy(primary=Primary(metric="token_f1")),
    )
    assert result.verdict == "promote"
    assert result.losses_to_overturn == 1
    assert "1 unseen loss of the challenger would overturn a promotion" in gate_text(result)
    assert "failures in 2.00% of cases" in gate_text(result)  # the rule of three: 3 / 150
