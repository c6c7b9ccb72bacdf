"""Judges on a real store: validation, scores that count or never do, and drift.

The judge is a script that reads the material it is shown, behind the project's own engine;
verdicts, labels and feedback go through SQLite and, with `open_store`, through PostgreSQL too.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from ratchet.analyze.monitoring.series import recent_counts
from ratchet.analyze.monitoring.watch import WatchConfig, watch
from ratchet.collect.ingest import ingest
from ratchet.errors import InsufficientDataError, InvalidInputError, JudgeNotUsableError, LeakError
from ratchet.improve.curation.config import CurationConfig
from ratchet.improve.curation.selection import select
from ratchet.judges.judge import Judge, Judgement, asker
from ratchet.judges.label_sets import split_labels
from ratchet.judges.on_store import (
    count_scores,
    items_of,
    labelled_rows,
    run_judge,
    sample_of,
    validate,
    watch_drift,
)
from ratchet.judges.rubrics import GradedExample, JudgeSpec, Option, RubricDimension
from ratchet.judges.usable import latest_validations, require_usable, usable_versions
from ratchet.judges.validation import Bar
from ratchet.models import ScriptedModel
from ratchet.outcomes.experience import experience_metrics
from ratchet.outcomes.join import join_feedback
from ratchet.outcomes.quality import QualityWeights, quality
from ratchet.records import (
    Baseline,
    BoardState,
    HumanLabel,
    Interaction,
    JudgeScore,
    JudgeValidation,
    Message,
    Thumbs,
)
from ratchet.store import EventStore, Window
from ratchet.views.text.cycle import judges_markdown

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
DAY = timedelta(days=1)
EVER = Window(NOON - 30 * DAY, NOON + 30 * DAY)
ROUTING = RubricDimension(
    name="routing",
    question="Is the queue right?",
    options=(
        Option(name="right", score=1.0, means="it is"),
        Option(name="wrong", score=0.0, means="it is not"),
    ),
)


def is_good(number):
    return number % 2 == 0


def interaction(number, at=NOON, version="router/1"):
    answer = "Your parcel is with the courier." if is_good(number) else "I like trains."
    return Interaction(
        id=f"i{number:03}", session_id="s", user_id=f"u{number}", created_at=at,
        model_version=version, messages=(Message(role="user", content=f"parcel {number}?"),),
        response=answer, latency_seconds=0.5,
    )  # fmt: skip


def label(number, said=None, reviewer="ann", minutes=0, dimension="routing"):
    said = said or ("right" if is_good(number) else "wrong")
    return HumanLabel(
        id=f"{number}-{reviewer}-{said}-{minutes}-{dimension}",
        created_at=NOON + timedelta(minutes=minutes), item_id=f"i{number:03}",
        dimension=dimension, label=said, reviewer=reviewer,
    )  # fmt: skip


def fill(store, count=60, labels=60):
    store.add_interactions([interaction(n) for n in range(count)])
    for n in range(labels):
        store.append(label(n))


def reads_the_answer(conversation):
    return "right" if "courier" in conversation[-1].content else "wrong"


class Scripted:
    """A judge by a function of what it is shown, which counts how often it is asked."""

    def __init__(self, answer: Callable = reads_the_answer, name="router-judge", **fields):
        self.asked = 0
        self.answer = answer
        spec = JudgeSpec(name=name, dimension=ROUTING, local="smollm2", explain=False, **fields)
        self.judge = Judge(spec, model_digest=f"digest of {name}")
        self.ask = asker(spec, ScriptedModel(self._count))

    def _count(self, conversation):
        self.asked += 1
        return self.answer(conversation)

    @property
    def version(self):
        return self.judge.version

    def validated(self, store, at=NOON, bar=None):
        return validate(
            store, self.judge, ask=self.ask, now=lambda: at, rng=np.random.default_rng(0),
            bar=bar or Bar(),
        )  # fmt: skip

    def run(self, store, numbers, occasion=None, at=NOON):
        items = items_of(store, [interaction(n) for n in numbers])
        done = run_judge(store, self.judge, items, ask=self.ask, now=lambda: at, occasion=occasion)
        return done.judgements


def usable_by_hand(version, decision="usable", key="v", minutes=0):
    return JudgeValidation(
        id=key, created_at=NOON + timedelta(minutes=minutes), judge="router-judge",
        judge_version=version, dimension="routing", decision=decision,
        reasons=(f"{decision} it is",), labels_digest="d", items=60, unscored=0, figures=(),
    )  # fmt: skip


# Which versions may count -------------------------------------------------------------------------


def test_the_latest_validation_of_each_version_decides(open_store):
    store = open_store()
    assert usable_versions(store) == frozenset()
    for n, (version, decision) in enumerate(
        [("a", "usable"), ("b", "not usable"), ("c", "not enough labels"), ("d", "usable"),
         ("a", "not usable"), ("b", "usable")]
    ):  # fmt: skip
        store.append(usable_by_hand(version, decision, key=str(n)))
    assert usable_versions(store) == {"b", "d"}
    assert {v: r.id for v, r in latest_validations(store).items()} == {
        "a": "4", "b": "5", "c": "2", "d": "3",
    }  # fmt: skip
    assert require_usable(store, "b").id == "5"
    for version, state in {
        "a": "whose latest validation says not usable",
        "c": "whose latest validation says not enough labels",
        "x": "which was never validated",
    }.items():
        with pytest.raises(JudgeNotUsableError, match=f"'{version}', {state}") as refused:
            require_usable(store, version)
        assert "label more items or take another judge" in str(refused.value)


# Labels and verdicts ------------------------------------------------------------------------------


def judgement(item, outcome):
    return Judgement(item, outcome, None, None if outcome else "mumbled", None, ())


def test_the_first_reviewer_is_held_against_and_the_latest_word_of_each_counts():
    labels = [
        label(1, "right", "bob", minutes=5),
        label(1, "wrong", "ann", minutes=1),
        label(1, "right", "ann", minutes=9),
        label(2, "wrong", "bob"),
    ]
    found = labelled_rows(labels, [judgement("i001", "right"), judgement("i002", None),
                                   judgement("i003", "right")])  # fmt: skip
    assert [(r.item_id, r.human, r.judge, r.others, r.reason) for r in found] == [
        ("i001", "right", "right", ("right",), None),
        ("i002", "wrong", None, (), "mumbled"),
    ]
    later_first = labelled_rows([labels[2], labels[1], labels[0]], [judgement("i001", "right")])
    assert later_first[0].human == "right"  # by the time of the label, not of its arrival


# Validation ---------------------------------------------------------------------------------------


def test_a_validation_is_stored_with_its_figures_and_asks_each_item_once(open_store):
    store = open_store()
    fill(store, count=70)
    scripted = Scripted()
    found = scripted.validated(store)
    assert scripted.asked == 60  # the ten without a label cost nothing
    assert found.record.decision == "usable"
    assert store.records(JudgeValidation) == (found.record,)
    assert found.record.figure("kappa").value == 1.0
    assert (found.record.categories, found.record.confusion) == (
        ("wrong", "right"), ((30, 0), (0, 30)),
    )  # fmt: skip
    assert (found.record.items, found.record.unscored) == (60, 0)
    assert len(store.verdicts_of(scripted.version)) == 60


def test_the_same_labels_give_the_stored_decision_again_and_ask_nothing(open_store):
    store = open_store()
    fill(store)
    first = Scripted().validated(store)
    again = Scripted()
    assert again.validated(store, at=NOON + DAY).record == first.record
    assert again.asked == 0
    assert store.records(JudgeValidation) == (first.record,)


@pytest.mark.mostly_slow("sqlite")
def test_new_labels_make_a_new_decision_and_only_new_items_are_asked(open_store):
    store = open_store()
    fill(store, count=90)
    scripted = Scripted()
    first = scripted.validated(store)
    for n in range(60, 90):
        store.append(label(n, "wrong" if is_good(n) else "right"))  # people disagree with it now
    second = scripted.validated(store, at=NOON + DAY)
    assert scripted.asked == 90
    assert (first.record.decision, second.record.decision) == ("usable", "not usable")
    assert store.records(JudgeValidation) == (first.record, second.record)
    assert usable_versions(store) == frozenset()
    assert scripted.validated(store, at=NOON + 2 * DAY).record == second.record


@pytest.mark.mostly_slow("sqlite")
def test_a_changed_mind_of_a_reviewer_is_a_change_of_labels(open_store):
    store = open_store()
    fill(store)
    first = Scripted().validated(store)
    for n in range(20):
        store.append(label(n, "wrong" if is_good(n) else "right", minutes=60))
    second = Scripted().validated(store, at=NOON + DAY)
    assert second.record.labels_digest != first.record.labels_digest
    assert second.record.figure("agreement").value == pytest.approx(40 / 60)


@pytest.mark.mostly_slow("sqlite")
def test_another_bar_is_another_decision_and_going_back_and_forth_keeps_each(open_store):
    store = open_store()
    fill(store)
    scripted = Scripted()
    decisions = []
    for day, kappa in enumerate((0.6, 0.99, 0.99, 0.6, 0.6)):
        found = scripted.validated(store, at=NOON + day * DAY, bar=Bar(kappa=kappa))
        decisions.append(found.record.decision)
    assert decisions == ["usable", *["not enough labels"] * 2, *["usable"] * 2]
    assert [r.decision for r in store.records(JudgeValidation)] == [
        "usable", "not enough labels", "usable",
    ]  # fmt: skip


def test_without_labels_the_decision_is_stored_once_and_says_what_is_missing(open_store):
    store = open_store()
    fill(store, labels=0)
    store.append(label(1, dimension="tone"))  # of another dimension
    store.append(label(500))  # of an interaction that is not there
    scripted = Scripted()
    first, again = (scripted.validated(store, at=NOON + day * DAY) for day in range(2))
    assert first.record.decision == "not enough labels"
    assert first.record.reasons == ("no interaction in the store has a label for routing",)
    assert first.validation is first.judged is None
    assert again.record == first.record
    assert store.records(JudgeValidation) == (first.record,)
    assert store.get(JudgeValidation, first.record.id) == first.record
    assert scripted.asked == 0


def test_a_version_is_validated_of_its_own(open_store):
    store = open_store()
    fill(store)
    good, bad = Scripted(name="good"), Scripted(lambda c: "right", name="bad")
    assert good.validated(store).record.decision == "usable"
    assert bad.validated(store).record.decision == "not usable"
    assert usable_versions(store) == {good.version}
    changed = Scripted(name="good", family="gpt")
    other = Judge(changed.judge.spec.model_copy(update={"explain": True}), model_digest="d")
    with pytest.raises(JudgeNotUsableError, match="never validated"):
        require_usable(store, other.version)


def test_a_judge_of_pairs_is_not_asked_about_single_interactions(store):
    fill(store)
    pairwise = Scripted(name="pairs", mode="pairwise")
    found = pairwise.validated(store)
    assert found.record.decision == "not enough labels"
    assert "label a sheet of the gate's pairs" in found.record.reasons[0]
    usable = found.record.model_copy(update={"id": "by a gate", "decision": "usable"})
    store.append(usable)
    assert pairwise.validated(store).record == usable
    assert pairwise.asked == 0


def example(number):
    shown = interaction(number)
    return GradedExample(
        item_id=shown.id, conversation=shown.messages, answer=shown.response,
        verdict="right" if is_good(number) else "wrong",
    )  # fmt: skip


def test_an_example_among_the_validation_labels_is_a_leak(store):
    fill(store)
    set_aside, kept = split_labels(store.records(HumanLabel))
    leaking = Scripted(examples=(example(int(kept[0].item_id[1:])),))
    with pytest.raises(LeakError, match=kept[0].item_id):
        leaking.validated(store)
    assert store.records(JudgeValidation) == ()
    clean = Scripted(examples=(example(int(set_aside[0].item_id[1:])),))
    found = clean.validated(store)
    assert found.record.items == len(kept) < 60
    assert {r.item_id for r in found.judged.judgements} == {one.item_id for one in kept}


def test_a_label_off_the_menu_is_refused_by_name_and_may_be_taken_back(store):
    fill(store)
    store.append(label(1, "rihgt", minutes=1))
    with pytest.raises(InvalidInputError, match="rihgt"):
        Scripted().validated(store)
    store.append(label(1, "wrong", minutes=2))
    assert Scripted().validated(store).record.decision == "usable"


def test_replies_that_are_no_verdict_are_counted_against_the_judge(store):
    fill(store)
    found = Scripted(lambda c: "hmm" if "parcel 1" in c[-1].content else reads_the_answer(c))
    record = found.validated(store).record
    assert record.unscored == 11  # 1 and 10 to 19
    assert record.figure("agreement_of_all").value == pytest.approx(49 / 60)
    assert (record.items, record.decision) == (49, "usable")


# Scores that count, and scores that never do ------------------------------------------------------


def outcomes_of(store):
    return join_feedback(
        store.interactions(EVER), store.feedback(EVER), judges=usable_versions(store)
    )


def test_scores_of_a_judge_that_is_not_usable_are_refused_and_nothing_is_stored(open_store):
    store = open_store()
    fill(store)
    scripted = Scripted(lambda c: "right")
    judgements = scripted.run(store, range(60))
    with pytest.raises(JudgeNotUsableError, match="never validated"):
        count_scores(store, scripted.version, judgements, NOON)
    assert scripted.validated(store).record.decision == "not usable"
    with pytest.raises(JudgeNotUsableError, match="not usable: kappa"):
        count_scores(store, scripted.version, judgements, NOON)
    assert store.counts()["judge_score"] == 0
    assert store.feedback(EVER).num_rows == 0
    # shown they are
    assert len(store.verdicts_of(scripted.version)) == 60
    page = judges_markdown(store.records(JudgeValidation))
    assert f"| {scripted.version} | routing | not usable |" in page


def test_scores_of_a_usable_judge_are_stored_once(open_store):
    store = open_store()
    fill(store)
    scripted = Scripted(lambda c: "hmm" if "parcel 7?" in c[-1].content else reads_the_answer(c))
    judged = scripted.validated(store).judged
    assert count_scores(store, scripted.version, judged.judgements, NOON) == 59
    assert count_scores(store, scripted.version, judged.judgements, NOON + DAY) == 0
    outcomes = outcomes_of(store)
    for place, name in enumerate(outcomes.interaction_ids):
        number = int(name[1:])
        expected = np.nan if number == 7 else float(is_good(number))
        np.testing.assert_equal(outcomes.judge_scores[place], expected)


JUDGE_ALONE = QualityWeights(judge=1.0, explicit=0.0, implicit=0.0)
BOTH = QualityWeights(judge=1.0, explicit=1.0)


def touched(store):
    """What scores could touch: quality, metrics, monitoring's table, the training set."""
    outcomes = outcomes_of(store)
    alone, both = quality(outcomes, JUDGE_ALONE), quality(outcomes, BOTH)
    metrics = {m.name: m.value for m in experience_metrics(outcomes, both)}
    try:
        rows = select(outcomes, both, (), CurationConfig(minimum_examples=1)).rows
    except InsufficientDataError:
        rows = ()
    judges = usable_versions(store)
    charted = store.signals(EVER, lag=DAY, judges=judges)["judge_score"].drop_null()
    return {
        "quality by the judge": np.nan_to_num(alone.value, nan=-1.0).tolist(),
        "quality": both.value.tolist(),
        "judge_score": metrics["judge_score"],
        "trained on": [row.interaction_id for row in rows],
        "charted": charted.to_pylist(),
    }


def test_scores_that_came_in_by_ingest_touch_nothing_until_their_judge_is_usable(open_store):
    store = open_store()
    store.add_interactions([interaction(n) for n in range(4)])
    store.add_feedback(
        [Thumbs(id=f"t{n}", interaction_id=f"i{n:03}", created_at=NOON, value="up")
         for n in range(4)]
    )  # fmt: skip
    before = touched(store)
    assert before == {
        "quality by the judge": [-1.0] * 4,
        "quality": [1.0] * 4,
        "judge_score": None,
        "trained on": ["i000", "i001", "i002", "i003"],
        "charted": [],
    }
    report = ingest(
        [{"kind": "judge_score", "id": f"j{n}", "interaction_id": f"i{n:03}", "value": 0.0,
          "judge_version": "foreign-1", "created_at": "2026-03-02T12:01:00Z"} for n in (1, 3)],
        store, source="log.jsonl", now=NOON,
    )  # fmt: skip
    assert report.feedback == store.counts()["judge_score"] == 2
    assert touched(store) == before  # never validated
    assert store.signals(EVER, lag=DAY)["judge_score"].null_count == 4  # the default takes none

    store.append(usable_by_hand("foreign-1", "not enough labels", "v1"))
    store.append(usable_by_hand("foreign-2", "usable", "v2"))  # another version
    assert touched(store) == before
    store.append(usable_by_hand("foreign-1", "usable", "v3"))
    assert touched(store) == {
        "quality by the judge": [-1.0, 0.0, -1.0, 0.0],
        "quality": [1.0, 0.5, 1.0, 0.5],
        "judge_score": 0.0,
        "trained on": ["i000", "i002"],
        "charted": [0.0, 0.0],
    }
    store.append(usable_by_hand("foreign-1", "not usable", "v4"))
    assert touched(store) == before


def test_a_later_score_of_an_unusable_judge_does_not_hide_that_of_a_usable_one(open_store):
    store = open_store()
    store.add_interactions([interaction(0)])
    store.append(usable_by_hand("good", "usable"))
    for n, (version, value) in enumerate([("good", 0.75), ("bad", 0.0)]):
        at = NOON + timedelta(seconds=10 * (n + 1))
        store.add_feedback(
            [JudgeScore(id=version, interaction_id="i000", created_at=at, value=value,
                        judge_version=version)]
        )  # fmt: skip
    assert outcomes_of(store).judge_scores.tolist() == [0.75]
    charted = store.signals(EVER, lag=DAY, judges=usable_versions(store))["judge_score"]
    assert charted.to_pylist() == [0.75]


CONFIG = WatchConfig(batch_seconds=900, baseline_days=1.0, minimum_hours=24.0)


def serve_a_day(store):
    """30 hours of traffic, each answer with a score of judge `one` within the lag."""
    rng = np.random.default_rng(0)
    answers, scores = [], []
    for n in range(1_500):
        at = NOON + timedelta(seconds=72.0 * n)
        answers.append(interaction(n, at).model_copy(update={"id": f"w{n}"}))
        scores.append(
            JudgeScore(id=f"j{n}", interaction_id=f"w{n}", judge_version="one",
                       created_at=at + timedelta(seconds=20), value=float(rng.random()))
        )  # fmt: skip
    store.add_interactions(answers)
    store.add_feedback(scores)


def charted_scores(store):
    """Trials of the judge's signal on the board, None where it is not watched."""
    counts = recent_counts(store, CONFIG, store.latest(BoardState))
    watched = {signal.name for signal in store.latest(Baseline).signals}
    if "low_judge_score" not in watched:
        assert "failed" in watched
        return None
    return int(counts.trials[:, counts.signals.index("low_judge_score")].sum())


def after(hours):
    return NOON + timedelta(hours=hours) + CONFIG.lag


@pytest.mark.parametrize("decision", [None, "not usable", "not enough labels"])
def test_the_board_does_not_watch_scores_of_a_judge_that_is_not_usable(store, decision):
    serve_a_day(store)
    if decision:
        store.append(usable_by_hand("one", decision))
    for hours in (25, 29):
        watch(store, CONFIG, now=after(hours))
        assert charted_scores(store) is None


def test_the_board_watches_a_usable_judge_until_it_is_usable_no_more(open_store):
    store = open_store()
    serve_a_day(store)
    store.append(usable_by_hand("one", "usable", "v1"))
    watch(store, CONFIG, now=after(25))
    watch(store, CONFIG, now=after(29))
    assert charted_scores(store) == 4 * 50  # four hours since the baseline, 50 answers an hour
    store.append(usable_by_hand("one", "not usable", "v2"))
    assert charted_scores(store) == 0


# What is judged -----------------------------------------------------------------------------------


def test_the_sample_is_the_same_whatever_the_order_and_leaves_out_what_was_not_answered(
    open_store, tmp_path
):
    found = [interaction(n) for n in range(40)]
    broken = [
        found[3].model_copy(update={"response": "", "error": "timeout"}),
        found[4].model_copy(update={"response": ""}),
    ]
    found[3:5] = broken
    store, turned = open_store(), EventStore.open(f"sqlite:///{tmp_path / 'turned.db'}")
    store.add_interactions(found)
    turned.add_interactions(found[::-1])
    window = Window(found[0].created_at, found[-1].created_at + timedelta(hours=1))
    one = sample_of(store, window, most=10)
    assert sample_of(turned, window, most=10) == one
    assert len({item.id for item in one}) == 10
    assert sample_of(store, window, most=9) == one[:9]
    assert {item.id for item in sample_of(store, window, most=99)} == {
        item.id for item in found if item not in broken
    }
    turned.close()


def test_a_stopped_run_goes_on_where_it_was(open_store):
    store = open_store()
    fill(store, labels=0)
    scripted = Scripted()
    scripted.run(store, range(25))
    resumed = Scripted()
    judged = resumed.run(store, range(60))
    assert resumed.asked == 35
    assert [one.score for one in judged] == [float(is_good(n)) for n in range(60)]
    assert len(store.verdicts_of(scripted.version)) == 60


# Drift --------------------------------------------------------------------------------------------


def traffic(good, bad, key):
    """Judgements of items with this share of good ones."""
    return [
        Judgement(f"{key}{n}", "right" if n < good else "wrong", float(n < good), None, None, ())
        for n in range(good + bad)
    ]


def drift_of(store, scripted, before, after, occasion="2026-W49", **options):
    return watch_drift(
        store, scripted.judge, ask=scripted.ask, now=lambda: NOON + 7 * DAY, occasion=occasion,
        traffic_before=before, traffic_after=after, **options,
    )  # fmt: skip


def turned_lenient(conversation):
    return "right"


def test_a_judge_that_turns_lenient_on_an_occasion_is_named(open_store):
    store = open_store()
    fill(store)
    scripted = Scripted()
    scripted.validated(store)
    scripted.answer = turned_lenient  # as a server behind the same name may
    drift, figures = drift_of(store, scripted, traffic(60, 60, "b"), traffic(120, 0, "a"))
    assert drift.cause == "judge"
    assert drift.anchors == 50
    named = {figure.name: figure for figure in figures}
    # half of the anchors are wrong, and all of these are called right now
    share_wrong = np.mean(
        [
            not is_good(int(v.prompt[-1].content.split("parcel ")[1].split("?")[0]))
            for v in store.verdicts_of(scripted.version, latest=50)
        ]
    )
    assert named["judge_drift"].value == pytest.approx(share_wrong)
    assert named["system_drift"].lower < 0.0 < named["system_drift"].upper
    assert scripted.asked == 60 + 50  # anchors were asked about once more


def test_a_system_that_turns_worse_is_named_and_the_judge_is_not(open_store):
    store = open_store()
    fill(store)
    scripted = Scripted()
    scripted.validated(store)
    drift, figures = drift_of(store, scripted, traffic(110, 10, "b"), traffic(40, 80, "a"))
    assert drift.cause == "system"
    assert {f.name: f.value for f in figures} == {
        "judge_drift": 0.0, "system_drift": pytest.approx(40 / 120 - 110 / 120),
    }  # fmt: skip


def test_nothing_moved_is_no_cause(store):
    fill(store)
    scripted = Scripted()
    scripted.validated(store)
    drift, _ = drift_of(store, scripted, traffic(60, 60, "b"), traffic(60, 60, "a"))
    assert drift.cause == "none shown"


def test_an_occasion_is_asked_once_and_the_next_one_anew(store):
    fill(store)
    scripted = Scripted()
    scripted.validated(store)
    same = traffic(9, 9, "b"), traffic(9, 9, "a")
    for occasion, asked in (("w1", 50), ("w1", 50), ("w2", 100)):
        drift_of(store, scripted, *same, occasion=occasion)
        assert scripted.asked == 60 + asked
    drift, _ = drift_of(store, scripted, *same, occasion="w3", anchors=7)
    assert (drift.anchors, scripted.asked) == (7, 60 + 107)


def test_anchors_are_items_of_the_validation_not_examples_nor_items_that_are_gone(store):
    fill(store)
    set_aside, kept = split_labels(store.records(HumanLabel))
    for n in range(500, 560):
        store.append(label(n))  # of interactions that are not there
    scripted = Scripted(examples=(example(int(set_aside[0].item_id[1:])),))
    scripted.validated(store)
    asked = scripted.asked
    drift, _ = drift_of(store, scripted, traffic(9, 9, "b"), traffic(9, 9, "a"))
    assert drift.anchors == min(50, len(kept))
    assert scripted.asked == asked + drift.anchors  # the time before was on record


def test_too_little_to_tell_drift_from_is_undefined_with_its_reason(store):
    fill(store, labels=1)
    scripted = Scripted()
    drift, (figure,) = drift_of(store, scripted, traffic(5, 5, "b"), traffic(5, 5, "a"))
    assert drift is None
    assert (figure.name, figure.value) == ("judge_drift", None)
    assert "2 anchors" in figure.reason


def test_an_unknown_label_leaves_an_anchor_out(store):
    fill(store)
    scripted = Scripted()
    scripted.validated(store)
    for n in range(10):
        for who in ("yan", "zoe"):  # most people
            store.append(label(n, "unsure", who, minutes=5))
    drift, _ = drift_of(store, scripted, traffic(9, 9, "b"), traffic(9, 9, "a"), anchors=60)
    assert (drift.anchors, drift.left_out_anchors) == (50, 10)
