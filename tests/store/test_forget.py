import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from typer.testing import CliRunner

from ratchet.analyze.failures.embedding import text_key
from ratchet.cli import app
from ratchet.improve.curation.config import CurationConfig
from ratchet.improve.curation.dataset import build_rows, write_training_set
from ratchet.improve.curation.selection import select
from ratchet.outcomes.join import join_feedback
from ratchet.outcomes.quality import QualityWeights, quality
from ratchet.records import (
    Analysis,
    Candidate,
    Comment,
    Correction,
    Cycle,
    Erasure,
    Example,
    ExampleSet,
    FailureCluster,
    Interaction,
    JudgeVerdict,
    Message,
    SetAside,
    Thumbs,
    ToolCall,
)
from ratchet.store import EventStore, Window
from ratchet.store.forget import forget, trace
from tests.calls import call, looked_up

NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)
SECRET = "my cat Ramses ate the card of account 7"
ANY_SIZE = CurationConfig(minimum_examples=1, minimum_lower_bound=0.0)


def interaction(number, user, prompt, response="card problems"):
    return Interaction(
        id=f"i{number}", session_id=f"s-{user}", user_id=user,
        created_at=NOW + timedelta(minutes=number), model_version="router/1",
        messages=(Message(role="user", content=prompt),), response=response,
    )  # fmt: skip


def cycle(number, champion):
    return Cycle(
        id=f"c{number}", number=number, created_at=NOW, champion=champion, options_digest="d",
        seed=0, window_start=NOW, window_end=NOW + timedelta(days=1), example_set_id="e",
    )  # fmt: skip


def candidate(number, version, set_id):
    return Candidate(
        id=f"k{number}", cycle_id=f"c{number}", created_at=NOW, model_name="router",
        version=version, adapter_digest="x", path="adapters/x", training_set_id=set_id,
        run_id=f"run{number}", losses=(), training_seconds=1.0,
    )  # fmt: skip


def analysis_that_quotes(*examples):
    cluster = FailureCluster(
        id="k", name="cards", size=1, failure_rate=0.5, lift=2.0, interval=(0.1, 0.9),
        examples=examples,
    )  # fmt: skip
    return Analysis(
        id="a", cycle_id="c1", created_at=NOW, model_version="m", metrics=(), alerts=(),
        clusters=(cluster,),
    )  # fmt: skip


def curated(store, home, cycle_id, *, without=()):
    window = Window(NOW, NOW + timedelta(days=1))
    outcomes = join_feedback(store.interactions(window), store.feedback(window))
    outcomes = outcomes.take(~np.isin(outcomes.user_ids, without))
    selection = select(outcomes, quality(outcomes, QualityWeights()), (), ANY_SIZE)
    stored = store.stored_interactions([row.interaction_id for row in selection.rows])
    rows = build_rows(selection, stored, ANY_SIZE, 0)
    made = write_training_set(
        rows, selection, (), home=home, cycle_id=cycle_id, now=NOW, config=ANY_SIZE
    )
    store.append(made)
    return made


@pytest.fixture
def lived_in(tmp_path):
    """A home with two users, of whom `eve` went into the first of two sets and adapters."""
    store = EventStore.open(f"sqlite:///{tmp_path / 'store.db'}")
    store.add_interactions(
        [
            interaction(0, "eve", SECRET, "I am sorry for the card of Ramses"),
            interaction(1, "bob", "where is my parcel, please"),
            interaction(2, "bob", "please close my account tomorrow"),
        ]
    )
    store.add_feedback(
        [
            Correction(id="f0", interaction_id="i0", created_at=NOW, value="cards of Ramses"),
            Comment(id="f1", interaction_id="i1", created_at=NOW, value="eve wrote", user_id="eve"),
            Thumbs(id="f2", interaction_id="i1", created_at=NOW, value="up"),
            Thumbs(id="f3", interaction_id="i2", created_at=NOW, value="up"),
        ]
    )
    store.add_vectors("encoder", {text_key(SECRET): np.ones(2), text_key("other"): np.ones(2)})
    store.append(cycle(1, "router/1"))
    first = curated(store, tmp_path, "c1")
    store.append(candidate(1, "2", first.id))
    store.append(cycle(2, "router/2"))  # began with the adapter of cycle 1
    second = curated(store, tmp_path, "c2", without=["eve"])
    store.append(candidate(2, "3", second.id))
    store.append(cycle(3, "router/1"))
    store.append(candidate(3, "4", second.id))
    yield store, tmp_path, first, second
    store.close()


def everything(store):
    """All that the database holds, as text."""
    import sqlalchemy as sa

    from ratchet.store.tables import METADATA

    with store.atomic() as connection:
        rows = [
            str(row)
            for table in METADATA.sorted_tables
            for row in connection.execute(sa.select(table))
        ]
    return "\n".join(rows)


def test_the_sets_and_adapters_that_used_a_user_are_named_through_the_line_of_adapters(lived_in):
    store, home, first, _ = lived_in
    found = trace(store, home, "eve")
    assert found.interaction_ids == ("i0",)
    assert found.folders == (first.path.removeprefix("datasets/"),)
    # 2 was trained on the set, 3 began with 2, 4 began with 1
    assert found.versions == ("router/2", "router/3")
    assert found.runs == ("run1",)


def test_nothing_of_a_user_is_left_but_numbers(lived_in):
    store, home, first, second = lived_in
    thumbs = store.counts()["thumbs"]
    record = forget(store, home, "eve", now=NOW, text_key=text_key)
    left = everything(store)
    for word in ("Ramses", "eve wrote", "'eve'"):
        assert word not in left
    files = b"".join(path.read_bytes() for path in home.glob("store.db*"))
    assert b"Ramses" not in files
    assert b"parcel" in files
    assert "parcel" in left
    assert (record.interactions, record.training_sets) == (1, trace_of(first))
    assert record.versions == ("router/2", "router/3")
    assert not (home / first.path).exists()
    assert (home / second.path).exists()
    assert store.counts()["thumbs"] == thumbs
    assert store.vectors("encoder", [text_key(SECRET)]) == {}
    assert len(store.vectors("encoder", [text_key("other")])) == 1
    assert store.stored_interactions(["i0"])["i0"].created_at == NOW


def trace_of(training_set):
    return (training_set.path.removeprefix("datasets/"),)


def test_what_a_user_said_is_found_in_calls_of_tools_and_in_their_results(lived_in):
    store, home, *_ = lived_in
    street = "In the Meadows 77, 4th floor"
    talk = looked_up("where do I live", json.dumps({"street": street}), customer="Eve Sixpack 4711")
    called = ToolCall.model_validate(call("move", to="Beside the Old Mill 12"))
    changes = {"messages": talk, "tool_calls": (called,), "response": ""}
    asked = interaction(9, "eve", "x").model_copy(update=changes)
    store.add_interactions([asked])
    quoted = (
        f"bob saw {street}",
        'then calls find_customer(customer="Eve Sixpack 4711") failed',
        "to Beside the Old Mill 12, he said",
    )
    store.append(analysis_that_quotes(*quoted))
    forget(store, home, "eve", now=NOW, text_key=text_key)
    assert store.records(Analysis)[0].clusters[0].examples == (
        "bob saw [erased]", "then [erased] failed", "to [erased], he said",
    )  # fmt: skip
    left = everything(store)
    assert street not in left
    assert "Sixpack" not in left
    assert "Old Mill" not in left


def test_what_was_erased_is_not_trained_on_again_nor_stored_when_it_is_sent_again(lived_in):
    store, home, _, second = lived_in
    forget(store, home, "eve", now=NOW, text_key=text_key)
    added = store.add_interactions(
        [interaction(0, "eve", SECRET, "I am sorry for the card of Ramses")]
    )
    assert (added.new, added.repeated) == (0, 1)
    assert "Ramses" not in everything(store)
    window = Window(NOW, NOW + timedelta(days=1))
    assert [p.interaction_id for p in store.permissions(window)] == ["i0"]
    assert store.permissions(window)[0].refuses(NOW, only_if_given=False)
    assert second.size == 2


def test_records_verdicts_and_rows_set_aside_lose_a_users_texts(lived_in):
    store, home, *_ = lived_in
    store.append(analysis_that_quotes(f"he said: {SECRET}", "where is my parcel"))
    for key, text in (("v1", SECRET), ("v2", "where is my parcel, please")):
        store.add_verdicts(
            [
                JudgeVerdict(
                    id=key, created_at=NOW, judge="j", judge_version="j/1", dimension="d",
                    mode="pointwise", model="m", prompt=(Message(role="user", content=text),),
                    reply="5", outcome="5", score=1.0,
                )
            ]
        )  # fmt: skip
    raw = json.dumps({"user_id": "eve", "messages": 3})
    store.set_aside(
        [SetAside(id="x", created_at=NOW, source="f", position="1", reason="r", raw=raw)]
    )
    golden = Example(id="g", messages=(Message(role="user", content=SECRET),), target="a")
    frozen = ExampleSet.freeze("golden", (golden,), NOW)
    store.append(frozen)
    record = forget(store, home, "eve", now=NOW, text_key=text_key)
    assert store.records(Analysis)[0].clusters[0].examples == (
        "he said: [erased]", "where is my parcel",
    )  # fmt: skip
    assert set(store.verdicts(["v1", "v2"])) == {"v2"}
    assert store.counts()["set_aside"] == 0
    # an evaluation set is frozen: it is named for a person to decide
    assert record.example_sets == (frozen.id,)


def test_forgetting_again_finishes_what_was_interrupted_and_finds_nothing_new(lived_in):
    store, home, first, _ = lived_in
    forget(store, home, "eve", now=NOW, text_key=text_key)
    (home / first.path).mkdir()  # as if it was killed before the folder was deleted
    again = forget(store, home, "eve", now=NOW + timedelta(hours=1), text_key=text_key)
    assert again.interactions == 0
    assert not (home / first.path).exists()
    assert len(store.records(Erasure)) == 2


def test_an_unknown_user_has_left_nothing(lived_in):
    store, home, first, _ = lived_in
    record = forget(store, home, "nobody", now=NOW, text_key=text_key)
    assert (record.interactions, record.training_sets, record.versions) == (0, (), ())
    assert (home / first.path).exists()


def test_the_command_says_first_and_erases_when_told(lived_in, monkeypatch):
    store, home, first, _ = lived_in
    monkeypatch.setenv("RATCHET_HOME", str(home))
    said = CliRunner().invoke(app, ["forget", "eve"])
    assert said.exit_code == 0
    assert "1 interaction would be erased" in said.stdout
    assert "adapter router/3 was trained on it" in said.stdout
    assert (home / first.path).exists()
    done = CliRunner().invoke(app, ["forget", "eve", "--yes"])
    assert done.exit_code == 0, done.output
    assert "erased: 1 interaction" in done.stdout
    assert not (home / first.path).exists()
    assert "Ramses" not in everything(store)
