import dataclasses
import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.deploy.promotion import (
    PairedScores,
    Policy,
    adopt_champion,
    apply_decision,
    compare_on_cluster,
    decide,
    decision_id,
    establish_champion,
    rollback,
)
from ratchet.deploy.routing import serving_champion, switch
from ratchet.errors import InvalidInputError, TrackingError
from ratchet.records import Decision, RegressionSet, Release
from ratchet.tracking import ModelVersion, Tracker

OLD = ModelVersion("support-router/1", "1", None, "digest-1", None)
NEW = ModelVersion("support-router/2", "2", None, "digest-2", None)
LATER = timedelta(minutes=1)
AT = datetime(2026, 11, 24, tzinfo=UTC)


def scores(both=0, only_champion=0, only_challenger=0, neither=0, *, unscored=0, **changes):
    """Score examples by how many of each kind there are."""
    pairs = (
        [(True, True)] * both
        + [(True, False)] * only_champion
        + [(False, True)] * only_challenger
        + [(False, False)] * neither
        + [(True, None)] * unscored
    )
    made = PairedScores(
        champion={f"e{n}": first for n, (first, _) in enumerate(pairs)},
        challenger={f"e{n}": second for n, (_, second) in enumerate(pairs)},
        identical_outputs=False,
        constant_answer_rate=0.125,
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture
def gate(now):
    def run(made, policy=None, *, champion=OLD, challenger=NEW):
        return decide(
            made,
            policy or Policy(),
            champion=champion,
            challenger=challenger,
            cycle_id="c",
            example_set_id="e",
            now=now,
        )

    return run


# The rules, in order ------------------------------------------------------------------------------


def test_the_same_artefact_is_held_before_anything_else_is_looked_at(gate):
    twin = dataclasses.replace(NEW, digest=OLD.digest)
    decision = gate(scores(only_challenger=10, unscored=5), challenger=twin)
    assert decision.verdict == "hold"
    assert decision.reasons == ("same artefact: the challenger's digest is the champion's",)


def test_a_missing_score_never_passes_however_good_the_rest_is(gate):
    decision = gate(scores(both=100, only_challenger=199, unscored=1))
    assert decision.verdict == "inconclusive"
    assert "1 of 300 examples have no score" in decision.reasons[0]
    assert decision.evidence["unscored"] == 1.0


@pytest.mark.parametrize(("examples", "verdict"), [(99, "inconclusive"), (100, "promote")])
def test_below_the_minimum_nothing_is_decided(gate, examples, verdict):
    decision = gate(scores(only_challenger=examples))
    assert decision.verdict == verdict
    assert (decision.examples, decision.policy["minimum_examples"]) == (examples, 100)


def test_identical_outputs_are_the_same_artefact_and_not_a_tie(gate):
    decision = gate(scores(both=200, neither=100, identical_outputs=True))
    assert decision.verdict == "hold"
    assert decision.reasons == ("same artefact: every answer is identical",)


def test_a_challenger_not_shown_to_beat_a_constant_answer_is_rejected(gate):
    # 50 of 300 right: the exact 95 % interval begins at 0.126, below a constant rate of 0.15,
    # although 45 wins against 0 losses is p = 2 * 0.5**45
    weak = scores(both=5, only_challenger=45, neither=250, constant_answer_rate=0.15)
    decision = gate(weak)
    assert decision.p_value == pytest.approx(2 * 0.5**45)
    assert decision.verdict == "reject"
    assert "lower bound 12.6% against 15.0%" in decision.reasons[0]
    assert gate(weak, Policy(beat_constant_answer=False)).verdict == "promote"


def test_a_guesser_over_a_champion_that_is_never_right_is_rejected(gate):
    # one of eight queues at random is right on 38 of 300, a constant answer as often
    decision = gate(scores(only_challenger=38, neither=262, constant_answer_rate=38 / 300))
    assert decision.p_value == pytest.approx(2 * 0.5**38)
    assert decision.verdict == "reject"


def test_a_better_challenger_is_promoted_with_its_evidence(gate):
    # Binomial(40, 1/2): twice the tail up to 10 is 0.002221, as in `mcnemar_exact`
    decision = gate(scores(both=200, only_champion=10, only_challenger=30, neither=60))
    assert decision.verdict == "promote"
    assert decision.p_value == pytest.approx(0.002221, abs=1e-6)
    assert (decision.champion_value, decision.challenger_value) == (0.7, pytest.approx(230 / 300))
    assert decision.difference == pytest.approx(20 / 300)
    assert decision.interval[0] < decision.difference < decision.interval[1]
    assert decision.evidence["only_champion_right"] == 10.0
    assert decision.evidence["only_challenger_right"] == 30.0
    assert (decision.champion, decision.challenger) == ("support-router/1", "support-router/2")
    assert decision.policy == Policy().model_dump(mode="json")


def test_a_worse_challenger_is_rejected(gate):
    decision = gate(scores(both=200, only_champion=30, only_challenger=10, neither=60))
    assert decision.verdict == "reject"
    assert decision.reasons[0].startswith("worse")
    assert decision.difference == pytest.approx(-20 / 300)


def test_a_challenger_shown_to_be_no_worse_is_held(gate):
    # 6 against 6 of 600: standard error sqrt(12) / 600 = 0.6 points, so the interval is about
    # -1.1 to +1.1 points, inside the margin of 5
    decision = gate(scores(both=400, only_champion=6, only_challenger=6, neither=188))
    assert decision.verdict == "hold"
    assert decision.interval == pytest.approx((-0.0116, 0.0116), abs=0.002)
    assert "no worse by 5%" in decision.reasons[0]


def test_a_wide_interval_is_inconclusive(gate):
    # 30 against 30 of 150: standard error sqrt(60) / 150 = 5.2 points, about -10 to +10
    decision = gate(scores(both=60, only_champion=30, only_challenger=30, neither=30))
    assert decision.verdict == "inconclusive"
    assert decision.interval[0] < -0.05
    assert "more examples" in decision.reasons[0]


@pytest.mark.parametrize(("losses", "wins", "verdict"), [(0, 5, "hold"), (0, 6, "promote")])
def test_six_wins_without_a_loss_are_the_fewest_that_promote(gate, losses, wins, verdict):
    # 2 * 0.5**5 = 0.0625 and 2 * 0.5**6 = 0.03125, around alpha = 0.05
    decision = gate(scores(both=250, only_champion=losses, only_challenger=wins, neither=44))
    assert decision.verdict == verdict


@pytest.mark.parametrize(
    "changes",
    [{"challenger": {"other": True}}, {"champion": {}}, {"champion": {}, "challenger": {}}],
)
def test_scores_on_different_examples_are_refused(gate, changes):
    with pytest.raises(InvalidInputError, match="same examples, got"):
        gate(scores(both=100, **changes))


counts = st.tuples(*[st.integers(0, 60)] * 4).filter(lambda cells: sum(cells) >= 20)


@given(cells=counts, alpha=st.sampled_from([0.01, 0.05, 0.1]))
def test_promotion_and_a_significant_gain_are_the_same_thing(cells, alpha):
    policy = Policy(alpha=alpha, minimum_examples=20)
    decision = decide(
        scores(*cells, constant_answer_rate=0.0), policy, champion=OLD, challenger=NEW,
        cycle_id="c", example_set_id="e", now=AT,
    )  # fmt: skip
    significant = decision.p_value <= alpha and decision.difference > 0
    assert (decision.verdict == "promote") == significant


@given(cells=counts)
def test_swapping_the_models_turns_promote_into_reject(cells):
    policy = Policy(minimum_examples=20, beat_constant_answer=False)

    def verdict_and_gain(both, first, second, neither):
        made = decide(
            scores(both, first, second, neither), policy, champion=OLD, challenger=NEW,
            cycle_id="c", example_set_id="e", now=AT,
        )  # fmt: skip
        return made.verdict, made.difference

    both, first, second, neither = cells
    one, gain = verdict_and_gain(both, first, second, neither)
    other, loss = verdict_and_gain(both, second, first, neither)
    assert gain == -loss
    assert (one == "promote") == (other == "reject" and loss < 0)


def test_the_order_of_the_examples_changes_no_decision(gate):
    made = scores(both=150, only_champion=20, only_challenger=40, neither=90)
    turned = dataclasses.replace(
        made,
        champion=dict(reversed(made.champion.items())),
        challenger=dict(reversed(made.challenger.items())),
    )
    assert gate(turned) == gate(made)


def test_a_decision_has_the_same_id_again_and_another_under_another_policy(gate):
    made = scores(both=300)
    assert gate(made).id == gate(made).id == decision_id(Policy(), OLD, NEW, "c", "e")
    others = {
        decision_id(Policy(alpha=0.01), OLD, NEW, "c", "e"),
        decision_id(Policy(), NEW, OLD, "c", "e"),
        decision_id(Policy(), OLD, NEW, "c2", "e"),
        decision_id(Policy(), OLD, NEW, "c", "e2"),
    }
    assert len(others | {gate(made).id}) == 5


def test_every_number_of_a_decision_is_finite_at_the_extremes(gate):
    for cells in ((300, 0, 0, 0), (0, 300, 0, 0), (0, 0, 300, 0), (0, 0, 0, 300)):
        decision = gate(scores(*cells))
        numbers = [decision.p_value, *decision.interval, *decision.evidence.values()]
        assert all(math.isfinite(number) for number in numbers)


# Acting on a decision, with a real registry and a real store --------------------------------------


@pytest.fixture
def base(tracker):
    return tracker.register_base("tiny", "digest-base")


@pytest.fixture
def challenger(tracker, base, tmp_path):
    return register(tracker, tmp_path, "challenger")


def register(tracker, folder, name):
    adapter = folder / name
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    with tracker.run("test", key=name, name=name, tags={}) as run:
        source = run.folder(adapter, "adapter")
    return tracker.register_adapter(run.run_id, source, f"digest-{name}")


def decided(verdict, champion, challenger, now):
    cells = {"promote": (200, 0, 60, 40), "reject": (200, 60, 0, 40)}[verdict]
    decision = decide(
        scores(*cells), Policy(), champion=champion, challenger=challenger,
        cycle_id="c", example_set_id="e", now=now,
    )  # fmt: skip
    assert decision.verdict == verdict
    return decision


def aliases(tracker):
    champion, previous = tracker.champion(), tracker.previous()
    return champion and champion.reference, previous and previous.reference


def test_the_base_model_is_the_first_champion_and_that_is_recorded_once(store, tracker, base, now):
    for _ in range(2):
        assert establish_champion(store, tracker, base, now) == base
    (release,) = store.records(Release)
    assert (release.action, release.champion, release.previous) == ("start", base.reference, None)


def test_promotion_moves_the_aliases_once(store, tracker, base, challenger, now):
    establish_champion(store, tracker, base, now)
    decision = decided("promote", base, challenger, now)
    release = apply_decision(store, tracker, decision, now + LATER)
    assert release.action == "promote"
    assert release.decision_id == decision.id
    assert aliases(tracker) == (challenger.reference, base.reference)
    written = store.records(Release)
    assert apply_decision(store, tracker, decision, now + 2 * LATER) == release
    assert aliases(tracker) == (challenger.reference, base.reference)
    assert store.records(Release) == written


def test_a_rejected_challenger_is_tagged_and_moves_nothing(store, tracker, base, challenger, now):
    establish_champion(store, tracker, base, now)
    decision = decided("reject", base, challenger, now)
    assert apply_decision(store, tracker, decision, now) is None
    assert aliases(tracker) == (base.reference, None)
    tags = tracker._client.get_model_version(tracker.model_name, challenger.version).tags
    assert tags["ratchet.verdict"] == "reject"
    assert tags["ratchet.decision"] == decision.id


def test_rollback_restores_the_previous_version_and_is_recorded(
    store, tracker, base, challenger, now
):
    establish_champion(store, tracker, base, now)
    apply_decision(store, tracker, decided("promote", base, challenger, now), now + LATER)
    release = rollback(store, tracker, now + 2 * LATER)
    assert (release.action, release.champion) == ("rollback", base.reference)
    assert aliases(tracker) == (base.reference, None)
    assert store.latest(Release) == release
    with pytest.raises(TrackingError, match="needs a version with the alias 'previous'"):
        rollback(store, tracker, now + 3 * LATER)
    assert aliases(tracker) == (base.reference, None)


def test_a_decision_does_not_promote_again_after_a_rollback(store, tracker, base, challenger, now):
    establish_champion(store, tracker, base, now)
    decision = decided("promote", base, challenger, now)
    apply_decision(store, tracker, decision, now + LATER)
    rollback(store, tracker, now + 2 * LATER)
    apply_decision(store, tracker, decision, now + 3 * LATER)
    assert aliases(tracker) == (base.reference, None)


def test_a_promotion_that_was_cut_short_and_rolled_back_is_not_made_again(
    store, tracker, base, challenger, now
):
    establish_champion(store, tracker, base, now)
    decision = decided("promote", base, challenger, now)
    tracker.move_champion(challenger.reference, base.reference)  # killed before the record
    rollback(store, tracker, now + LATER)
    for number in range(2, 9):
        moved = Release(
            id=f"r{number}", created_at=now + number * LATER, action="moved outside Ratchet",
            champion=base.reference, previous=None,
        )  # fmt: skip
        store.append(moved)
    assert apply_decision(store, tracker, decision, now + 10 * LATER) is None
    assert aliases(tracker) == (base.reference, None)


def test_a_promotion_that_was_cut_short_before_its_record_is_finished(
    store, tracker, base, challenger, now
):
    establish_champion(store, tracker, base, now)
    decision = decided("promote", base, challenger, now)
    tracker.move_champion(challenger.reference, base.reference)
    release = apply_decision(store, tracker, decision, now + LATER)
    assert aliases(tracker) == (challenger.reference, base.reference)
    assert store.latest(Release) == release


def test_the_next_start_finishes_a_promotion_that_was_cut_short_instead_of_calling_it_foreign(
    store, tracker, base, challenger, now
):
    establish_champion(store, tracker, base, now)
    decision = decided("promote", base, challenger, now)
    store.append(decision)
    tracker.move_champion(challenger.reference, None)  # killed between the two aliases
    assert establish_champion(store, tracker, base, now + LATER).reference == challenger.reference
    release = store.latest(Release)
    assert (release.action, release.decision_id) == ("promote", decision.id)
    assert aliases(tracker) == (challenger.reference, base.reference)


def test_a_decision_over_a_champion_that_was_replaced_since_promotes_nothing(
    store, tracker, base, challenger, tmp_path, now
):
    establish_champion(store, tracker, base, now)
    decision = decided("promote", base, challenger, now)
    other = register(tracker, tmp_path, "other")
    tracker.move_champion(other.reference, base.reference)
    assert apply_decision(store, tracker, decision, now + LATER) is None
    assert aliases(tracker) == (other.reference, base.reference)


def test_a_rollback_with_nothing_promoted_is_refused(store, tracker, base, now):
    for established in (False, True):
        if established:
            establish_champion(store, tracker, base, now)
        with pytest.raises(TrackingError, match="got none"):
            rollback(store, tracker, now)
    assert [release.action for release in store.records(Release)] == ["start"]


def test_an_alias_that_was_moved_by_hand_is_noticed_and_obeyed(
    store, tracker, base, challenger, now
):
    establish_champion(store, tracker, base, now)
    tracker.move_champion(challenger.reference, base.reference)
    assert establish_champion(store, tracker, base, now + LATER).reference == challenger.reference
    release = store.latest(Release)
    assert release.action == "moved outside Ratchet"
    assert (release.champion, release.previous) == (challenger.reference, base.reference)
    establish_champion(store, tracker, base, now + 2 * LATER)
    assert len(store.records(Release)) == 2


def test_a_champion_that_was_chosen_by_hand_is_served_without_waiting_for_a_cycle(
    store, tracker, base, challenger, now
):
    establish_champion(store, tracker, base, now)
    assert adopt_champion(store, tracker, now) is None
    # as in MLflow's pages: the one alias is moved, and nothing else
    tracker._client.set_registered_model_alias("support-router", "champion", challenger.version)
    release = adopt_champion(store, tracker, now + LATER)
    assert (release.champion, release.previous) == (challenger.reference, base.reference)
    assert aliases(tracker) == (challenger.reference, base.reference)
    assert serving_champion(store).version == challenger.reference
    assert adopt_champion(store, tracker, now + 2 * LATER) is None
    assert rollback(store, tracker, now + 3 * LATER).champion == base.reference


def test_a_switch_that_the_registry_was_not_told_of_is_no_choice_by_hand(
    store, tracker, base, challenger, now
):
    establish_champion(store, tracker, base, now)
    key = {"champion": challenger.reference, "previous": base.reference}
    switch(store, Release(id="x", created_at=now, action="promote", **key), by="test")
    assert adopt_champion(store, tracker, now + LATER) is None
    assert serving_champion(store).version == challenger.reference


def test_a_promotion_under_way_is_no_choice_by_hand(store, tracker, base, challenger, now):
    establish_champion(store, tracker, base, now)
    store.append(decided("promote", base, challenger, now))
    tracker.move_champion(challenger.reference, base.reference)  # and then it was cut short
    assert adopt_champion(store, tracker, now + LATER) is None
    assert store.latest(Release).action == "start"


def test_with_the_registry_down_nothing_is_adopted(store, tracker, base, now, tmp_path):
    establish_champion(store, tracker, base, now)
    nowhere = Tracker("http://127.0.0.1:9", artifacts=tmp_path / "a", model_name="support-router")
    assert adopt_champion(store, nowhere, now + LATER) is None


def test_a_decision_survives_the_store_unchanged(store, gate):
    decision = gate(scores(both=200, only_champion=10, only_challenger=30, neither=60))
    store.append(decision)
    assert store.get(Decision, decision.id) == decision


CLUSTER = RegressionSet(
    id="seven", created_at=AT, name="cards", example_set_id="regression-seven", users=()
)


def test_a_cluster_is_compared_on_what_both_answered():
    made = scores(both=3, only_champion=1, only_challenger=9, neither=2, unscored=4)
    found = compare_on_cluster(CLUSTER, made.champion, made.challenger)
    assert (found.examples, found.unscored) == (15, 4)
    assert (found.champion_right, found.challenger_right) == (4, 12)
    assert (found.only_champion_right, found.only_challenger_right) == (1, 9)
    # closed form: 2 (1 + 10) / 2^10
    assert found.p_value == pytest.approx(22 / 1024)


def test_a_cluster_scored_on_other_examples_is_refused():
    made = scores(both=3)
    with pytest.raises(InvalidInputError, match="same examples of 'cards'"):
        compare_on_cluster(CLUSTER, made.champion, {"e0": True})


def test_a_decision_shows_the_clusters(gate, now):
    made = scores(both=100, only_challenger=40)
    compared = compare_on_cluster(CLUSTER, made.champion, made.challenger)
    decision = decide(
        made,
        Policy(),
        champion=OLD,
        challenger=NEW,
        cycle_id="c",
        example_set_id="e",
        now=now,
        clusters=[compared],
    )
    assert decision.clusters == (compared,)
    assert decision.verdict == gate(made).verdict
