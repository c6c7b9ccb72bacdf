from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.errors import InsufficientDataError, LeakError
from ratchet.improve.curation.config import CurationConfig
from ratchet.improve.curation.context import Context
from ratchet.improve.curation.dataset import (
    ROWS_FILE,
    build_rows,
    read_any_rows,
    write_training_set,
)
from ratchet.improve.curation.rows import TrainingRow
from ratchet.improve.curation.selection import select
from ratchet.outcomes.join import join_feedback
from ratchet.outcomes.quality import QualityWeights, quality
from ratchet.records import Interaction, Message, user_digest
from ratchet.store import Window

START = datetime(2026, 11, 23, 9, tzinfo=UTC)
ANY_SIZE = CurationConfig(minimum_examples=1)
TIME = pa.timestamp("us", "UTC")
INTERACTIONS = pa.schema(
    [(name, pa.string()) for name in ("id", "session_id", "user_id")]
    + [("created_at", TIME)]
    + [(name, pa.string()) for name in ("model_version", "segment", "prompt", "response")]
    + [("latency_seconds", pa.float64()), ("error", pa.string())]
)
FEEDBACK = pa.schema(
    [(name, pa.string()) for name in ("id", "interaction_id", "kind")]
    + [("created_at", TIME), ("number", pa.float64()), ("text", pa.string())]
)


def outcomes_of(*items):
    """Join items of (prompt, response, {kind: number or text}), a minute apart, with ids i000..."""
    interactions, feedback = [], []
    for place, (prompt, response, events) in enumerate(items):
        key, at = f"i{place:03d}", START + timedelta(minutes=place)
        error = events.pop("error", None)
        interactions.append(
            {
                "id": key,
                "session_id": "s",
                "user_id": f"u{place}",
                "created_at": at,
                "segment": "all",
            }
            | {"model_version": "m/1", "prompt": prompt, "response": response}
            | {"latency_seconds": 0.1, "error": error}
        )
        for kind, value in events.items():
            text = value if isinstance(value, str) else None
            number = None if isinstance(value, str) else float(value)
            feedback.append(
                {"id": f"{key}-{kind}", "interaction_id": key, "kind": kind, "created_at": at}
                | {"number": number, "text": text}
            )
    return join_feedback(
        pa.Table.from_pylist(interactions, INTERACTIONS), pa.Table.from_pylist(feedback, FEEDBACK)
    )


def chosen(*items, protected=(), config=ANY_SIZE):
    outcomes = outcomes_of(*items)
    return select(outcomes, quality(outcomes, QualityWeights()), protected, config)


def pairs(selection):
    return [(row.prompt, row.target) for row in selection.rows]


UP, DOWN = {"thumbs": 1}, {"thumbs": 0}


def test_corrections_and_well_rated_answers_are_taken_and_nothing_else():
    selection = chosen(
        ("liked", "billing", {"thumbs": 1}),
        ("five stars", "billing", {"stars": 5}),
        ("corrected", "billing", {"thumbs": 0, "correction": " refunds "}),
        ("disliked", "billing", {"thumbs": 0}),
        ("two stars", "billing", {"stars": 2}),
        ("unrated", "billing", {}),
        ("copied but unrated", "billing", {"copy": 1, "regenerate": 0, "task_completed": 1}),
    )
    assert pairs(selection) == [
        ("liked", "billing"),
        ("five stars", "billing"),
        ("corrected", "refunds"),
    ]
    assert [row.source for row in selection.rows] == ["rated", "rated", "correction"]


def test_a_flipped_thumb_with_poor_implicit_signals_is_not_taken():
    # 0.6 * 1 + 0.4 * 0 = 0.6, below the default 0.75
    poor = {"copy": 0, "regenerate": 1, "task_completed": 0, "session_end": 3}
    # (0 * 0.25 + 1 * 0.25 + 1 * 0.35) / 0.85 = 0.706, and 0.6 + 0.4 * 0.706 = 0.882
    good = {"copy": 0, "regenerate": 0, "task_completed": 1}
    selection = chosen(("flipped", "a", UP | poor), ("meant", "a", UP | good))
    assert pairs(selection) == [("meant", "a")]


def test_what_was_found_unsafe_or_waits_for_review_is_not_taken():
    items = (
        ("checked", "a", UP | {"safety_violation": 0}),
        ("unsafe", "a", UP | {"safety_violation": 1}),
        ("unsafe and corrected", "a", {"correction": "b", "safety_violation": 1}),
        ("flagged", "a", UP),
    )
    outcomes = outcomes_of(*items)
    scored = quality(outcomes, QualityWeights())
    found = select(outcomes, scored, (), ANY_SIZE, withheld={"i003"})
    assert [row.prompt for row in found.rows] == ["checked"]
    assert dict(found.funnel)["corrected or well rated"] == 4
    assert dict(found.funnel)["not flagged as unsafe"] == 1


def test_an_answer_of_exactly_the_minimum_quality_is_taken():
    # four stars are (4 - 1) / 4 = 0.75 with nothing else observed
    assert pairs(chosen(("four", "a", {"stars": 4}))) == [("four", "a")]


def test_a_failed_answer_is_taken_only_where_the_user_gave_the_right_one():
    selection = chosen(
        ("liked error", "a", UP | {"error": "timeout"}),
        ("corrected error", "", {"correction": "b", "error": "timeout"}),
    )
    assert pairs(selection) == [("corrected error", "b")]


def test_a_blank_answer_is_never_a_target():
    selection = chosen(
        ("blank correction", "a", {"correction": "  \n"}),
        ("liked nothing", "  ", UP),
        ("fine", "a", UP),
    )
    assert pairs(selection) == [("fine", "a")]


def test_a_prompt_is_trained_on_once_with_the_target_most_users_named():
    selection = chosen(
        ("Where is it?", "billing", UP),
        ("where  is it", "x", {"correction": "Delivery"}),
        ("WHERE IS IT!", "delivery", UP),
    )
    assert pairs(selection) == [("WHERE IS IT!", "delivery")]


def test_a_prompt_whose_targets_are_tied_is_dropped():
    selection = chosen(
        ("tied", "a", UP), ("tied", "b", UP), ("other", "a", UP), ("tied twice", "a", UP),
        ("tied twice", "b", UP), ("tied twice", "b", UP), ("tied twice", "A.", UP),
    )  # fmt: skip
    assert pairs(selection) == [("other", "a")]


FORMS = st.sampled_from([str.upper, str.lower, str.title, lambda text: text.replace(" ", "  \n")])
ENDS = st.sampled_from(["", ".", "!!", " ?", "…", ' "'])


@settings(deadline=None)
@given(form=FORMS, start=st.sampled_from(["", " ", '"', "  *"]), end=ENDS)
def test_a_held_out_prompt_never_gets_in_whatever_its_form(form, start, end):
    prompt = start + form("my card was charged twice") + end
    protected = ["My card was charged twice."]
    selection = chosen((prompt, "a", UP), ("another", "a", UP), protected=protected)
    assert pairs(selection) == [("another", "a")]
    row = TrainingRow("i", (Message(role="user", content=prompt),), "a", "rated")
    with pytest.raises(LeakError, match="got 1"):
        write_training_set([row], selection, protected, home=None, cycle_id="c", now=START)


labels = st.sampled_from(["a", "b", "c"])
rated = st.lists(st.tuples(labels, st.booleans()), min_size=1, max_size=40)


@settings(deadline=None)
@given(items=rated, most=st.integers(1, 25))
def test_the_set_is_capped_balanced_over_targets_and_in_order_of_time(items, most):
    selection = chosen(
        *[
            (f"p{n}", label, {"correction": label} if corrected else dict(UP))
            for n, (label, corrected) in enumerate(items)
        ],
        config=CurationConfig(minimum_examples=1, maximum_examples=most, minimum_lower_bound=0.0),
    )
    kept = Counter(row.target for row in selection.rows)
    there = Counter(label for label, _ in items)
    assert len(selection.rows) == min(most, len(items))
    for target in there:
        exhausted = kept[target] == there[target]
        assert exhausted or kept[target] >= max(kept.values()) - 1
    positions = [row.position for row in selection.rows]
    assert positions == sorted(positions)


def test_a_full_set_keeps_corrections_first_and_then_the_newest():
    items = [("old", "a", UP), ("corrected", "x", {"correction": "a"}), ("new", "a", UP)]
    items = [(prompt, response, dict(events)) for prompt, response, events in items]
    config = CurationConfig(minimum_examples=1, maximum_examples=2)
    assert pairs(chosen(*items, config=config)) == [("corrected", "a"), ("new", "a")]


@settings(deadline=None)
@given(items=rated, protected=st.sets(st.integers(0, 39)), most=st.integers(1, 25))
def test_the_funnel_starts_with_everything_and_never_grows(items, protected, most):
    everything = [(f"p{n % 30}", label, UP if up else DOWN) for n, (label, up) in enumerate(items)]
    try:
        selection = chosen(
            *[(prompt, response, dict(events)) for prompt, response, events in everything],
            protected=[f"p{n}" for n in protected],
            config=CurationConfig(minimum_examples=1, maximum_examples=most),
        )
    except InsufficientDataError:
        return
    counts = [count for _, count in selection.funnel]
    assert counts[0] == len(items)
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == len(selection.rows)


def test_too_few_examples_are_an_error_that_names_what_was_lost_where():
    with pytest.raises(InsufficientDataError) as caught:
        chosen(
            ("a", "x", UP), ("b", "x", UP), ("c", "x", DOWN),
            protected=["a"], config=CurationConfig(minimum_examples=2),
        )  # fmt: skip
    message = str(caught.value)
    assert "at least 2 examples, got 1" in message
    assert "interactions: 3, corrected or well rated: 2, readable: 2, not refused" in message
    assert "not in an evaluation set: 1" in message


# From the store to Parquet ------------------------------------------------------------------------


def interactions_of(selection):
    return {
        row.interaction_id: Interaction(
            id=row.interaction_id,
            session_id="s",
            user_id="u",
            created_at=START,
            model_version="m/1",
            messages=(
                Message(role="system", content="Answer with a queue."),
                Message(role="user", content=row.prompt),
            ),
            response="x",
        )
        for row in selection.rows
    }


def rows_of(selection, *, seed=0, shuffle=False):
    config = CurationConfig(minimum_examples=1, shuffle_targets=shuffle)
    return build_rows(selection, interactions_of(selection), config, seed)


def written(home, selection, rows=None, protected=()):
    return write_training_set(
        rows or rows_of(selection), selection, protected, home=home, cycle_id="c", now=START
    )


def some_selection(last="billing"):
    labels = ["billing", "refunds", "größe | „quoted“"] * 4
    return chosen(
        *[(f"prompt {n}", label, dict(UP)) for n, label in enumerate(labels)],
        ("the last", "x", {"correction": last}),
    )


def test_the_same_state_gives_the_same_digest_and_one_changed_target_another(tmp_path):
    first = written(tmp_path / "one", some_selection())
    again = written(tmp_path / "two", some_selection())
    other = written(tmp_path / "three", some_selection(last="refunds"))
    assert first == again
    assert other.digest != first.digest
    assert other.id != first.id
    assert other.path != first.path


def test_rows_come_back_from_parquet_as_they_were_written(tmp_path):
    selection = some_selection()
    training_set = written(tmp_path, selection)
    folder = tmp_path / training_set.path
    stored = [replace(row, user_id="", moment=0) for row in rows_of(selection)]
    assert read_any_rows(folder) == stored
    assert read_any_rows(folder, "validation") == []
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", ROWS_FILE]
    assert training_set.size == len(selection.rows) == 13
    assert training_set.funnel == selection.funnel


def test_a_leak_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(LeakError, match="'the last'"):
        written(tmp_path, some_selection(), protected=["THE LAST!"])
    assert list(tmp_path.iterdir()) == []


def test_shuffling_permutes_the_targets_by_the_seed_and_leaves_the_prompts():
    selection = some_selection()
    straight, shuffled = rows_of(selection), rows_of(selection, shuffle=True)
    assert [row.messages for row in shuffled] == [row.messages for row in straight]
    assert [row.target for row in shuffled] != [row.target for row in straight]
    assert Counter(r.target for r in shuffled) == Counter(r.target for r in straight)
    assert rows_of(selection, shuffle=True) == shuffled
    assert rows_of(selection, shuffle=True, seed=1) != shuffled


def test_a_selection_can_be_made_from_the_store(store):
    from ratchet.records import Correction, Thumbs

    interactions = [
        Interaction(
            id=f"i{n}",
            session_id="s",
            user_id="u",
            created_at=START + timedelta(minutes=n),
            model_version="m/1",
            messages=(Message(role="user", content=f"prompt {n}"),),
            response="billing",
        )
        for n in range(3)
    ]
    store.add_interactions(interactions)
    store.add_feedback(
        [
            Thumbs(id="f0", interaction_id="i0", created_at=START, value="up"),
            Thumbs(id="f1", interaction_id="i1", created_at=START, value="down"),
            Correction(id="f2", interaction_id="i2", created_at=START, value="refunds"),
        ]
    )
    window = Window(START, START + timedelta(hours=1))
    outcomes = join_feedback(store.interactions(window), store.feedback(window))
    selection = select(outcomes, quality(outcomes, QualityWeights()), (), ANY_SIZE)
    stored = store.stored_interactions([row.interaction_id for row in selection.rows])
    rows = build_rows(selection, stored, ANY_SIZE, 0)
    assert [(row.messages, row.target) for row in rows] == [
        (interactions[0].messages, "billing"),
        (interactions[2].messages, "refunds"),
    ]


def test_nothing_of_a_user_whom_the_gate_asks_is_trained_on_whatever_the_prompt(store):
    items = [(f"question {n}", "so", {"correction": "answer"}) for n in range(40)]
    found = outcomes_of(*items)
    held = Context(held_out={user_digest(f"u{n}") for n in range(0, 40, 4)})
    selection = select(found, quality(found, QualityWeights()), (), ANY_SIZE, context=held)
    assert {int(row.user_id[1:]) % 4 for row in selection.rows} == {1, 2, 3}
    funnel = dict(selection.funnel)
    assert funnel["not refused by their user"] - funnel["not of users held out"] == 10
