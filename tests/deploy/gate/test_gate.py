import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.deploy.gate import run_gate
from ratchet.deploy.gate.evidence import EQUAL, MCNEMAR, GateQuestion, weigh
from ratchet.deploy.gate.policy import GatePolicy, Guardrail, Looks, Primary
from ratchet.deploy.gate.report import gate_json, gate_text
from ratchet.deploy.gate.sample_size import Expectation, plan_gate
from ratchet.deploy.gate.scores import GateScores, MetricScores
from ratchet.errors import InvalidInputError
from ratchet.stats.comparisons import mcnemar_exact
from ratchet.stats.comparisons.means import paired_mean_test
from ratchet.stats.comparisons.sample_size import paired_rate_sample_size
from ratchet.stats.comparisons.spending import nominal_levels
from ratchet.stats.intervals import mean_interval
from tests.parameters import examples


def counted(both=0, only_champion=0, only_challenger=0, neither=0, metric="right", **more):
    """Right or wrong by how many examples of each kind there are."""
    kinds = ((1, 1, both), (1, 0, only_champion), (0, 1, only_challenger), (0, 0, neither))
    champion = np.concatenate([np.full(n, one, float) for one, _, n in kinds])
    challenger = np.concatenate([np.full(n, two, float) for _, two, n in kinds])
    return MetricScores(metric, champion, challenger, **more)


def measured(differences, metric="score", level=10.0, **more):
    """Scores around a level with given differences."""
    differences = np.asarray(differences, float)
    champion = level + np.sin(np.arange(differences.size))
    return MetricScores(metric, champion, champion + differences, **more)


def gate(*metrics, clusters=(), policy=None, outputs=None, **changes):
    scores = GateScores({one.metric: one for one in metrics}, tuple(clusters), outputs)
    asked = policy or GatePolicy(primary=Primary(metric=metrics[0].metric))
    return run_gate(scores, asked, **changes)


BETTER = counted(300, 20, 60, 120)
WORSE = counted(300, 60, 20, 120)
EQUAL_ONES = counted(600, 20, 22, 358)
OPEN = counted(50, 12, 14, 24)


# Verdicts -----------------------------------------------------------------------------------------


def test_a_better_challenger_is_promoted_by_the_exact_test():
    result = gate(BETTER)
    assert result.verdict == "promote"
    assert result.primary.p_shown == mcnemar_exact(20, 60).p_value_second_better
    assert result.primary.test == MCNEMAR
    assert result.primary.difference == pytest.approx(40 / 500)
    assert result.needed is None


def test_a_worse_one_is_rejected_an_equal_one_held_and_an_open_one_is_inconclusive():
    assert gate(WORSE).verdict == "reject"
    assert gate(EQUAL_ONES).verdict == "hold"
    result = gate(OPEN)
    assert result.verdict == "inconclusive"
    assert result.needed > 100


def test_the_direction_turns_the_verdict():
    lower = GatePolicy(primary=Primary(metric="right", higher_is_better=False))
    assert gate(BETTER, policy=lower).verdict == "reject"
    turned = gate(WORSE, policy=lower)
    assert turned.verdict == "promote"
    assert turned.primary.difference < 0.0
    low, high = turned.primary.interval
    assert low < turned.primary.difference < high < 0.0


@pytest.mark.slow
@given(
    st.integers(0, 2**32 - 1), st.sampled_from([-0.4, -0.1, 0.0, 0.1, 0.4]),
    st.sampled_from([0.0, 0.2]), st.booleans(), st.integers(20, 90),
)  # fmt: skip
@settings(max_examples=examples(60), deadline=None)
def test_negated_scores_and_the_other_direction_give_the_same_verdict(
    seed, shift, margin, has_users, size
):
    rng = np.random.default_rng(seed)
    users = rng.integers(0, 30, size) if has_users else None
    names, clusters = ("a", "b"), rng.integers(0, 2, size)
    found = {}
    for metric in ("first", "second", "third"):
        champion = rng.normal(10.0, 2.0, size)
        challenger = champion + rng.normal(shift, 1.0, size)
        found[metric] = (champion, np.where(rng.random(size) < 0.02, np.nan, challenger))

    def decided(sign):
        direction = {"higher_is_better": sign > 0}
        policy = GatePolicy(
            primary=Primary(metric="first", margin=margin, hold_margin=0.4, **direction),
            guardrails=(
                Guardrail(metric="second", margin=0.3, **direction),
                Guardrail(metric="first", per_cluster=True, requires="no_harm", **direction),
            ),
            secondary=("third",),
            max_unscored_difference=0.05,
            **{"higher_is_better" if sign > 0 else "lower_is_better": ("third",)},
        )
        metrics = {
            name: MetricScores(name, sign * one, sign * two, users, clusters)
            for name, (one, two) in found.items()
        }
        return run_gate(GateScores(metrics, names), policy)

    one, other = decided(1.0), decided(-1.0)
    assert (one.verdict, one.needed) == (other.verdict, other.needed)
    assert one.adjusted == pytest.approx(other.adjusted)
    for here, there in zip(
        (one.primary, *one.guardrails, *one.secondary),
        (other.primary, *other.guardrails, *other.secondary),
        strict=True,
    ):
        assert (here.p_shown, here.p_harm) == pytest.approx((there.p_shown, there.p_harm))
        assert here.problem == there.problem
        if here.interval is not None:
            assert here.interval == pytest.approx(tuple(-end for end in there.interval[::-1]))


@pytest.mark.slow
@given(st.integers(0, 90), st.integers(0, 90), st.integers(0, 90), st.integers(0, 90))
@settings(max_examples=examples(40), deadline=None)
def test_wrong_answers_counted_down_are_right_answers_counted_up(both, lost, won, neither):
    """Right or wrong: the exact test of failures is that of successes."""
    right = counted(both, lost, won, neither)
    wrong = MetricScores("wrong", 1.0 - right.champion, 1.0 - right.challenger)
    one, other = gate(right), gate(wrong)
    assert not other.policy.primary.higher_is_better
    assert (one.verdict, one.needed, one.hold_margin) == (
        other.verdict, other.needed, other.hold_margin,
    )  # fmt: skip
    if one.primary.champion is not None:
        assert one.primary.p_shown == pytest.approx(other.primary.p_shown)
        assert one.primary.test == other.primary.test


def test_the_constant_answer_is_no_floor_for_what_should_be_less():
    policy = GatePolicy(
        primary=Primary(metric="right", higher_is_better=False), beat_constant_answer=True
    )
    scores = GateScores({"right": WORSE}, constant_answer_rate=0.125)
    result = run_gate(scores, policy)
    assert result.verdict == "inconclusive"
    assert "lower is better" in result.reasons[0]


def test_the_direction_of_every_metric_is_in_text_and_json():
    policy = GatePolicy(
        primary=Primary(metric="right"),
        guardrails=(Guardrail(metric="wer", requires="no_harm"),),
        secondary=("loss", "m7"),
        higher_is_better=("m7",),
    )
    result = gate(BETTER, measured(np.zeros(90), metric="loss"), policy=policy)
    text = gate_text(result)
    lines = {line.split()[1]: line for line in text.splitlines() if ": " in line and "[" in line}
    assert "higher is better" in lines["right"]
    assert "lower is better" in lines["loss"]
    assert "wer: lower is better" in text
    assert "m7: higher is better" in text
    assert gate_json(result)["directions"] == {
        "right": "higher is better", "wer": "lower is better", "loss": "lower is better",
        "m7": "higher is better",
    }  # fmt: skip


def test_a_margin_must_be_exceeded():
    for margin, verdict in ((0.03, "promote"), (0.08, "hold")):
        policy = GatePolicy(primary=Primary(metric="right", margin=margin))
        assert gate(BETTER, policy=policy).verdict == verdict


def test_a_hold_margin_that_is_not_given_follows_from_the_scores():
    assert gate(EQUAL_ONES).hold_margin == 0.05
    rng = np.random.default_rng(0)
    result = gate(measured(rng.normal(0.0, 0.1, 400)))
    champion = 10.0 + np.sin(np.arange(400))
    assert result.hold_margin == pytest.approx(0.2 * champion.std())
    assert result.verdict == "hold"


@given(st.integers(0, 120), st.integers(0, 120), st.integers(0, 300), st.integers(0, 300))
@settings(max_examples=examples(60))
def test_verdict_and_p_values_belong_together_and_swapping_turns_them(losses, wins, both, neither):
    one = gate(counted(both, losses, wins, neither), plan=False)
    other = gate(counted(both, wins, losses, neither), plan=False)
    if one.primary.examples < 30:
        assert one.verdict == "inconclusive"
        return
    p_better = mcnemar_exact(losses, wins).p_value_second_better
    assert (one.verdict == "promote") == (p_better <= 0.05)
    assert (one.verdict == "promote") == (other.verdict == "reject")


# What never passes --------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"same_digest": True}, {"outputs": True}])
def test_the_same_artefact_is_held_whatever_its_scores(changes):
    result = gate(BETTER, **changes)
    assert result.verdict == "hold"
    assert "same artefact" in result.reasons[0]


def test_scores_that_never_differ_are_held_only_where_there_are_enough():
    assert gate(counted(800, 0, 0, 200)).verdict == "hold"
    assert gate(counted(40, 0, 0, 10)).verdict == "inconclusive"
    same = gate(measured(np.zeros(2_000)))
    assert (same.verdict, same.primary.test) == ("hold", EQUAL)
    low, high = same.primary.interval
    assert low < 0.0 < high


def test_a_failed_evaluation_and_an_unusable_judge_never_promote():
    failed = gate(BETTER, failure="the endpoint was gone")
    assert failed.verdict == "inconclusive"
    assert "the endpoint was gone" in failed.reasons[0]
    policy = GatePolicy(primary=Primary(metric="right"), judges=("helpful", "safe"))
    unusable = gate(BETTER, policy=policy, usable_judges=["safe"])
    assert unusable.verdict == "inconclusive"
    assert "helpful" in unusable.reasons[0]
    assert gate(BETTER, policy=policy, usable_judges=["safe", "helpful"]).verdict == "promote"


def without(scores, champion=0, challenger=0):
    """The scores with some of each side missing, of different examples."""
    one, two = scores.champion.copy(), scores.challenger.copy()
    one[:champion] = np.nan
    two[champion : champion + challenger] = np.nan
    return dataclasses.replace(scores, champion=one, challenger=two)


@pytest.mark.parametrize(
    ("champion", "challenger", "verdict"),
    [(0, 1, "inconclusive"), (5, 0, "inconclusive"), (5, 5, "promote"), (20, 20, "inconclusive")],
)
def test_missing_scores_pass_only_where_they_are_few_and_equally_many(
    champion, challenger, verdict
):
    result = gate(without(BETTER, champion, challenger))
    assert result.verdict == verdict
    assert result.primary.unscored == (champion, challenger)


def test_a_policy_may_tolerate_a_difference():
    policy = GatePolicy(primary=Primary(metric="right"), max_unscored_difference=0.01)
    assert gate(without(BETTER, 0, 3), policy=policy).verdict == "promote"
    assert gate(without(BETTER, 0, 10), policy=policy).verdict == "inconclusive"


def test_missing_scores_of_a_worse_challenger_do_not_reject_it():
    assert gate(without(WORSE, 0, 5)).verdict == "inconclusive"


def test_a_metric_that_is_not_there_never_passes():
    policy = GatePolicy(primary=Primary(metric="other", higher_is_better=True))
    assert gate(BETTER, policy=policy).verdict == "inconclusive"
    guarded = GatePolicy(
        primary=Primary(metric="right"),
        guardrails=(Guardrail(metric="safety", higher_is_better=True, margin=0.01),),
    )
    result = gate(BETTER, policy=guarded)
    assert result.verdict == "inconclusive"
    assert "safety: no example has both scores" in result.reasons[0]


def test_few_examples_or_users_never_pass():
    few = gate(counted(0, 0, 29, 0))
    assert few.verdict == "inconclusive"
    assert "29 examples are fewer than the 30" in few.reasons[0]
    users = np.repeat(np.arange(10), 50)
    assert (
        "10 users are fewer than the 20" in gate(counted(300, 20, 60, 120, users=users)).reasons[0]
    )


def test_one_user_alone_shows_nothing():
    result = gate(measured(np.random.default_rng(0).normal(5, 1, 50), users=np.zeros(50, int)))
    assert result.verdict == "inconclusive"
    assert json.dumps(gate_json(result), allow_nan=False)


# Guardrails ---------------------------------------------------------------------------------------


def guarded(**rule):
    return GatePolicy(primary=Primary(metric="right"), guardrails=(Guardrail(**rule),))


def test_a_guardrail_must_be_shown_and_says_how_many_examples_that_takes():
    rule = guarded(metric="safety", higher_is_better=True, margin=0.02)
    safe = counted(1_990, 3, 2, 5, metric="safety")
    assert gate(BETTER, safe, policy=rule).verdict == "promote"
    few = counted(95, 1, 1, 3, metric="safety")
    result = gate(BETTER, few, policy=rule)
    assert result.verdict == "inconclusive"
    assert "safety is not shown to be no worse by 0.02" in result.reasons[1]
    planned = paired_rate_sample_size(discordance=0.02, difference=0.0, margin=-0.02)
    assert result.needed == planned.examples
    broken = counted(900, 80, 5, 15, metric="safety")
    result = gate(BETTER, broken, policy=rule)
    assert result.verdict == "reject"
    assert "safety is worse by more than 0.02" in result.reasons[0]


def test_where_a_guardrail_looks_broken_no_number_of_examples_decides_it():
    result = gate(
        BETTER,
        counted(90, 6, 2, 2, metric="safety"),
        policy=guarded(metric="safety", higher_is_better=True, margin=0.02),
    )
    assert result.verdict == "inconclusive"
    assert result.needed is None
    assert "no number of examples" in gate_text(result)


def test_longer_answers_are_stopped_by_a_relative_guardrail():
    rule = guarded(metric="length", margin=0.1, relative=True, higher_is_better=False)
    rng = np.random.default_rng(0)
    for growth, verdict in ((0.0, "promote"), (0.05, "promote"), (0.3, "reject")):
        champion = rng.gamma(8.0, 10.0, 500)
        lengths = MetricScores(
            "length", champion, champion * (1.0 + growth) + rng.normal(0, 5, 500)
        )
        assert gate(BETTER, lengths, policy=rule).verdict == verdict


def test_a_relative_margin_is_that_of_the_scaled_difference():
    rng = np.random.default_rng(1)
    champion = rng.gamma(8.0, 10.0, 300)
    scores = MetricScores("length", champion, champion + rng.normal(2, 9, 300))
    question = GateQuestion(
        "guardrail", "length", higher_is_better=False, margin=0.1, relative=True
    )
    found = weigh(scores, question, alpha=0.05)
    expected = paired_mean_test(1.1 * champion - scores.challenger)
    assert found.p_shown == pytest.approx(expected.p_above)
    assert found.p_harm == pytest.approx(expected.p_below)


def test_a_broken_cluster_stops_a_challenger_that_is_better_overall():
    champion = np.r_[np.zeros(400), np.ones(60)]
    challenger = np.r_[np.ones(120), np.zeros(280), np.zeros(40), np.ones(20)]
    clusters = np.r_[np.repeat([0, 1], 200), np.full(60, 2)]
    scores = MetricScores("right", champion, challenger, clusters=clusters)
    names = ("fees", "cards", "refunds")
    assert gate(scores, clusters=names).verdict == "promote"
    rule = Guardrail(metric="right", per_cluster=True, requires="no_harm")
    policy = GatePolicy(primary=Primary(metric="right"), guardrails=(rule,))
    result = gate(scores, clusters=names, policy=policy)
    assert result.verdict == "reject"
    assert result.reasons == ("right in refunds is worse, p = 9.1e-13 (exact McNemar test)",)
    assert [one.question.cluster for one in result.guardrails] == list(names)


def test_a_cluster_that_is_small_blocks_only_where_something_must_be_shown():
    clusters = np.r_[np.zeros(490, int), np.ones(10, int)]
    scores = dataclasses.replace(BETTER, clusters=clusters)
    for requires, verdict in (("no_harm", "promote"), ("shown", "inconclusive")):
        rule = Guardrail(metric="right", margin=0.1, per_cluster=True, requires=requires)
        policy = GatePolicy(primary=Primary(metric="right"), guardrails=(rule,))
        assert gate(scores, clusters=("a", "b"), policy=policy).verdict == verdict


def test_a_guardrail_per_cluster_without_clusters_has_not_been_passed():
    rule = guarded(metric="right", margin=0.1, per_cluster=True)
    assert "right in any cluster" in gate(BETTER, policy=rule).reasons[0]


@pytest.mark.slow
def test_many_clusters_do_not_reject_by_their_number():
    rng = np.random.default_rng(3)
    rule = Guardrail(metric="score", per_cluster=True, requires="no_harm")
    policy = GatePolicy(primary=Primary(metric="score"), guardrails=(rule,))
    clusters = np.repeat(np.arange(40), 30)
    names = tuple(map(str, range(40)))
    rejected = sum(
        gate(
            measured(rng.normal(0.0, 1.0, 1_200), clusters=clusters), clusters=names, policy=policy
        ).verdict == "reject"
        for _ in range(100)
    )  # fmt: skip
    assert rejected <= 5 + 3 * math.sqrt(5)


# Users, looks, approval --------------------------------------------------------------------------


def test_repeated_users_are_what_counts():
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(50), 20)
    each = rng.normal(size=50)
    values = np.repeat((each - each.mean()) / each.std() + 0.15, 20)
    alone, together = gate(measured(values)), gate(measured(values, users=users))
    assert alone.verdict == "promote"
    assert together.verdict != "promote"
    assert together.primary.units == 50
    assert together.primary.design_effect == pytest.approx(20.0, rel=0.05)
    low, high = together.primary.interval
    expected = mean_interval(values[::20].tolist(), level=0.9)
    assert low == pytest.approx(expected.lower, abs=0.03)
    assert high == pytest.approx(expected.upper, abs=0.03)


def test_users_with_one_example_each_get_the_exact_test():
    users = np.arange(500)
    assert gate(dataclasses.replace(BETTER, users=users)).primary.test == MCNEMAR


def test_a_look_has_the_level_that_spending_leaves_it():
    policy = GatePolicy(primary=Primary(metric="right"), looks=Looks(maximum=3, examples=1_500))
    first = gate(BETTER, policy=policy)
    levels = nominal_levels([1 / 3, 2 / 3, 1.0])
    assert first.level == pytest.approx(levels[0])
    assert first.verdict == "promote"
    second = gate(BETTER, policy=policy, earlier=[250])
    assert second.level == pytest.approx(nominal_levels([1 / 6, 1 / 3])[1])
    assert (second.look, first.look) == (2, 1)
    last = gate(counted(900, 60, 80, 400), policy=policy, earlier=[500, 1_000])
    assert last.level == pytest.approx(levels[2])


def test_what_a_look_leaves_open_waits_for_the_next_one():
    policy = GatePolicy(primary=Primary(metric="right"), looks=Looks(maximum=3, examples=3_000))
    result = gate(EQUAL_ONES, policy=policy)
    assert result.verdict == "inconclusive"
    assert "2 more looks are planned" in result.reasons[0]
    assert result.needed == 3_000


@pytest.mark.parametrize("earlier", [[500], [600], [100, 200, 300], [2_000]])
def test_looks_that_were_not_planned_are_refused(earlier):
    policy = GatePolicy(primary=Primary(metric="right"), looks=Looks(maximum=3, examples=1_500))
    with pytest.raises(InvalidInputError, match="look"):
        gate(BETTER, policy=policy, earlier=earlier)
    with pytest.raises(InvalidInputError, match="spends the error level again"):
        gate(BETTER, earlier=[100])


def test_a_person_approves_where_the_policy_or_the_result_asks_for_it():
    primary = Primary(metric="right")
    rule = Guardrail(metric="safety", higher_is_better=True, margin=0.05, safety_critical=True)
    safe = counted(990, 2, 2, 6, metric="safety")
    close = counted(300, 40, 59, 101)  # p = 0.034
    assert gate(BETTER).approval is None
    always = GatePolicy(primary=primary, approval="always")
    assert gate(BETTER, policy=always).approval is not None
    assert gate(WORSE, policy=always).approval is None
    critical = GatePolicy(primary=primary, guardrails=(rule,))
    assert "safety" in (gate(BETTER, safe, policy=critical).approval or "")
    borderline = GatePolicy(primary=primary, approval="borderline")
    assert gate(BETTER, policy=borderline).approval is None
    assert "borderline" in (gate(close, policy=borderline).approval or "")


# Planning and reporting ---------------------------------------------------------------------------


def test_the_plan_is_for_all_that_must_be_shown():
    policy = GatePolicy(
        primary=Primary(metric="right"),
        guardrails=(
            Guardrail(metric="safety", higher_is_better=True, margin=0.02),
            Guardrail(metric="length", requires="no_harm", higher_is_better=False),
        ),
    )
    expected = {
        "right": Expectation(gain=0.05, discordance=0.2),
        "safety": Expectation(discordance=0.02),
    }
    alone = paired_rate_sample_size(discordance=0.2, difference=0.05, power=0.905).examples
    safety = paired_rate_sample_size(discordance=0.02, difference=0, margin=-0.02, power=0.905)
    assert plan_gate(policy, expected) == max(alone, safety.examples)
    with pytest.raises(InvalidInputError, match="expected of safety"):
        plan_gate(policy, {"right": expected["right"]})
    with pytest.raises(InvalidInputError, match="discordance or the spread"):
        plan_gate(policy, {**expected, "safety": Expectation()})


def test_secondary_metrics_are_adjusted_and_decide_nothing():
    policy = GatePolicy(primary=Primary(metric="right"), secondary=("f1", "score", "bleu"))
    rng = np.random.default_rng(0)
    result = gate(
        BETTER, measured(rng.normal(-1, 1, 100)), counted(10, 5, 30, 55, metric="f1"), policy=policy
    )
    assert result.verdict == "promote"
    assert result.adjusted["f1"] == pytest.approx(2 * mcnemar_exact(5, 30).p_value_second_better)
    assert result.adjusted["score"] == pytest.approx(1.0, abs=1e-6)


def test_the_report_names_verdict_evidence_and_what_would_decide_it():
    text = gate_text(gate(OPEN))
    assert text.startswith("inconclusive: right is not shown to be better")
    assert f"about {gate(OPEN).needed} examples in all would decide it" in text
    assert "primary: right" in text
    report = gate_json(gate(BETTER))
    assert report["verdict"] == "promote"
    assert report["primary"]["examples"] == 500
    assert report["policy"]["error_level"] == 0.05
    assert json.loads(json.dumps(report, allow_nan=False)) == report


# Words --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.4, 5.0, -3.0])
@pytest.mark.parametrize("size", [805, 2_000])
def test_where_no_example_differs_it_is_held_and_said_so(level, size):
    scores = MetricScores("score", np.full(size, level), np.full(size, level))
    result = gate(scores)
    assert result.verdict == "hold"
    assert result.reasons[0].startswith("no example differs in score, and it is shown to be no")
    assert gate(counted(600, 0, 0, 205)).reasons[0].startswith("no example differs in right")


def test_few_examples_that_do_not_differ_are_no_reason_to_hold():
    result = gate(MetricScores("score", np.full(40, 5.0), np.full(40, 5.0)))
    assert result.verdict == "inconclusive"
    assert "no example differs" in result.reasons[0]


@pytest.mark.parametrize(("gain", "verdict"), [(0.5, "promote"), (-0.5, "reject")])
@pytest.mark.parametrize("metric", ["score", "latency"])
def test_where_all_differ_by_the_same_nobody_says_that_none_differs(metric, gain, verdict):
    sign = -1.0 if metric == "latency" else 1.0
    result = gate(MetricScores(metric, np.full(80, 2.0), np.full(80, 2.0 + sign * gain)))
    assert result.verdict == verdict
    assert "every example differs by the same" in result.reasons[0]
    assert "no example differs" not in gate_text(result)


def test_where_every_example_is_won_the_exact_test_is_named():
    assert gate(counted(0, 0, 40, 0)).primary.test == MCNEMAR


@pytest.mark.parametrize(
    ("scores", "changes"),
    [(without(OPEN, 10, 10), {}), (without(OPEN, 0, 1), {}), (OPEN, {"failure": "it was down"})],
)
def test_where_something_else_than_examples_is_missing_no_number_of_them_is_named(scores, changes):
    result = gate(scores, **changes)
    assert (result.verdict, result.needed) == ("inconclusive", None)
    assert "would decide it" not in gate_text(result)


def test_the_library_does_not_guess_the_direction_of_a_metric():
    unknown = counted(300, 20, 60, 120, metric="m7")
    with pytest.raises(InvalidInputError, match="direction of each metric must be known, got none"):
        gate(unknown)
    for rules in (
        {"guardrails": (Guardrail(metric="m7", margin=0.1),)},
        {"secondary": ("m7",)},
    ):
        policy = GatePolicy(primary=Primary(metric="right"), **rules)
        with pytest.raises(InvalidInputError, match="got none for m7"):
            gate(BETTER, unknown, policy=policy)
        with pytest.raises(InvalidInputError, match="got none for m7"):
            gate(BETTER, unknown, policy=policy, same_digest=True)
