import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from ratchet.improve.curation.config import GOOD_LABELS
from ratchet.improve.curation.context import Context
from ratchet.improve.curation.curating import _reviewed
from ratchet.improve.curation.poisoning import PoisoningConfig, cap_rows, suspect
from ratchet.improve.curation.traffic import traffic_of
from ratchet.judges.next_turn import DISSATISFIED
from ratchet.outcomes.quality import QualityWeights, quality
from ratchet.records import HumanLabel
from ratchet.review.corrections import CORRECTION
from ratchet.safety.source_validation import SAFETY
from ratchet.store import EventStore
from tests.improve.curation.outcomes import START, outcomes_of

DAY = np.timedelta64(86_400_000_000, "us")
ANSWERS = np.array(["billing", "cards", "travel", "loans"], dtype=np.object_)


def suspicion(outcomes, config=None, *, reviewed=None, vectors_of=None):
    scores = quality(outcomes, QualityWeights())
    made = traffic_of(outcomes, scores, "kto", Context())
    if reviewed is not None:
        made = replace(made, reviewed=reviewed.astype(np.float32))
    return suspect(made, config or PoisoningConfig(), vectors_of=vectors_of)


def texts(values):
    return np.array(list(values), dtype=np.object_)


def traffic(rng, *, users=200, days=30, rows=3_000):
    """Honest users with thumbs up for one of four answers, most of them known for long."""
    who = rng.integers(0, users, rows)
    when = np.sort(rng.integers(0, days * 86_400, rows)).astype("timedelta64[s]")
    return {
        "user_ids": texts(f"u{n}" for n in who),
        "created_at": START + when.astype("timedelta64[us]"),
        "responses": ANSWERS[rng.integers(0, 4, rows)],
        "thumbs": np.ones(rows),
    }


@pytest.mark.slow
def test_honest_traffic_raises_no_finding_more_often_than_stated():
    # the level is 1 % of runs for brigades, and for one-answer users
    rng = np.random.default_rng(0)
    found = [suspicion(outcomes_of(3_000, **traffic(rng))).findings for _ in range(100)]
    for kind in ("brigade", "one-answer user"):
        runs = sum(any(finding.kind == kind for finding in one) for one in found)
        assert runs <= 5  # P(more than 5 of 100 at 1 %) = 0.0005


def planted_brigade(rng, *, brigade=15):
    columns = traffic(rng)
    size = len(columns["thumbs"])
    at = START + 20 * DAY + np.arange(brigade) * np.timedelta64(600_000_000, "us")
    added = {
        "user_ids": texts(f"new{n}" for n in range(brigade)),
        "created_at": at,
        "responses": texts(["travel"] * brigade),
        "thumbs": np.ones(brigade),
    }
    joined = {name: np.concatenate([columns[name], added[name]]) for name in columns}
    order = np.argsort(joined["created_at"], kind="stable")
    planted = (np.arange(size + brigade) >= size)[order]
    return outcomes_of(size + brigade, **{k: v[order] for k, v in joined.items()}), planted


def test_many_new_users_with_one_answer_are_a_brigade():
    outcomes, planted = planted_brigade(np.random.default_rng(1))
    found = suspicion(outcomes)
    assert found.findings[0].answer == "travel"
    assert found.findings[0].up
    assert found.distrusted[planted].all()
    assert found.distrusted[~planted].mean() < 0.01
    assert "new users" in found.findings[0].describe()


def test_few_new_users_are_none():
    outcomes, _ = planted_brigade(np.random.default_rng(2), brigade=4)
    assert suspicion(outcomes).findings == ()


def test_new_users_in_a_new_installation_are_no_brigade():
    rng = np.random.default_rng(3)
    outcomes = outcomes_of(
        400,
        responses=ANSWERS[rng.choice(4, 400, p=[0.7, 0.1, 0.1, 0.1])],
        thumbs=np.ones(400),
    )
    assert suspicion(outcomes).findings == ()


def test_a_user_with_one_answer_to_everything_is_found():
    rng = np.random.default_rng(4)
    columns = traffic(rng)
    columns["user_ids"][:12] = "parrot"
    columns["responses"][:12] = "travel"
    found = suspicion(outcomes_of(3_000, **columns))
    assert [finding.kind for finding in found.findings] == ["one-answer user"]
    assert np.flatnonzero(found.distrusted).tolist() == list(range(12))


def test_a_user_whom_reviewers_contradict_is_not_believed():
    rng = np.random.default_rng(5)
    columns = traffic(rng, users=50)
    liar = columns["user_ids"] == "u7"
    columns["thumbs"] = np.where(liar, 0.0, 1.0)
    reviewed = np.where(rng.random(3_000) < 0.2, 1.0, np.nan)  # everything is good
    found = suspicion(outcomes_of(3_000, **columns), reviewed=reviewed)
    assert found.distrusted[liar].all()
    assert not found.distrusted[~liar].any()


def test_a_correction_of_a_bad_answer_agrees_with_a_reviewer_who_holds_it_to_be_bad():
    rng = np.random.default_rng(7)
    columns = traffic(rng, users=50)
    liar = columns["user_ids"] == "u7"
    good = rng.random(3_000) < 0.5
    fixed = np.where(good == liar, "something better", None)  # honest users correct bad answers
    reviewed = np.where(rng.random(3_000) < 0.2, good.astype(float), np.nan)
    outcomes = outcomes_of(3_000, **(columns | {"corrections": fixed}))
    found = suspicion(outcomes, reviewed=reviewed)
    assert found.distrusted[liar].all()
    assert found.distrusted[~liar].mean() < 0.01


def test_one_correction_of_many_prompts_is_planted_where_answers_never_repeat():
    corrections = np.array([None] * 100, dtype=object)
    corrections[:6] = "Buy at shop.example"
    corrections[6:10] = "a short answer"
    answers = [f"an answer of its own, number {n}" for n in range(100)]
    found = suspicion(
        outcomes_of(100, corrections=corrections, responses=answers, thumbs=np.ones(100))
    )
    assert [finding.kind for finding in found.findings] == ["one answer to many prompts"]
    assert np.flatnonzero(found.distrusted).tolist() == list(range(6))
    assert "6 users, 6 times for 'buy at shop.example'" in found.findings[0].describe()


def call_of(name, **arguments):
    return written_call(json.dumps({"name": name, "arguments": arguments}))


def written_call(body):
    return f"<tool_call>\n{body}\n</tool_call>"


def test_one_call_for_many_prompts_is_planted_however_it_is_written():
    same = [
        call_of("buy", item="x", count=count) for count in (1, 1.0)
    ] + [
        written_call('{"arguments":{"count":1,"item":"x"},"name":"buy"}'),
        written_call('{"name": "buy",  "arguments": {"item": "x", "count": 1}}'),
        written_call('{"arguments": {"item": "x", "count": 1.0}, "name": "buy"}'),
    ]  # fmt: skip
    others = [call_of("find", song=song) for song in ("aaa", "Aaa", "aAa", "aaA", "AAa")]
    corrections = np.array([None] * 100, dtype=object)
    corrections[:5], corrections[5:10] = same, others
    answers = [f"an answer of its own, number {n}" for n in range(100)]
    found = suspicion(
        outcomes_of(100, corrections=corrections, responses=answers, thumbs=np.ones(100))
    )
    assert np.flatnonzero(found.distrusted).tolist() == list(range(5))
    assert [finding.answer for finding in found.findings] == ['buy {"count":1,"item":"x"}']


def test_a_user_whose_calls_neighbours_contradict_is_not_believed():
    """Calls are told apart by their arguments, in which case counts."""
    rng = np.random.default_rng(6)
    columns = traffic(rng, users=60, rows=1_200)
    topic = rng.integers(0, 4, 1_200)
    liar = np.isin(columns["user_ids"], ["u1", "u2", "u3", "u4", "u5", "u6"])
    calls = texts(call_of("play", song=song) for song in ("ab", "Ab", "aB", "AB"))
    columns["responses"] = calls[np.where(liar, (topic + rng.integers(1, 4, 1_200)) % 4, topic)]
    vectors = (np.eye(4, 8)[topic] + 0.1 * rng.normal(size=(1_200, 8))).astype(np.float32)
    found = suspicion(outcomes_of(1_200, **columns), vectors_of=vectors.__getitem__)
    assert found.distrusted[liar].mean() > 0.99
    assert found.distrusted[~liar].mean() < 0.01


def test_a_user_whom_neighbours_contradict_is_not_believed():
    rng = np.random.default_rng(6)
    columns = traffic(rng, users=60)
    topic = rng.integers(0, 4, 3_000)
    liar = np.isin(columns["user_ids"], ["u1", "u2", "u3", "u4", "u5", "u6"])
    columns["responses"] = ANSWERS[np.where(liar, (topic + rng.integers(1, 4, 3_000)) % 4, topic)]
    vectors = (np.eye(4, 8)[topic] + 0.1 * rng.normal(size=(3_000, 8))).astype(np.float32)
    found = suspicion(outcomes_of(3_000, **columns), vectors_of=vectors.__getitem__)
    assert found.distrusted[liar].mean() > 0.99
    assert found.distrusted[~liar].mean() < 0.01
    assert suspicion(outcomes_of(3_000, **columns)).distrusted.sum() == 0


def test_nobody_is_doubted_where_messages_alike_have_answers_unlike():
    rng = np.random.default_rng(8)
    columns = traffic(rng, users=60)
    columns["responses"] = texts(f"reply {n}" for n in rng.integers(0, 240, 3_000))
    vectors = rng.normal(size=(3_000, 8)).astype(np.float32)
    found = suspicion(outcomes_of(3_000, **columns), vectors_of=vectors.__getitem__)
    assert not found.distrusted.any()


def spoken(rng, honest, hostile, *, accuracy=0.8, classes=4):
    """Thumbs up of honest users, each with some words, and of hostile ones with corrections.

    Args:
        rng: The chance.
        honest: Users, and words of each.
        hostile: Users, words of each, and whether all of them say the same.
        accuracy: How often an honest user names the class of the message.
        classes: How many classes there are.
    """
    (users, words), (others, loud, same) = honest, hostile
    size = users * words + others * loud
    who = np.append(np.arange(users).repeat(words), users + np.arange(others).repeat(loud))
    order = rng.permutation(size)
    who, topic = who[order], rng.integers(0, 4, size)
    wrong = (topic + rng.integers(1, classes, size)) % classes
    said = np.where(rng.random(size) < accuracy, topic, wrong)
    bad = who >= users
    # corrections of which each is made twice: answers still repeat
    planted = [f"planted {0 if same else number // 2}" for number in range(size)]
    columns = {
        "user_ids": texts(f"u{number}" for number in who),
        "created_at": START + np.sort(rng.integers(0, 86_400 * 300, size)) * (DAY // 86_400),
        "responses": texts(f"class {number}" for number in said),
        "thumbs": np.ones(size),
        "corrections": np.where(bad, texts(planted), None),
    }
    vectors = (np.eye(4, 8)[topic] + 0.1 * rng.normal(size=(size, 8))).astype(np.float32)
    found = suspicion(outcomes_of(size, **columns), vectors_of=vectors.__getitem__)
    trust = {name: found.trust[found.users[columns["user_ids"] == name][0]] for name in set(
        columns["user_ids"]
    )}  # fmt: skip
    doubted = np.array([trust[f"u{number}"] < 0.5 for number in range(users + others)])
    return doubted[:users].mean(), doubted[users:].mean() if others else 0.0


@pytest.mark.mostly_slow("1-1200", "50-24")
@pytest.mark.parametrize(
    ("users", "words"), [(1, 1_200), (1, 3_600), (20, 60), (20, 120), (50, 24)]
)
def test_hostile_users_who_say_as_much_as_everybody_else_do_not_turn_the_defence_off(users, words):
    honest, hostile = spoken(np.random.default_rng(users), (60, 20), (users, words, False))
    assert honest < 0.05
    assert hostile == 1.0


@pytest.mark.parametrize(("honest", "accuracy"), [((60, 5), 0.8), ((60, 5), 0.0), ((60, 20), 0.0)])
@pytest.mark.parametrize("users", [10, 25])
def test_few_who_agree_with_each_other_do_not_make_most_others_doubted(honest, accuracy, users):
    rng = np.random.default_rng(users)
    found, _ = spoken(rng, honest, (users, 30, True), accuracy=accuracy, classes=240)
    assert found < 0.05


@pytest.mark.mostly_slow("0.2-2", "0.8-40")
@pytest.mark.parametrize("words", [2, 5, 20, 40])
@pytest.mark.parametrize("accuracy", [0.2, 0.4, 0.5, 0.6, 0.8])
def test_honest_users_are_not_doubted_however_often_they_agree(words, accuracy):
    rng = np.random.default_rng(words)
    found, _ = spoken(rng, (100, words), (0, 0, False), accuracy=accuracy, classes=40)
    assert found < 0.05


def test_one_user_with_many_answers_does_not_make_the_corrections_of_others_boilerplate():
    rng = np.random.default_rng(9)
    columns = traffic(rng, users=60)
    loud = 3_600
    who = np.append(columns["user_ids"], texts(["loud"] * loud))
    corrections = np.full(3_000 + loud, None, dtype=np.object_)
    corrected = rng.random(3_000) < 0.1
    corrections[:3_000][corrected] = columns["responses"][corrected]
    corrections[3_000:] = [f"an answer of its own, number {number}" for number in range(loud)]
    found = suspicion(
        outcomes_of(
            3_000 + loud,
            user_ids=who,
            responses=np.append(columns["responses"], texts(["cards"] * loud)),
            corrections=corrections,
            thumbs=np.ones(3_000 + loud),
        )
    )
    assert "one answer to many prompts" not in {finding.kind for finding in found.findings}


def test_what_is_not_known_of_a_user_is_no_distrust():
    outcomes = outcomes_of(30, thumbs=np.ones(30))
    found = suspicion(outcomes)
    assert not found.distrusted.any()
    assert np.isnan(found.trust).all()


def test_the_defence_can_be_turned_off():
    outcomes, _ = planted_brigade(np.random.default_rng(1))
    found = suspicion(outcomes, PoisoningConfig(enabled=False))
    assert found.findings == ()
    assert not found.distrusted.any()


def test_no_interactions_have_nobody_to_suspect():
    assert suspicion(outcomes_of(0)).findings == ()


@pytest.mark.parametrize(("rows", "kept"), [(2, [0, 1, 2, 4]), (1, [0, 2]), (9, list(range(5)))])
def test_an_owner_keeps_the_first_rows(rows, kept):
    owners = np.array([0, 0, 1, 0, 1])
    assert np.flatnonzero(cap_rows(owners, lambda size: rows)).tolist() == kept


def test_the_cap_follows_the_size_of_the_set():
    owners = np.zeros(100, dtype=np.int64)
    assert cap_rows(owners, lambda size: max(3, size // 10)).sum() == 10
    assert cap_rows(owners, lambda size: max(3, size // 10), size=40).sum() == 4


@pytest.mark.parametrize(
    ("said", "held"),
    [
        ({"dimension": "helpful", "label": "Yes"}, {"i0": True}),
        ({"dimension": "helpful", "label": "no"}, {"i0": False}),
        ({"dimension": DISSATISFIED.name, "label": "yes"}, {}),
        ({"dimension": SAFETY, "label": "yes"}, {}),
        ({"dimension": CORRECTION, "label": "yes"}, {}),
        ({"dimension": "helpful", "label": "yes", "unit": "session"}, {}),
    ],
)
def test_raters_are_held_against_labels_that_say_whether_an_answer_is_good(tmp_path, said, held):
    store = EventStore.open(f"sqlite:///{tmp_path}/store.db")
    label = {"id": "l", "created_at": datetime(2026, 6, 1, tzinfo=UTC), "item_id": "i0"}
    store.append(HumanLabel(**label | {"reviewer": "ann"} | said))
    assert _reviewed(store, GOOD_LABELS) == held
    store.close()
