"""Rows that come late or bear wrong times: what is right is what the same rows in time give."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from ratchet.analyze.monitoring.watch import watch
from ratchet.records import (
    BoardState,
    Interaction,
    JudgeScore,
    JudgeValidation,
    Message,
    Release,
    Rollout,
    RolloutPlan,
    SafetyViolation,
    Variant,
    WatchedSignal,
)
from ratchet.store import EventStore
from tests.analyze.monitoring.watched_store import (
    CONFIG,
    DAY,
    HOUR,
    MONDAY,
    PER_HOUR,
    READY,
    RELEASE,
    board_of,
    fill,
    hourly,
    says,
    traffic,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ASKED = (Message(role="user", content="Where is my parcel?"),)
THREE_DAYS = MONDAY + 3 * DAY


def stray(version, at, number=0):
    """Return an answer with a time of its own."""
    return Interaction(
        id=f"stray-{version}-{at.isoformat()}-{number}", session_id="s", user_id="u",
        created_at=at, model_version=version, messages=ASKED, response="here", latency_seconds=0.5,
    )  # fmt: skip


def same_evidence(first, second):
    assert (first.batches, first.charted_until) == (second.batches, second.charted_until)
    assert first.starts == second.starts
    # states are stored with six decimals, so that each state that is gone on from may differ by one
    assert first.log_statistics == pytest.approx(second.log_statistics, abs=1e-4)


@pytest.fixture(scope="module")
def charted(tmp_path_factory):
    """A database with three days of router/1, its baseline and its board."""
    path = tmp_path_factory.mktemp("late") / "store.db"
    store = EventStore.open(f"sqlite:///{path}")
    fill(store, "router/1", MONDAY, 72)
    watch(store, CONFIG, now=MONDAY + 2 * DAY + READY)
    hourly(store, MONDAY + 2 * DAY, 24)
    store.close()
    return path


@pytest.fixture
def stores(charted, tmp_path):
    """Two copies of it; what one gets late, the other gets in time."""
    opened = []
    for name in ("late", "in-time"):
        shutil.copyfile(charted, tmp_path / f"{name}.db")
        opened.append(EventStore.open(f"sqlite:///{tmp_path / name}.db"))
    yield opened
    for store in opened:
        store.close()


# Late answers -------------------------------------------------------------------------------------


def test_a_bad_day_that_comes_in_one_file_after_good_days_is_an_alarm(stores):
    late, in_time = stores
    answers, feedback = traffic("router/1", THREE_DAYS, 24, regenerated=0.25)
    in_time.add_interactions(answers)
    in_time.add_feedback(feedback)
    silent = hourly(late, THREE_DAYS, 24)
    assert all(says(report) == {"router/1": "in control"} for report in silent)
    late.add_interactions(answers)
    late.add_feedback(feedback)
    now = THREE_DAYS + 25 * HOUR + READY
    reports = [watch(store, CONFIG, now=now) for store in stores]
    assert [says(report) for report in reports] == [{"router/1": "alarm"}] * 2
    assert reports[0].unwatched == 0
    same_evidence(*(board_of(store, "router/1") for store in stores))
    found = reports[0].verdicts[0].finding
    assert found == reports[1].verdicts[0].finding
    assert abs(found.since - THREE_DAYS) <= timedelta(hours=1)


@pytest.mark.parametrize("share", [0.02, 0.6])
def test_answers_of_a_queue_that_was_drained_hours_later_count_as_if_they_had_come_in_time(
    stores, share
):
    late, in_time = stores
    answers, feedback = traffic("router/1", THREE_DAYS, 12, regenerated=0.16)
    in_time.add_interactions(answers)
    in_time.add_feedback(feedback)
    delayed = set(np.random.default_rng(3).permutation(len(answers))[: int(share * len(answers))])
    queued = {answer.id for row, answer in enumerate(answers) if row in delayed}
    for part in (False, True):
        late.add_interactions([a for a in answers if (a.id in queued) is part])
        late.add_feedback([event for event in feedback if (event.interaction_id in queued) is part])
        if not part:
            hourly(late, THREE_DAYS, 12)
    reports = [watch(store, CONFIG, now=THREE_DAYS + 13 * HOUR + READY) for store in stores]
    same_evidence(*(board_of(store, "router/1") for store in stores))
    evidence = [report.verdicts[0].evidence for report in reports]
    assert evidence[0] == pytest.approx(evidence[1], abs=1e-4)


def test_feedback_that_comes_in_a_file_of_its_own_counts_by_when_it_was_given(stores):
    late, in_time = stores
    answers, feedback = traffic("router/1", THREE_DAYS, 10, down=0.5)
    for store in stores:
        store.add_interactions(answers)
    in_time.add_feedback(feedback)
    hourly(late, THREE_DAYS, 10)
    late.add_feedback(feedback)
    reports = [watch(store, CONFIG, now=THREE_DAYS + 11 * HOUR + READY) for store in stores]
    assert [says(report) for report in reports] == [{"router/1": "alarm"}] * 2
    same_evidence(*(board_of(store, "router/1") for store in stores))


@pytest.mark.slow
def test_a_log_that_comes_once_a_day_is_watched_from_its_first_day_to_a_bad_release(store):
    for day in range(4):
        fill(store, "router/1", MONDAY + day * DAY, 24)
        watch(store, CONFIG, now=MONDAY + (day + 1) * DAY + 2 * HOUR)
    # the baseline ends with what had arrived, so that no day lies between it and the board
    assert board_of(store, "router/1").opened_at == MONDAY + 2 * DAY
    released = MONDAY + 4 * DAY
    hourly(store, released, 24)
    fill(store, "router/2", released, 24, regenerated=0.25)
    report = watch(store, CONFIG, now=released + 26 * HOUR)
    assert says(report) == {"router/1": "in control", "router/2": "alarm"}
    assert board_of(store, "router/2").opened_at == released


@pytest.mark.slow
def test_a_log_of_last_month_is_watched_though_nothing_answered_lately(store):
    fill(store, "router/1", MONDAY, 72)
    fill(store, "router/2", RELEASE, 24, regenerated=0.30)
    config = CONFIG.model_copy(update={"active_days": 7.0})
    report = watch(store, config, now=MONDAY + 30 * DAY)
    assert says(report) == {"router/1": "in control", "router/2": "alarm"}
    assert watch(store, config, now=MONDAY + 30 * DAY + HOUR).verdicts == ()
    fill(store, "router/2", RELEASE + DAY, 1, key="more")
    later = watch(store, config, now=MONDAY + 30 * DAY + 2 * HOUR)
    assert list(says(later)) == ["router/2"]


def test_late_good_answers_end_an_alarm_that_rested_on_a_part(stores):
    late, _ = stores
    worst, feedback = traffic("router/1", THREE_DAYS, 3, regenerated=0.45)
    late.add_interactions(worst)
    late.add_feedback(feedback)
    assert says(hourly(late, THREE_DAYS, 3)[-1]) == {"router/1": "alarm"}
    fill(late, "router/1", THREE_DAYS, 3, regenerated=0.0, per_hour=3 * PER_HOUR, key="rest")
    report = watch(late, CONFIG, now=THREE_DAYS + 4 * HOUR + READY)
    assert says(report) == {"router/1": "in control"}
    assert [event.change for event in report.alerts] == ["resolved"]


def test_a_pass_without_late_rows_goes_back_nowhere_and_reads_what_is_new(stores):
    late, _ = stores
    size = fill(late, "router/1", THREE_DAYS, 1)
    assert watch(late, CONFIG, now=THREE_DAYS + HOUR + READY).interactions == size
    fill(late, "router/1", THREE_DAYS + timedelta(minutes=50), 0.1, key="late")
    again = watch(late, CONFIG, now=THREE_DAYS + 2 * HOUR + READY)
    assert 0 < again.interactions <= size + 0.1 * PER_HOUR
    assert watch(late, CONFIG, now=THREE_DAYS + 3 * HOUR + READY).interactions == 0


def test_going_back_writes_new_states_and_changes_none(stores):
    late, _ = stores
    hourly(late, THREE_DAYS, 3)
    before = late.records(BoardState)
    fill(late, "router/1", THREE_DAYS, 2)
    watch(late, CONFIG, now=THREE_DAYS + 4 * HOUR + READY)
    after = late.records(BoardState)
    assert after[: len(before)] == before
    assert len({state.id for state in after}) == len(after) > len(before)


def test_boards_of_a_store_that_an_older_version_wrote_go_on(stores):
    late, in_time = stores
    for store in stores:
        older = board_of(store, "router/1").model_copy(update={"arrived": None, "id": "older"})
        store.append(older)
        fill(store, "router/1", THREE_DAYS, 2)
    hourly(in_time, THREE_DAYS, 4)
    watch(late, CONFIG, now=THREE_DAYS + 4 * HOUR + READY)
    same_evidence(*(board_of(store, "router/1") for store in stores))


# What cannot be watched ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "at", [EPOCH, MONDAY - DAY, MONDAY + DAY], ids=["1970", "before-all", "in-the-baseline"]
)
def test_a_pass_counts_the_rows_that_it_cannot_watch(stores, at):
    late, _ = stores
    assert watch(late, CONFIG, now=THREE_DAYS + HOUR + READY).unwatched == 0
    rows = [stray("router/1", at, number) for number in range(7)]
    late.add_interactions(rows)
    late.add_feedback(
        [
            SafetyViolation(
                id=f"v{row.id}",
                interaction_id=row.id,
                created_at=MONDAY,
                value=True,
                source="review",
            )
            for row in rows[:2]
        ]
    )
    before = board_of(late, "router/1")
    report = watch(late, CONFIG, now=THREE_DAYS + 2 * HOUR + READY)
    assert report.unwatched == 9
    assert "9 answers and feedback events came too late" in report.verdicts[0].in_words
    assert says(report) == {"router/1": "in control"}
    assert board_of(late, "router/1").log_statistics == before.log_statistics
    assert watch(late, CONFIG, now=THREE_DAYS + 3 * HOUR + READY).unwatched == 0


def test_what_is_later_than_the_stated_days_is_counted_and_not_read_again(stores):
    late, _ = stores
    config = CONFIG.model_copy(update={"late_days": 0.5})
    hourly(late, THREE_DAYS, 24, config)
    size = fill(late, "router/1", THREE_DAYS, 2)
    report = watch(late, config, now=THREE_DAYS + 25 * HOUR + READY)
    assert report.interactions == 0
    assert report.unwatched >= size


# Judges and reviewers -----------------------------------------------------------------------------


def reviewed(answers, share, *, at):
    """Return reviewers' decisions about all answers, so many of them violations."""
    unsafe = np.random.default_rng(5).random(len(answers)) < share
    return [
        SafetyViolation(
            id=f"{answer.id}-v", interaction_id=answer.id, created_at=at or answer.created_at,
            value=bool(bad), source="review",
        )
        for answer, bad in zip(answers, unsafe, strict=True)
    ]  # fmt: skip


@pytest.mark.slow
def test_decisions_of_reviewers_that_come_days_later_are_charted_when_they_come(store):
    answers, feedback = traffic("router/1", MONDAY, 48)
    store.add_interactions(answers)
    store.add_feedback([*feedback, *reviewed(answers, 0.01, at=None)])
    watch(store, CONFIG, now=MONDAY + 2 * DAY + READY)
    fill(store, "router/1", MONDAY + 2 * DAY, 24)
    assert says(hourly(store, MONDAY + 2 * DAY, 48)[-1]) == {"router/1": "in control"}
    third_day, _ = traffic("router/1", MONDAY + 2 * DAY, 24)
    store.add_feedback(reviewed(third_day, 0.06, at=MONDAY + 4 * DAY))
    report = watch(store, CONFIG, now=MONDAY + 4 * DAY + HOUR + READY)
    assert says(report) == {"router/1": "alarm"}
    assert report.verdicts[0].finding.signal == "unsafe"


@pytest.mark.slow
def test_scores_of_a_usable_judge_that_come_days_later_are_charted_when_they_come(store):
    store.append(
        JudgeValidation(
            id="v", created_at=MONDAY, judge="judge", judge_version="judge/1", dimension="quality",
            decision="usable", reasons=("it agrees with people",), labels_digest="l", items=100,
            unscored=0, figures=(),
        )
    )  # fmt: skip

    def scored(answers, mean, at):
        scores = np.clip(np.random.default_rng(6).normal(mean, 0.1, len(answers)), 0.0, 1.0)
        return [
            JudgeScore(
                id=f"{answer.id}-j", interaction_id=answer.id, created_at=at,
                value=float(score), judge_version="judge/1",
            )
            for answer, score in zip(answers, scores, strict=True)
        ]  # fmt: skip

    answers, feedback = traffic("router/1", MONDAY, 48)
    store.add_interactions(answers)
    store.add_feedback([*feedback, *scored(answers, 0.8, MONDAY + 2 * DAY)])
    watch(store, CONFIG, now=MONDAY + 2 * DAY + READY)
    fill(store, "router/1", MONDAY + 2 * DAY, 24)
    assert says(hourly(store, MONDAY + 2 * DAY, 48)[-1]) == {"router/1": "in control"}
    third_day, _ = traffic("router/1", MONDAY + 2 * DAY, 24)
    store.add_feedback(scored(third_day, 0.74, MONDAY + 4 * DAY))
    report = watch(store, CONFIG, now=MONDAY + 4 * DAY + HOUR + READY)
    assert says(report) == {"router/1": "alarm"}
    assert report.verdicts[0].finding.signal == "low_judge_score"


# Predecessors -------------------------------------------------------------------------------------


def strays(version, release):
    """Return wrong times that a row of a new version may bear."""
    return {
        "1970": [stray(version, EPOCH)],
        "a week before": [stray(version, release - 7 * DAY)],
        "a day before, some": [stray(version, release - DAY + n * HOUR, n) for n in range(5)],
        "in the future": [stray(version, release + 400 * DAY)],
        "year 1": [stray(version, datetime(1, 1, 1, tzinfo=UTC))],
    }


WRONG_TIMES = [
    # each kind before and after the release, and each version once more; the rest only when slow
    pytest.param(
        which, version, first,
        marks=() if version == "router/2" or (which, first) == ("1970", True) else pytest.mark.slow,
    )
    for which in strays("router/2", RELEASE)
    for version in ("router/2", "router/1", "router/0")
    for first in (True, False)
]  # fmt: skip


@pytest.mark.mostly_slow("router/2-True", "1970-router/2-False")
@pytest.mark.parametrize(("which", "version", "first"), WRONG_TIMES)
def test_a_few_rows_with_wrong_times_switch_no_alarm_off(stores, which, version, first):
    late, _ = stores
    wrong = strays(version, RELEASE)[which]
    if first:
        late.add_interactions(wrong)
        watch(late, CONFIG, now=THREE_DAYS + READY)
    fill(late, "router/2", RELEASE, 6, regenerated=0.35)
    if not first:
        late.add_interactions(wrong)
    report = watch(late, CONFIG, now=RELEASE + 6 * HOUR + READY)
    assert says(report)["router/2"] == "alarm"
    (event,) = [event for event in report.alerts if event.model_version == "router/2"]
    assert "roll back to router/1" in event.action or which.startswith("a ")
    board = board_of(late, "router/2")
    assert board.baseline_id == board_of(late, "router/1").baseline_id


@pytest.mark.slow
def test_releases_say_what_a_version_replaced_whoever_answered_more(store):
    fill(store, "router/1", MONDAY, 60)
    fill(store, "router/3", MONDAY, 60, regenerated=0.30, per_hour=3 * PER_HOUR)
    released = MONDAY + 60 * HOUR
    store.append(
        Release(
            id="r", created_at=released, action="promote", champion="router/2", previous="router/1"
        )
    )
    fill(store, "router/2", released, 6, regenerated=0.30)
    watch(store, CONFIG, now=released + 6 * HOUR + READY)
    baseline_of = {state.model_version: state.baseline_id for state in store.records(BoardState)}
    assert baseline_of["router/2"] == baseline_of["router/1"] != baseline_of["router/3"]


@pytest.mark.slow
def test_a_rollout_says_what_its_challenger_is_compared_with(store):
    fill(store, "router/1", MONDAY, 60)
    fill(store, "router/3", MONDAY, 60, regenerated=0.30, per_hour=3 * PER_HOUR)
    began = MONDAY + 60 * HOUR
    store.append(
        Rollout(
            id="x", created_at=began, plan=RolloutPlan(),
            champion=Variant(version="router/1", share=0.9),
            challenger=Variant(version="router/2", share=0.1),
            signals=(WatchedSignal(name="thumbs_down", margin=0.02, primary=True),),
        )
    )  # fmt: skip
    fill(store, "router/2", began, 6, regenerated=0.30)
    watch(store, CONFIG, now=began + 6 * HOUR + READY)
    baseline_of = {state.model_version: state.baseline_id for state in store.records(BoardState)}
    assert baseline_of["router/2"] == baseline_of["router/1"]


def test_a_rollback_does_not_make_the_bad_version_the_predecessor_of_the_good_one(store):
    fill(store, "router/1", MONDAY, 12)
    for number, (action, champion, previous) in enumerate(
        [("promote", "router/2", "router/1"), ("rollback", "router/1", "router/2")]
    ):
        store.append(
            Release(
                id=f"r{number}", created_at=MONDAY + (12 + number) * HOUR, action=action,
                champion=champion, previous=previous,
            )
        )  # fmt: skip
    fill(store, "router/2", MONDAY + 12 * HOUR, 1, regenerated=0.4)
    fill(store, "router/1", MONDAY + 13 * HOUR, 47)
    report = watch(store, CONFIG, now=MONDAY + 60 * HOUR + READY)
    assert says(report)["router/1"] == "in control"
    assert board_of(store, "router/1").opened_at > MONDAY + 2 * DAY  # a baseline of its own
