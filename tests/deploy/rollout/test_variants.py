from datetime import timedelta

import numpy as np
import pytest

from ratchet.deploy.rollout.exposure_counts import Tally
from ratchet.deploy.rollout.variants import (
    compare_variants,
    end_test,
    read_test,
    start_test,
)
from ratchet.deploy.routing import current_routing, serving_champion, waiting_move
from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.records import (
    SIGNAL_NAMES,
    Release,
    Variant,
    VariantReadout,
    VariantTestEnd,
    WatchedSignal,
)
from tests.deploy.rollout.served import NEW, OLD, released, serve

HOUR = timedelta(hours=1)
BRIEF = Variant(name="brief", version=OLD, share=0.3, system_prompt="be brief")
TUNED = Variant(name="tuned", version=NEW, share=0.3)
SIGNALS = (
    WatchedSignal(name="thumbs_down", margin=0.05, primary=True),
    WatchedSignal(name="failed", margin=0.02),
)


@pytest.fixture
def begun(store, now):
    released(store, now)
    return start_test(store, "tone", [BRIEF, TUNED], now=now, signals=SIGNALS, imbalance=2.0)


def traffic(store, now, number=2_500, **changes):
    users = changes.pop("users", 4_000)
    serve(store, current_routing(store), now, hours=2, number=number, users=users, **changes)


def test_users_are_sent_to_versions_and_prompts_and_the_rest_to_the_champion(store, begun):
    routing = current_routing(store)
    assert [(v.label, v.share) for v in routing.variants] == [
        ("brief", 0.3), ("tuned", 0.3), ("champion", pytest.approx(0.4))
    ]  # fmt: skip
    assert routing.variants[0].system_prompt == "be brief"
    assert routing.experiment == begun.id


def test_a_better_and_a_worse_variant_are_told_from_the_control(store, now, begun):
    traffic(store, now, down={"champion": 0.3, "brief": 0.1, "tuned": 0.5})
    readout = read_test(store, begun, now + 3 * HOUR)
    assert (readout.shown_better, readout.shown_worse) == (("brief",), ("tuned",))
    assert readout.conclusion == "tuned is worse: thumbs down; brief is better: fewer thumbs down"
    assert [(item.arm, item.signal) for item in readout.readouts] == [
        ("brief", "thumbs_down"), ("brief", "failed"), ("tuned", "thumbs_down"), ("tuned", "failed")
    ]  # fmt: skip
    assert readout.control == "champion"


def test_equal_variants_are_not_told_apart(store, now, begun):
    traffic(store, now)
    readout = read_test(store, begun, now + 3 * HOUR)
    assert (readout.shown_better, readout.shown_worse) == ((), ())
    assert readout.conclusion == "no difference is shown for brief, tuned"


def test_with_few_users_no_rate_is_read(store, now, begun):
    traffic(store, now, users=300, number=600)
    readout = read_test(store, begun, now + 3 * HOUR)
    assert "too few users" in readout.conclusion
    assert all(item.difference is None for item in readout.readouts)


def test_a_broken_assignment_is_not_read(store, now, begun):
    traffic(store, now, lost={"tuned": 0.4}, down={"tuned": 0.6})
    readout = read_test(store, begun, now + 3 * HOUR)
    assert readout.readouts == ()
    assert "broken" in readout.conclusion


def test_the_same_read_out_is_stored_once(store, now, begun):
    traffic(store, now, number=1_000)
    first = read_test(store, begun, now + 3 * HOUR)
    assert read_test(store, begun, now + 3 * HOUR + timedelta(seconds=10)) == first
    assert store.records(VariantReadout) == (first,)


def test_its_end_gives_everybody_back_and_it_can_still_be_read(store, now, begun):
    traffic(store, now)
    assert end_test(store, by="ann", now=now + 3 * HOUR) is None
    assert [v.version for v in current_routing(store).variants] == [OLD]
    assert serving_champion(store).system_prompt is None
    assert store.get(VariantTestEnd, begun.id).by == "ann"
    assert read_test(store, begun, now + 9 * HOUR).interactions == pytest.approx(2_500, rel=0.01)


def test_a_winner_that_was_shown_is_the_champion_with_its_prompt(store, now, begun):
    traffic(store, now, down={"champion": 0.4, "brief": 0.1, "tuned": 0.4})
    read_test(store, begun, now + 3 * HOUR)
    move = end_test(store, by="ann", now=now + 4 * HOUR, winner="brief")
    assert waiting_move(store) == move
    assert serving_champion(store).system_prompt == "be brief"
    assert store.latest(Release).action == "promote"


@pytest.mark.parametrize("winner", ["tuned", "nobody"])
def test_a_winner_that_was_not_shown_is_refused(store, now, begun, winner):
    traffic(store, now)
    read_test(store, begun, now + 3 * HOUR)
    with pytest.raises(InvalidInputError, match="a winner must be shown"):
        end_test(store, by="ann", now=now + 4 * HOUR, winner=winner)
    assert current_routing(store).experiment == begun.id


def test_impossible_tests_are_refused(store, now):
    with pytest.raises(InsufficientDataError, match="needs a champion"):
        start_test(store, "t", [TUNED], now=now)
    released(store, now)
    whole = TUNED.model_copy(update={"share": 1.0})
    same = Variant(name="same", version=OLD, share=0.5)
    for variants, message in (
        ([], "leave a share"),
        ([whole], "leave a share"),
        ([same], "differ"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            start_test(store, "t", variants, now=now)
    with pytest.raises(InvalidInputError, match="only a running test"):
        end_test(store, by="ann", now=now)


# The sample ratio at the end ----------------------------------------------------------------------


def met(*users, arms=("champion", "tuned", "brief"), stages=1):
    """What so many users of each arm met in the last stage: one answer each, nothing bad."""
    arm = np.repeat(np.arange(len(users)), users)
    trials = np.zeros((arm.size, stages, len(users), len(SIGNAL_NAMES)), np.int64)
    trials[np.arange(arm.size), -1, arm, :] = 1
    latest = (None,) * len(users)
    return Tally(
        arms[: len(users)], np.zeros_like(trials), trials, trials[..., 0] > 0, arm.size, latest
    )


@pytest.mark.parametrize(
    ("shares", "users", "broken"),
    [
        ((0.5,), (45_489, 44_700), True),  # p = 0.0086
        ((0.5,), (45_300, 44_700), False),  # p = 0.046
        ((0.1,), (81_000, 8_700), True),  # p = 0.003
        ((0.3, 0.3), (36_000, 27_000, 26_400), True),  # p = 0.004
    ],
)
def test_at_the_end_users_who_are_missing_block_what_the_sequence_lets_pass(
    store, now, shares, users, broken
):
    released(store, now)
    variants = [
        variant.model_copy(update={"share": share})
        for variant, share in zip((TUNED, BRIEF), shares, strict=False)
    ]
    test = start_test(store, "ratio", variants, now=now, signals=SIGNALS)
    tally = met(*users)
    running, _ = compare_variants(test, tally)
    assert (running.broken, running.final_p_value) == (False, None)
    ratio, readouts = compare_variants(test, tally, final=True)
    assert ratio.broken is ratio.fails_final_test is broken
    assert ratio.final_level == 0.01
    assert (readouts == ()) is broken


def test_a_winner_whose_test_lost_users_is_refused_and_its_last_read_out_says_why(
    store, now, begun
):
    traffic(store, now, down={"champion": 0.4, "brief": 0.1, "tuned": 0.4}, lost={"brief": 0.2})
    assert read_test(store, begun, now + 3 * HOUR).shown_better == ("brief",)
    with pytest.raises(InvalidInputError, match=r"as agreed, got .* \(chi-square test p = "):
        end_test(store, by="ann", now=now + 4 * HOUR, winner="brief")
    assert end_test(store, by="ann", now=now + 4 * HOUR) is None
    assert "chi-square test p = " in read_test(store, begun, now + 5 * HOUR).conclusion
