"""Curation from history gives what curation of everything in memory gave, however history grew."""

from __future__ import annotations

import shutil
import tempfile
import tracemalloc
from contextlib import suppress
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratchet.errors import BusyError, InsufficientDataError
from ratchet.improve.curation.config import CurationConfig
from ratchet.improve.curation.context import Context
from ratchet.improve.curation.dataset import choose_among
from ratchet.improve.curation.derived import Derived
from ratchet.improve.curation.pool import Background
from ratchet.improve.curation.stored import stored_traffic
from ratchet.improve.curation.traffic import read_at
from ratchet.improve.curation.traits import interaction_traits
from ratchet.records import Thumbs, digest
from ratchet.store import EventStore
from ratchet.store.arrivals import last_position
from ratchet.store.forget import forget
from ratchet.store.history import History
from ratchet.store.retention import Expired, delete_expired
from tests.benchmarks import curation_history
from tests.golden.make import recorded
from tests.improve.curation.worlds import (
    KINDS,
    START,
    USABLE,
    curated,
    fill,
    summary,
    vectors,
    world,
)
from tests.parameters import mostly_slow
from tests.store.reported_store import declare
from tests.store.s3_server import BUCKET, s3_server

GOLDEN = recorded("curation")


NOW = datetime(2026, 4, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path, made_store):
    shutil.copyfile(made_store, tmp_path / "store.db")
    opened = EventStore.open(f"sqlite:///{tmp_path / 'store.db'}")
    yield opened
    opened.close()


@pytest.fixture
def derived(tmp_path):
    return Derived.open(History.open(tmp_path / "history"))


def advanced(store, derived):
    derived.history.advance(store)
    return derived.advance()


def background_of(derived, made, kind, of="true"):
    """Read history as the traffic that a kind of set is selected from."""
    traffic = stored_traffic(
        derived, kind, end=made.end, judges=USABLE, consent=made.config.consent,
        context=made.context, of=of,
    )  # fmt: skip

    def vectors_of(rows):
        (prompts,) = read_at(traffic.texts, rows, "prompt")
        return vectors(prompts.tolist())

    context = replace(made.context, vectors_of=vectors_of if made.compare else None)
    return Background(traffic, made.protected, made.config, context)


def from_history(store, derived, made, kind, of="true"):
    try:
        return summary(store, made, choose_among(kind, background_of(derived, made, kind, of)))
    except InsufficientDataError as error:
        return {"refused": str(error)}


@pytest.mark.parametrize("seed", mostly_slow(range(24), {3}))
def test_history_gives_the_sets_that_reading_everything_gave(store, derived, seed):
    # recorded by the code that read all interactions and feedback into memory
    made = world(seed)
    fill(store, made.interactions, made.feedback)
    advanced(store, derived)
    for kind in KINDS:
        assert from_history(store, derived, made, kind) == GOLDEN[str(seed)][kind]


@pytest.mark.parametrize("seed", mostly_slow(range(4), {1}))
def test_a_declared_absence_is_a_no_in_what_is_read_from_history_too(store, derived, seed):
    made = world(seed)
    fill(store, made.interactions, made.feedback)
    before = [curated(store, made, kind) for kind in KINDS]
    declare(store, "copy", "regenerate", "task_completed", application="*", since=START)
    advanced(store, derived)
    context = replace(made.context, reporting=store.reporting().declared_only())
    declared = replace(made, context=context)
    after = [curated(store, made, kind) for kind in KINDS]
    assert after != before
    assert [from_history(store, derived, declared, kind) for kind in KINDS] == after


@pytest.mark.parametrize("seed", mostly_slow(range(6), {1}))
def test_a_set_of_real_users_holds_nothing_of_simulated_ones(store, derived, seed):
    made, others = world(seed), world(seed + 6)

    def another(item, *names):
        return item.model_copy(update={name: f"s-{getattr(item, name)}" for name in names})

    with store.simulating():
        fill(
            store,
            [another(item, "id") for item in others.interactions],
            [another(item, "id", "interaction_id") for item in others.feedback],
        )
    fill(store, made.interactions, made.feedback)
    advanced(store, derived)
    of = store.origins().in_sql("position", simulated=None)
    for kind in KINDS:
        assert from_history(store, derived, made, kind, of) == GOLDEN[str(seed)][kind]


class KilledError(Exception):
    """Stands for the end of a process."""


def die_after(files):
    def progress(made, _):
        if made >= files:
            raise KilledError

    return progress


@pytest.mark.slow
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(100, 10**6),
    nights=st.integers(1, 5),
    forgotten=st.integers(0, 3),
    killed_after=st.integers(0, 4),
    kind=st.sampled_from(KINDS),
)
def test_many_nights_give_what_one_reading_of_everything_gives(
    seed, nights, forgotten, killed_after, kind
):
    rng, made = np.random.default_rng(seed), world(seed, size=120)
    arrives = rng.integers(0, nights, len(made.interactions))
    given_on = rng.integers(0, nights, len(made.feedback))  # before its interaction, or after
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        store = EventStore.open(f"sqlite:///{home / 'store.db'}")
        derived = Derived.open(History.open(home / "history"))
        for night in range(nights):
            fill(
                store,
                [item for item, on in zip(made.interactions, arrives, strict=True) if on == night],
                [item for item, on in zip(made.feedback, given_on, strict=True) if on == night],
            )
            if night < forgotten:
                forget(
                    store, home, made.interactions[night].user_id, now=NOW + timedelta(days=night),
                    text_key=str, history=derived.history,
                )  # fmt: skip
            derived.history.advance(store)
            with suppress(KilledError):
                derived.advance(die_after(killed_after) if killed_after else None)
            if rng.random() < 0.5:
                derived.advance()
        derived.advance()
        found = from_history(store, derived, made, kind)
        fresh = Derived.open(History.open(home / "fresh"))
        advanced(store, fresh)
        assert found == from_history(store, fresh, made, kind)
        assert found == curated(store, made, kind)
        store.close()


def test_only_new_files_are_derived_and_what_a_user_wrote_is_gone_when_it_is_forgotten(
    store, derived, tmp_path
):
    made = world(1)
    early = [item for item in made.interactions if item.created_at < START + timedelta(days=6)]
    late = [item for item in made.interactions if item not in early]
    fill(store, early, ())
    first = advanced(store, derived)
    assert first == len(derived.history.readable())
    assert derived.advance() == 0
    fill(store, late, ())
    second = advanced(store, derived)
    assert 0 < second < len(derived.history.readable())
    user = late[0].user_id
    mine = {item.created_at.date() for item in made.interactions if item.user_id == user}
    forget(store, tmp_path, user, now=NOW, text_key=str, history=derived.history)
    left = derived.history.place.derived()
    assert not [path for path in left for day in mine if f"day={day}" in path]
    assert derived.advance() == len(mine)


@pytest.mark.mostly_slow("dpo")
@pytest.mark.parametrize("kind", KINDS)
def test_what_another_process_wrote_or_erased_since_is_derived_when_it_is_read(
    store, derived, tmp_path, kind
):
    made = world(5)
    fill(store, made.interactions[::2], made.feedback[::2])
    advanced(store, derived)
    fill(store, made.interactions, made.feedback)
    other = History.open(tmp_path / "history")
    other.advance(store)
    user = made.interactions[0].user_id
    forget(store, tmp_path, user, now=NOW, text_key=str, history=other)
    assert from_history(store, derived, made, kind) == curated(store, made, kind)


@pytest.mark.mostly_slow("6-kto")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [6, 7, 8])
def test_an_interaction_that_left_the_store_and_was_sent_again_counts_once(
    store, derived, seed, kind
):
    made = world(seed)
    fill(store, made.interactions, made.feedback)
    advanced(store, derived)
    expired = Expired(NOW, last_position(store), frozenset())
    gone, _ = delete_expired(store, expired, rest=lambda seconds: None)
    assert gone > len(made.interactions) / 2
    fill(store, made.interactions, made.feedback)
    advanced(store, derived)
    interactions = sum(day.rows for day in derived.history.days() if day.table == "interactions")
    assert interactions == len(made.interactions) + gone
    assert from_history(store, derived, made, kind) == curated(store, made, kind)


@pytest.mark.slow
def test_history_on_object_storage_gives_the_same_sets_night_after_night(store, tmp_path):
    made = world(9)
    half = len(made.interactions) // 2
    with s3_server():
        derived = Derived.open(History.open(f"s3://{BUCKET}/{tmp_path.name}/history"))
        fill(store, made.interactions[:half], made.feedback[:half])
        assert advanced(store, derived) > 0
        fill(store, made.interactions, made.feedback)
        assert advanced(store, derived) > 0
        user = made.interactions[0].user_id
        forget(store, tmp_path, user, now=NOW, text_key=str, history=derived.history)
        assert derived.advance() > 0
        assert derived.advance() == 0
        for kind in KINDS:
            assert from_history(store, derived, made, kind) == curated(store, made, kind)


def trained_on(store, derived, made, *words):
    """Return which of some interactions are trained on, each of one user and with these words."""
    items = [
        item.model_copy(
            update={
                "user_id": "ana" if word != "another" else "ben", "error": None,
                "session_id": f"s{place}", "metadata": {} if word in ("", "another") else
                {"training_consent": word}, "created_at": START + timedelta(days=place),
            }
        )
        for place, (item, word) in enumerate(zip(made.interactions, words, strict=False))
    ]  # fmt: skip
    fill(
        store, items,
        [Thumbs(id=f"t{n}", interaction_id=item.id, created_at=START, value="up")
         for n, item in enumerate(items)],
    )  # fmt: skip
    advanced(store, derived)
    traffic = stored_traffic(
        derived, "kto", end=START + timedelta(days=4), judges=(), consent="unless refused",
        context=Context(),
    )  # fmt: skip
    return (~traffic.refused).tolist()


@pytest.mark.mostly_slow("words0", "words3")
@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (("yes", "", "another", ""), [True, True, True, True]),
        (("yes", "", "another", "no"), [False, False, True, False]),
        (("no", "", "another", ""), [False, False, True, False]),
        (("no", "yes", "another", ""), [False, True, True, True]),
        # said after the end of what is trained on
        (("yes", "", "another", "", "no"), [False, False, True, False]),
        (("no", "", "another", "", "true"), [False, True, True, True]),
    ],
)
def test_a_users_latest_word_decides_where_it_is_a_refusal(store, derived, words, allowed):
    assert trained_on(store, derived, world(11), *words) == allowed


def test_two_that_derive_at_once_take_turns(store, derived, tmp_path):
    made = world(10)
    fill(store, made.interactions, made.feedback)
    derived.history.advance(store)
    another = Derived.open(History.open(tmp_path / "history", wait=timedelta(0)))
    refused = []

    def try_now(made, files):
        if made < files:
            with pytest.raises(BusyError):
                another.advance()
            refused.append(made)

    assert derived.advance(try_now) == len(refused) + 1
    assert another.advance() == 0


def test_what_another_version_derived_is_deleted(store, derived, tmp_path):
    made = world(2)
    fill(store, made.interactions, made.feedback)
    advanced(store, derived)
    old = tmp_path / "history" / "derived-0" / "interactions" / "day=2026-03-01" / "a-b-c.parquet"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"")
    assert derived.advance() == 0
    assert not old.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_history_without_rows_has_nothing_to_train_on(derived, kind):
    background = background_of(derived, replace(world(3), context=Context()), kind)
    assert (background.traffic.size, len(background.traffic)) == (0, 0)
    with pytest.raises(InsufficientDataError, match=r"got 0 \(interactions: 0"):
        choose_among(kind, background)


def test_numbers_of_texts_are_what_they_were():
    # raise `traits.VERSION` where one becomes another: files that are there hold the old ones
    prompts, answers = (
        ["Where IS my card?", "?!", "Stra\u00dfe \u00e9"],
        ["Cards.", " ", "\U0001f642 a"],
    )
    found = interaction_traits(prompts, answers, ["s", "s", "t"])
    assert found.pop("tools").tolist() == [0, 0, 0]
    assert digest({name: values.tolist() for name, values in found.items()}) == (
        "4bdf08c1d46071706abae05c872a35eb3c57a8cd917d6684c58ad623839c2f1f"
    )


def arrays_of(traffic):
    """Return the bytes of the arrays of a traffic."""
    values = [getattr(traffic, item.name) for item in fields(traffic)]
    pooled = [getattr(traffic.pooled, item.name) for item in fields(traffic.pooled)]
    return sum(value.nbytes for value in [*values, *pooled] if isinstance(value, np.ndarray))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_memory_follows_the_compact_arrays(tmp_path, monkeypatch, kind):
    monkeypatch.setattr("ratchet.improve.curation.traffic.BATCH", 500)
    monkeypatch.setattr("ratchet.improve.curation.stored.BATCH", 500)
    monkeypatch.setattr("ratchet.improve.curation.duplicates.IN_MEMORY", 1)
    peaks, sizes, rows = [], [], []
    for days in (2, 10):
        derived = Derived.open(History.open(tmp_path / str(days)))
        curation_history.write_days(tmp_path / str(days), days, 2_000)
        derived.advance()
        made = replace(world(4, size=60), context=Context(), config=CurationConfig())
        end = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(
            microseconds=curation_history.START + days * curation_history.DAY
        )
        tracemalloc.start()
        background = background_of(derived, replace(made, end=end, compare=False), kind)
        choose_among(kind, background)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        sizes.append(arrays_of(background.traffic))
        rows.append(len(background.traffic))
    assert rows[1] > 4 * rows[0]
    assert (sizes[1] - sizes[0]) / (rows[1] - rows[0]) < 220  # bytes a row, with its evidence
    # besides the arrays: their parts before they are joined, or numbers of a step, or signatures
    grown = (peaks[1] - peaks[0]) / (rows[1] - rows[0])
    assert grown < 3 * (sizes[1] - sizes[0]) / (rows[1] - rows[0])
