import dataclasses
import math
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.deploy.gate.decision import (
    compare_on_cluster,
    decision_id,
    looks_before,
    stored_decision,
)
from ratchet.deploy.gate.policy import GatePolicy, Guardrail, Looks, Primary
from ratchet.deploy.gate.scores import GateScores, metric_scores
from ratchet.errors import InvalidInputError
from ratchet.records import Decision, RegressionSet
from ratchet.views.text.gate import decision_markdown
from tests.deploy.gate.gated import AT, NEW, OLD, POLICY, columns, decided_on, gated, scores
from tests.parameters import examples

CLUSTER = RegressionSet(
    id="seven", created_at=AT, name="cards", example_set_id="regression-seven", users=()
)

# The loop's own policy ----------------------------------------------------------------------------


def test_the_same_artefact_is_held_before_anything_else_is_looked_at():
    twin = dataclasses.replace(NEW, digest=OLD.digest)
    decision = decided_on(scores(0, 0, 10, unscored=5), challenger=twin)
    assert decision.verdict == "hold"
    assert decision.reasons == ("same artefact: the digests are the same",)
    assert decision.p_value == 1.0


def test_a_missing_score_never_passes_however_good_the_rest_is():
    decision = decided_on(scores(100, 0, 199, unscored=1))
    assert decision.verdict == "inconclusive"
    assert "1 of 300 examples lack scores" in decision.reasons[0]
    assert decision.evidence["unscored"] == 1.0


@pytest.mark.parametrize(("examples", "verdict"), [(99, "inconclusive"), (100, "promote")])
def test_below_the_minimum_nothing_is_decided(examples, verdict):
    decision = decided_on(scores(0, 0, examples))
    assert decision.verdict == verdict
    assert (decision.examples, decision.policy["minimum_examples"]) == (examples, 100)


def test_identical_outputs_are_the_same_artefact_and_not_a_tie():
    decision = decided_on(scores(200, 0, 0, 100, identical=True))
    assert decision.verdict == "hold"
    assert decision.reasons == ("same artefact: every answer is identical",)
    assert decision.champion_value == decision.challenger_value == pytest.approx(2 / 3)


def test_a_challenger_not_shown_to_beat_a_constant_answer_is_rejected():
    # 50 of 300 right: the exact 95 % interval begins at 0.126, below a constant rate of 0.15,
    # although 45 wins against 0 losses is p = 0.5**45
    weak = scores(5, 0, 45, 250, constant=0.15)
    decision = decided_on(weak)
    assert decision.p_value == pytest.approx(0.5**45)
    assert decision.verdict == "reject"
    assert "lower bound 12.6% against 15.0%" in decision.reasons[0]
    assert decision.evidence["challenger_lower_bound"] == pytest.approx(0.126, abs=5e-4)
    without = POLICY.model_copy(update={"beat_constant_answer": False})
    assert decided_on(weak, without).verdict == "promote"


def test_a_guesser_over_a_champion_that_is_never_right_is_rejected():
    # one of eight queues at random is right on 38 of 300, a constant answer as often
    decision = decided_on(scores(0, 0, 38, 262, constant=38 / 300))
    assert decision.p_value == pytest.approx(0.5**38)
    assert decision.verdict == "reject"


def test_where_nobody_knows_the_constant_answer_nothing_is_promoted():
    decision = decided_on(scores(0, 0, 300, constant=None))
    assert decision.verdict == "inconclusive"
    assert "targets" in decision.reasons[0]


def test_the_floor_counts_users_and_not_their_repeated_answers():
    # 20 users of 15 examples each, all right or all wrong: 4 users right of 20. Over examples the
    # bound is 15.6 % (exact), over users far lower.
    users = [f"u{row // 15}" for row in range(300)]
    clustered = scores(0, 0, 60, 240, constant=0.125, users=users)
    alone = scores(0, 0, 60, 240, constant=0.125)
    bounds = [decided_on(made).evidence["challenger_lower_bound"] for made in (alone, clustered)]
    assert bounds[0] == pytest.approx(0.156, abs=1e-3)
    assert bounds[1] < 0.125
    assert decided_on(clustered).verdict != "promote"


def test_a_better_challenger_is_promoted_with_its_evidence():
    # Binomial(40, 1/2): the tail up to 10 is 0.0011107
    decision = decided_on(scores(200, 10, 30, 60))
    assert decision.verdict == "promote"
    assert decision.p_value == pytest.approx(0.0011107, abs=1e-6)
    assert (decision.champion_value, decision.challenger_value) == (0.7, pytest.approx(230 / 300))
    assert decision.difference == pytest.approx(20 / 300)
    assert decision.interval[0] < decision.difference < decision.interval[1]
    assert decision.evidence["only_champion_right"] == 10.0
    assert decision.evidence["only_challenger_right"] == 30.0
    assert (decision.champion, decision.challenger) == ("support-router/1", "support-router/2")
    assert decision.policy == POLICY.model_dump(mode="json")
    assert (decision.level, decision.look, decision.approval) == (0.025, 1, None)
    assert decision.measured[0].test == "exact McNemar test"


def test_a_worse_challenger_is_rejected():
    decision = decided_on(scores(200, 30, 10, 60))
    assert decision.verdict == "reject"
    assert "is worse" in decision.reasons[0]
    assert decision.difference == pytest.approx(-20 / 300)


def test_a_challenger_shown_to_be_no_worse_is_held():
    # 6 against 6 of 600: standard error sqrt(12) / 600 = 0.6 points, so the interval is about
    # -1.1 to +1.1 points (an exact one is wider), inside the margin of 5
    decision = decided_on(scores(400, 6, 6, 188))
    assert decision.verdict == "hold"
    assert decision.interval == pytest.approx((-0.0113, 0.0113), abs=0.004)
    assert "no worse by 0.05" in decision.reasons[0]


def test_a_wide_interval_is_inconclusive_and_says_what_would_settle_it():
    # 30 against 30 of 150: standard error sqrt(60) / 150 = 5.2 points, about -10 to +10. To show
    # no loss of 5 points at 2.5 % with power 80 % takes (1.96 + 0.84)^2 0.4 / 0.05^2 = 1,256
    decision = decided_on(scores(60, 30, 30, 30))
    assert decision.verdict == "inconclusive"
    assert decision.interval[0] < -0.05
    assert decision.needed == pytest.approx(1_256, rel=0.05)


@pytest.mark.parametrize(("losses", "wins", "verdict"), [(0, 5, "hold"), (0, 6, "promote")])
def test_six_wins_without_a_loss_are_the_fewest_that_promote(losses, wins, verdict):
    # 0.5**5 = 0.03125 and 0.5**6 = 0.015625, around the level of 0.025
    assert decided_on(scores(250, losses, wins, 44)).verdict == verdict


counts = st.tuples(*[st.integers(0, 60)] * 4).filter(lambda cells: sum(cells) >= 20)


@settings(max_examples=examples(40))
@given(cells=counts, level=st.sampled_from([0.005, 0.025, 0.05]))
def test_promotion_and_a_significant_gain_are_the_same_thing(cells, level):
    changes = {"error_level": level, "minimum_examples": 20}
    decision = decided_on(scores(*cells, constant=0.0), POLICY.model_copy(update=changes))
    assert (decision.verdict == "promote") == (decision.p_value <= level)


@pytest.mark.slow
@settings(max_examples=15)
@given(cells=counts)
def test_swapping_the_models_turns_promote_into_reject(cells):
    changes = {"minimum_examples": 20, "beat_constant_answer": False}
    policy = POLICY.model_copy(update=changes)
    both, first, second, neither = cells
    one = decided_on(scores(both, first, second, neither), policy)
    other = decided_on(scores(both, second, first, neither), policy)
    assert one.difference == -other.difference
    assert (one.verdict == "promote") == (other.verdict == "reject")


def test_every_number_of_a_decision_is_finite_at_the_extremes():
    for cells in ((300, 0, 0, 0), (0, 300, 0, 0), (0, 0, 300, 0), (0, 0, 0, 300)):
        decision = decided_on(scores(*cells))
        numbers = [decision.p_value, *decision.interval, *decision.evidence.values()]
        assert all(math.isfinite(number) for number in numbers)


def test_without_any_score_the_decision_has_no_number_in_its_place():
    decision = decided_on(GateScores({}, constant_answer_rate=0.1))
    assert decision.verdict == "inconclusive"
    assert (decision.champion_value, decision.difference, decision.interval) == (None, None, None)


# Failure clusters ---------------------------------------------------------------------------------


def test_a_broken_cluster_stops_a_challenger_that_is_better_over_all():
    # 20 lost of 20: 0.5**20, below the level also after Holm over three
    broken = scores(150, 0, 100, 50, clusters={"cards": (0, 20, 0, 0), "pins": (20, 0, 0, 0)})
    decision = decided_on(broken)
    assert decision.verdict == "reject"
    assert decision.reasons[0].startswith("exact_match in cards is worse")
    assert [item.cluster for item in decision.measured[1:]] == ["cards", "pins"]


def test_a_cluster_that_moves_no_more_than_chance_stops_nothing():
    decision = decided_on(scores(150, 0, 100, 50, clusters={"cards": (12, 4, 2, 2)}))
    assert decision.verdict == "promote"


def test_clusters_count_beside_the_primary_metric_and_not_within_it():
    with_cluster = decided_on(scores(200, 10, 30, 60, clusters={"cards": (0, 0, 40, 0)}))
    assert (with_cluster.examples, with_cluster.champion_value) == (300, 0.7)


def test_before_there_are_failure_clusters_their_guardrail_holds():
    assert decided_on(scores(200, 10, 30, 60)).verdict == "promote"


def test_a_cluster_is_compared_on_what_both_answered():
    first, second = columns(3, 1, 9, 2, 4)
    named = [f"e{row}" for row in range(first.size)]
    made = [
        {
            key: None if value != value else bool(value)
            for key, value in zip(named, part, strict=True)
        }
        for part in (first, second)
    ]
    found = compare_on_cluster(CLUSTER, *made)
    assert (found.examples, found.unscored) == (15, 4)
    assert (found.champion_right, found.challenger_right) == (4, 12)
    assert (found.only_champion_right, found.only_challenger_right) == (1, 9)
    # closed form: 2 (1 + 10) / 2^10
    assert found.p_value == pytest.approx(22 / 1024)
    with pytest.raises(InvalidInputError, match="same examples of 'cards'"):
        compare_on_cluster(CLUSTER, made[0], {"e0": True})


def on_a_set(cells, **changes):
    """A gate whose guardrail is asked of a set of its own."""
    made, _ = metric_scores({"refusal_rate": columns(*cells)})
    rule = Guardrail(metric="refusal_rate", examples="safety", **{"margin": 0.05} | changes)
    policy = POLICY.model_copy(update={"guardrails": (rule,)})
    found = scores(200, 10, 30, 60)
    return decided_on(dataclasses.replace(found, sets={"safety": made}), policy), policy, found


def test_a_guardrail_may_be_asked_of_a_set_of_its_own():
    # fewer refusals are better: the first cell refuses in both, the third in the challenger alone
    kept, policy, found = on_a_set((10, 0, 0, 190))
    assert kept.verdict == "promote"
    assert kept.measured[1].name == "refusal_rate on safety"
    assert (kept.examples, kept.measured[1].examples) == (300, 200)
    assert on_a_set((10, 0, 60, 130))[0].verdict == "reject"
    assert decided_on(found, policy).verdict == "inconclusive"  # the set is not there


def test_a_safety_critical_set_waits_for_a_person():
    kept, _, _ = on_a_set((10, 0, 0, 190), safety_critical=True)
    assert kept.verdict == "promote"
    assert kept.approval == "safety-critical: refusal_rate"


def test_a_borderline_promotion_waits_for_a_person_where_the_policy_asks():
    policy = POLICY.model_copy(update={"approval": "borderline"})
    # 0.5**6 = 0.0156 is above half the level of 0.025, 0.5**8 = 0.0039 below
    assert decided_on(scores(250, 0, 6, 44), policy).approval.startswith("borderline: p = 0.016")
    assert decided_on(scores(250, 0, 8, 42), policy).approval is None


# Once a candidate ---------------------------------------------------------------------------------


def test_a_decision_has_the_same_id_again_and_another_for_another_gate():
    stricter = POLICY.model_copy(update={"error_level": 0.01})
    ids = {
        decided_on(scores(300)).id,
        decision_id(POLICY, gated()),
        decision_id(stricter, gated()),
        decision_id(POLICY, gated(NEW, OLD)),
        decision_id(POLICY, gated(cycle="c2")),
        decision_id(POLICY, gated(sets=("e2",))),
        decision_id(POLICY, gated(sets=("e", "regression"))),
    }
    assert len(ids) == 6


def test_a_decision_survives_the_store_unchanged(store):
    decision = decided_on(scores(200, 10, 30, 60, clusters={"cards": (4, 4, 4, 4)}))
    store.append(decision)
    assert store.get(Decision, decision.id) == decision


def test_another_policy_or_other_examples_do_not_give_a_candidate_a_second_chance(store):
    decision = decided_on(scores(60, 30, 30, 30))
    store.append(decision)
    lenient = POLICY.model_copy(update={"error_level": 0.4})
    for policy, what in ((POLICY, gated()), (lenient, gated()), (POLICY, gated(sets=("more",)))):
        assert stored_decision(store, policy, what) == decision
    assert stored_decision(store, POLICY, gated(cycle="next")) is None
    assert stored_decision(store, POLICY, gated(challenger=OLD)) is None


def test_a_gate_that_could_weigh_nothing_spent_nothing(store):
    store.append(decided_on(scores(0, 0, 199, unscored=1)))
    assert stored_decision(store, POLICY, gated(sets=("complete",))) is None


def test_a_policy_with_looks_gives_as_many_looks_as_it_plans(store):
    policy = GatePolicy(primary=Primary(metric="exact_match"), looks=Looks(maximum=2, examples=400))
    assert looks_before(store, POLICY, gated()) == ()
    first = decided_on(scores(80, 5, 7, 108), policy)
    assert (first.verdict, first.look) == ("inconclusive", 1)
    store.append(first)
    again = gated(sets=("e", "more"))
    assert stored_decision(store, policy, gated()) == first
    assert stored_decision(store, policy, again) is None
    before = looks_before(store, policy, again)
    second = decided_on(scores(160, 10, 14, 216), policy, earlier=before)
    assert second.look == 2
    store.append(second.model_copy(update={"id": decision_id(policy, again)}))
    assert stored_decision(store, policy, gated(sets=("third",))).look == 2


# A person's word ----------------------------------------------------------------------------------


def test_a_policy_that_asks_for_a_person_says_why_and_until_when():
    policy = POLICY.model_copy(update={"approval": "always", "approval_hours": 48.0})
    decision = decided_on(scores(200, 10, 30, 60), policy)
    assert decision.verdict == "promote"
    assert "a person's approval" in decision.approval
    assert decision.expires_at == AT + timedelta(hours=48)
    assert decided_on(scores(200, 30, 10, 60), policy).approval is None


def test_decisions_of_earlier_versions_still_load():
    # as version 0.1 stored them
    old = {
        "id": "d", "cycle_id": "c", "created_at": "2026-11-24T00:00:00Z",
        "champion": "router/1", "challenger": "router/2", "verdict": "promote",
        "reasons": ["better"], "primary_metric": "exact_match", "champion_value": 0.05,
        "challenger_value": 0.8, "difference": 0.75, "interval": [0.7, 0.8], "p_value": 1e-60,
        "examples": 300, "example_set_id": "e",
        "policy": {"primary_metric": "exact_match", "alpha": 0.05, "margin": 0.05},
        "evidence": {"unscored": 0.0},
    }  # fmt: skip
    decision = Decision.model_validate(old)
    assert (decision.level, decision.approval, decision.measured) == (None, None, ())


def test_of_what_should_be_less_the_better_one_alone_is_counted_as_such():
    champion, challenger = columns(200, 10, 30, 60)
    made, _ = metric_scores({"failed": (1.0 - champion, 1.0 - challenger)})
    policy = GatePolicy(primary=Primary(metric="failed"))
    decision = decided_on(GateScores(made), policy)
    assert decision.verdict == "promote"
    assert decision.difference == pytest.approx(-20 / 300)
    assert not decision.higher_is_better
    assert decision.evidence["only_champion_right"] == 10.0
    assert decision.evidence["only_challenger_right"] == 30.0
    text = decision_markdown(decision)
    assert "| failed | lower is better |" in text


def test_an_older_decision_without_measured_metrics_has_its_policys_direction():
    decision = decided_on(scores(200, 10, 30, 60)).model_copy(update={"measured": ()})
    assert decision.higher_is_better
    for primary, higher in (({"higher_is_better": False}, False), ({}, True)):
        older = decision.model_copy(update={"policy": {"primary": primary}})
        assert older.higher_is_better is higher
    assert decision.model_copy(update={"policy": {}}).higher_is_better
