"""A window read in batches is the window read at once; texts are read for those asked for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.analyze.window import read_outcomes, with_texts
from ratchet.outcomes.join import Outcomes, join_feedback
from ratchet.outcomes.quality import QualityWeights, quality
from ratchet.records import FEEDBACK, Interaction, Message
from ratchet.store import EventStore, Window

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
WINDOW = Window(START, START + timedelta(hours=1))
TEXTS = ("prompts", "responses", "corrections", "comments")
VALUES: dict[str, tuple[Any, ...]] = {
    "thumbs": ("up", "down"),
    "stars": (1, 5),
    "copy": (True, False),
    "regenerate": (True, False),
    "session_end": (3.0, 40.0),
    "correction": ("rightly so", "billing"),
    "comment": ("slow", "thank you"),
    "judge_score": (0.2, 0.9),
    "safety_violation": (True, False),
}


def interaction(number: int, second: int) -> Interaction:
    return Interaction(
        id=f"i-{(number * 7) % 40:02}",  # not in the order of time
        session_id=f"s-{number % 5}",
        user_id=f"u-{number % 3}",
        created_at=START + timedelta(seconds=second),
        model_version=f"m/{number % 2}",
        segment=("web", "app")[number % 2],
        messages=(Message(role="user", content=f"message {number}"),),
        response="" if number % 6 == 0 else f"answer {number}",
        error="timeout" if number % 6 == 0 else None,
        latency_seconds=None if number % 4 == 0 else number / 10,
    )


def event(place: int, about: int, kind: str, which: int, second: int) -> Any:
    body = {
        "id": f"f-{place}",
        "interaction_id": f"i-{about:02}",
        "created_at": START + timedelta(seconds=second),
        "kind": kind,
        "value": VALUES[kind][which],
    }
    if kind == "judge_score":
        body["judge_version"] = ("usable", "other")[place % 2]
    return FEEDBACK.validate_python(body)


def at_once(store: EventStore, window: Window) -> Outcomes:
    return join_feedback(store.interactions(window), store.feedback(window), judges=["usable"])


def same(one: Outcomes, other: Outcomes, *, texts: bool) -> None:
    for item in fields(Outcomes):
        if texts or item.name not in TEXTS:
            np.testing.assert_array_equal(
                getattr(one, item.name), getattr(other, item.name), err_msg=item.name
            )


_times = st.lists(st.integers(0, 9), min_size=1, max_size=40)
_events = st.lists(
    st.tuples(
        st.integers(0, 39), st.sampled_from(sorted(VALUES)), st.integers(0, 1), st.integers(0, 9)
    ),
    max_size=60,
)


@given(times=_times, events=_events, size=st.sampled_from([1, 3, 16, 1_000]))
def test_batches_of_any_size_join_as_the_whole_window_does(
    times: list[int],
    events: list[tuple[int, str, int, int]],
    size: int,
    tmp_path_factory: pytest.TempPathFactory,
    made_store: Path,
) -> None:
    path = tmp_path_factory.mktemp("window") / "store.db"
    shutil.copyfile(made_store, path)
    store = EventStore.open(f"sqlite:///{path}")
    store.add_interactions([interaction(*place) for place in enumerate(times)])
    store.add_feedback([event(place, *rest) for place, rest in enumerate(events)])
    whole = at_once(store, WINDOW)
    read = read_outcomes(store, WINDOW, judges=["usable"], size=size)
    same(read, whole, texts=False)
    assert all(text is None for name in TEXTS[:2] for text in getattr(read, name))
    for name in TEXTS[2:]:  # that there is one, not what it says
        assert [text is None for text in getattr(read, name)] == [
            text is None for text in getattr(whole, name)
        ]
        assert set(getattr(read, name)) <= {None, ""}
    weights = QualityWeights(judge=0.3)
    np.testing.assert_array_equal(quality(read, weights).value, quality(whole, weights).value)
    same(with_texts(store, read), whole, texts=True)
    some = np.arange(len(whole))[::2]
    same(with_texts(store, read.take(some)), whole.take(some), texts=True)
    store.close()


def test_a_window_of_one_version_and_of_what_had_arrived_is_read_as_such(
    open_store: Callable[[], EventStore],
) -> None:
    store = open_store()
    store.add_interactions([interaction(n, n % 4) for n in range(30)])
    store.add_feedback([event(n, n, "correction", 0, n) for n in range(40)])
    edited = {"id": "f-8", "interaction_id": "i-08", "created_at": START, "kind": "correction"}
    later = START + timedelta(hours=2)
    store.add_feedback([FEEDBACK.validate_python(edited | {"value": "anew", "updated_at": later})])
    half = Window(START, START + timedelta(seconds=3), "m/1", 20, (START, 4))
    for window in (half, replace(half, model_version=None), WINDOW):
        whole = at_once(store, window)
        assert len(whole) >= 5
        same(with_texts(store, read_outcomes(store, window, size=4)), whole, texts=True)
    assert "anew" in with_texts(store, read_outcomes(store, WINDOW)).corrections
    empty = read_outcomes(store, Window(START - timedelta(days=1), START))
    assert (len(empty), len(with_texts(store, empty))) == (0, 0)
