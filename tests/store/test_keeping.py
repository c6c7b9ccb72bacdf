"""What may be kept for a time only is erased when it is over, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from ratchet.operate.pruning import Line, Pruning
from ratchet.operate.retention import RetentionConfig
from ratchet.records import (
    Candidate,
    Comment,
    Correction,
    Cycle,
    CycleEnd,
    Interaction,
    Message,
    ReviewItem,
    SetAside,
    Thumbs,
    TrainingSet,
)
from ratchet.settings import Settings, load_settings
from ratchet.store import EventStore
from ratchet.store.arrivals import last_position
from ratchet.store.erasure import FORGOTTEN
from ratchet.store.history import History
from ratchet.store.history.refusals import not_for_good
from ratchet.store.keeping import past_keeping
from ratchet.store.retention import Expired, delete_expired
from ratchet.store.tables import EMBEDDINGS
from ratchet.store.vectors import text_key
from ratchet.tracking import Tracker

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SECRET = "my cat Ramses ate the card of account 7"
OVER = {"retain_until": (NOW - DAY).isoformat()}


@pytest.fixture
def settings(tmp_path: Path, store_url: str) -> Settings:
    environ = {"RATCHET_HOME": str(tmp_path / "home"), "RATCHET_STORE_URL": store_url}
    return load_settings(environ, tmp_path)


@pytest.fixture
def store(open_store: Callable[[], EventStore]) -> EventStore:
    return open_store()


def add(store: EventStore, key: str, metadata: dict[str, str], **values: Any) -> None:
    given = {
        "id": key, "session_id": f"s-{key}", "user_id": f"u-{key}", "created_at": NOW - 9 * DAY,
        "model_version": "m/1", "response": "billing", "metadata": metadata,
        "messages": (Message(role="user", content=values.pop("prompt", f"the question {key}")),),
    }  # fmt: skip
    store.add_interactions([Interaction.model_validate(given | values)])


def prune(store: EventStore, settings: Settings, **options: Any) -> Line:
    now = options.pop("now", NOW)
    pruning = Pruning(store, settings, RetentionConfig(), now=now, **options)
    return {line.what: line for line in pruning.run()}["interactions past their time"]


def everything(store: EventStore) -> str:
    """All that the database holds, as text."""
    found = []
    with store.reading() as connection:
        tables = sa.inspect(connection).get_table_names()
        for table in tables:
            rows = connection.execute(sa.text(f'SELECT * FROM "{table}"')).fetchall()
            found += [repr(tuple(row)) for row in rows]
    return "\n".join(found)


def texts_of(history: History) -> str:
    with history.connect() as connection:
        rows = [
            connection.sql(f"SELECT * FROM {t}").fetchall() for t in ("interactions", "feedback")
        ]
    return repr(rows)


@pytest.mark.mostly_slow("sqlite")
@pytest.mark.parametrize(
    ("said", "over"),
    [
        ("2026-06-01T12:00:00+00:00", True),
        ("2026-06-01T12:00:01Z", False),
        ("2026-06-02T02:00:00+14:00", True),  # noon in UTC, and a day later as it is written
        ("2026-06-02T02:00:01+14:00", False),
        ("20260601T115959Z", True),
        ("2026-W22-1T12:00:00Z", True),  # Monday, 25 May
        ("2026-W23-1T13:00:00Z", False),  # Monday, 1 June
        (" 2026-01-01T00:00:00Z ", True),
        ("2026-05-01", False),  # without its zone it is no time: not trained on, and kept
        ("soon", False),
    ],
)
def test_the_time_is_read_in_any_form_and_zone_in_the_store_and_in_history(
    store: EventStore, tmp_path: Path, said: str, over: bool
) -> None:
    add(store, "a", {"retain_until": said, "x": 'a "retain_until": "2000-01-01" within'})
    add(store, "b", {"y": '"retain_until": "2000-01-01T00:00:00Z"'})
    add(store, "c", {})
    history = History.open(tmp_path / "history")
    history.advance(store)
    expected = {"a": (NOW - 9 * DAY).date()} if over else {}
    assert store.past_keeping(NOW) == expected
    assert history.past_keeping(NOW) == expected


@pytest.mark.mostly_slow("sqlite")
def test_texts_go_from_the_store_and_history_and_numbers_stay(
    store: EventStore, settings: Settings, tracker: Tracker
) -> None:
    add(store, "a", OVER, prompt=SECRET, error="Ramses failed")
    add(store, "b", {"retain_until": (NOW + DAY).isoformat()}, prompt="where is my parcel, please")
    store.add_feedback(
        [
            Comment(id="f1", interaction_id="a", created_at=NOW, value="Ramses again"),
            Correction(id="f2", interaction_id="a", created_at=NOW, value="cards of Ramses"),
            Thumbs(id="f3", interaction_id="a", created_at=NOW, value="up", user_id="u-other"),
            Comment(id="f4", interaction_id="b", created_at=NOW, value="thank you"),
        ]
    )
    store.add_vectors("encoder", {text_key(SECRET): np.ones(2), text_key("other"): np.ones(2)})
    store.append(
        ReviewItem(
            id="r", created_at=NOW, dimension="safety", interaction_id="a", raised_by="rules@1",
            why=f"it says {SECRET}", priority="normal",
        )
    )  # fmt: skip
    store.set_aside(
        [
            SetAside(
                id="x", created_at=NOW, source="s", position="1", reason="other content",
                raw=json.dumps({"interaction_id": "a", "response": "Ramses!"}),
            )
        ]
    )  # fmt: skip
    history = History.open(settings.history)
    history.advance(store)
    assert "Ramses" in everything(store)
    options: dict[str, Any] = {"history": history, "tracker": tracker}
    preview = prune(store, settings, preview=True, **options)
    assert (preview.rows, preview.gone) == (1, None)
    assert "Ramses" in everything(store)

    assert prune(store, settings, **options).gone == 1
    assert [row for row in everything(store).split("\n") if "Ramses" in row] == []
    assert "Ramses" not in texts_of(history)
    kept = store.stored_interactions(["a", "b"])
    assert (kept["a"].user_id, kept["a"].created_at) == (FORGOTTEN, NOW - 9 * DAY)
    assert kept["a"].metadata == {"training_consent": "no"}
    assert kept["b"].prompt == "where is my parcel, please"
    assert store.stored_feedback(["f3"])["f3"].value == "up"
    assert store.stored_feedback(["f4"])["f4"].value == "thank you"
    assert "thank you" in texts_of(history)
    with store.reading() as connection:
        keys = list(connection.execute(sa.select(EMBEDDINGS.c.key)).scalars())
    assert keys == [text_key("other")]
    again = prune(store, settings, **options)
    assert (again.rows, again.gone) == (0, 0)
    add(store, "a", OVER, prompt=SECRET, error="Ramses failed")  # a resend stays a repetition
    assert "Ramses" not in everything(store)
    history.advance(store)
    assert history.fetch_interactions(["a"])["a"].prompt == "[erased]"


@pytest.mark.mostly_slow("sqlite")
def test_what_only_history_has_is_erased_there(
    store: EventStore, settings: Settings, tracker: Tracker
) -> None:
    add(store, "a", {"retain_until": (NOW + 5 * DAY).isoformat()}, prompt=SECRET)
    add(store, "z", {})
    history = History.open(settings.history)
    history.advance(store)
    expired = Expired(NOW, last_position(store), frozenset())
    assert delete_expired(store, expired, rest=lambda seconds: None)[0] == 1
    store.append(
        ReviewItem(
            id="r", created_at=NOW, dimension="safety", interaction_id="a", raised_by="rules@1",
            why=f"it says {SECRET}", priority="normal",
        )
    )  # fmt: skip
    assert prune(store, settings, history=history, tracker=tracker).gone == 0
    later = prune(store, settings, history=history, tracker=tracker, now=NOW + 6 * DAY)
    assert later.gone == 1
    assert "Ramses" not in everything(store) + texts_of(history)


def test_a_common_answer_stays_where_records_quote_it(
    store: EventStore, settings: Settings
) -> None:
    queue = "orders and delivery"
    add(store, "a", OVER, response=queue)
    add(store, "b", {}, response=queue)
    store.append(
        ReviewItem(
            id="r", created_at=NOW, dimension="safety", interaction_id="b", raised_by="rules@1",
            why=f"answered {queue}", priority="normal",
        )
    )  # fmt: skip
    assert prune(store, settings).gone == 1
    assert f"answered {queue}" in everything(store)
    assert store.stored_interactions(["b"])["b"].response == queue


def training_set(store: EventStore, settings: Settings, number: int, rows: list[str]) -> Path:
    folder = settings.home / "datasets" / f"set{number}"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"interaction_id": rows}), folder / "train.parquet")
    store.append(
        Cycle(
            id=f"c{number}", number=number, created_at=NOW, champion="m/1", options_digest="o",
            seed=0, window_start=NOW - DAY, window_end=NOW, example_set_id="e",
        )
    )  # fmt: skip
    store.append(
        TrainingSet(
            id=f"s{number}", cycle_id=f"c{number}", created_at=NOW, digest="d",
            path=f"datasets/set{number}", size=len(rows), funnel=(),
        )
    )  # fmt: skip
    return folder


@pytest.mark.mostly_slow("sqlite")
def test_training_sets_go_with_their_copies_once_their_cycle_has_ended(
    store: EventStore, settings: Settings, tracker: Tracker
) -> None:
    for key in "abc":
        add(store, key, OVER if key == "a" else {}, prompt=SECRET if key == "a" else key)
    without = training_set(store, settings, 1, ["b", "c"])
    folder = training_set(store, settings, 2, ["a", "b"])
    with tracker.run("x", key="k", name="improve", tags={}) as run:
        run.text("rows", "training_set/train.txt")
        run_id = run.run_id
    store.append(
        Candidate(
            id="k", cycle_id="c2", created_at=NOW, model_name="m", version="2", adapter_digest="d",
            path="p", training_set_id="s2", run_id=run_id, losses=(), training_seconds=1.0,
        )
    )  # fmt: skip
    copies = settings.home.parent / "artifacts"
    assert list(copies.rglob("train.txt"))
    assert prune(store, settings, tracker=tracker).gone == 0  # its cycle still trains on it
    store.append(CycleEnd(id="c2", created_at=NOW, outcome="finished"))
    assert prune(store, settings).gone == 0  # without MLflow its copy could not be deleted
    assert folder.exists()
    assert prune(store, settings, tracker=tracker).gone == 1
    assert not folder.exists()
    assert without.exists()
    assert not list(copies.rglob("train.txt"))
    assert "Ramses" not in everything(store)


@pytest.mark.mostly_slow("sqlite")
def test_an_erasure_that_was_stopped_goes_on_in_history(
    store: EventStore, settings: Settings, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Away(History):
        def erase_interactions(self, ids: Any) -> Any:
            raise OSError(5, "cannot be reached")

    add(store, "a", OVER, prompt=SECRET)
    away = Away.open(settings.history)
    away.advance(store)
    line = prune(store, settings, history=away, tracker=tracker)
    assert "cannot be reached" in (line.failed or "")
    assert "Ramses" in texts_of(away)
    history = History.open(settings.history)
    assert past_keeping(store, settings.home, history, NOW, sets_too=True).in_history == {"a"}
    assert prune(store, settings, history=history, tracker=tracker).gone == 1
    assert "Ramses" not in everything(store) + texts_of(history)


def test_what_must_not_stay_for_good_is_what_is_refused_then_or_later_or_kept_for_a_time(
    store: EventStore, tmp_path: Path
) -> None:
    users = {
        "silent": [{}], "agrees": [{"training_consent": "yes"}],
        "refuses": [{"training_consent": "no"}], "limited": [{"retain_until": "2030-01-01"}],
        "later": [{"training_consent": "yes"}, {}, {"training_consent": "no"}],
        "back": [{"training_consent": "no"}, {}, {"training_consent": "true"}],
    }  # fmt: skip
    ids = []
    for user, words in users.items():
        for number, metadata in enumerate(words):
            ids.append(f"{user}{number}")
            add(store, ids[-1], metadata, user_id=user, created_at=NOW + number * DAY)
    without = {"refuses0", "limited0", "later0", "later1", "later2", "back0"}
    history = History.open(tmp_path / "history")
    assert not_for_good(store, history, [*ids, "unknown"]) == without
    assert not_for_good(store, history, []) == set()


def test_a_refusal_that_the_store_let_go_holds_until_the_user_agrees_again(
    store: EventStore, tmp_path: Path
) -> None:
    history = History.open(tmp_path / "history")
    for number, user in enumerate(("refused", "back")):
        old = NOW - 200 * DAY + number * DAY
        add(store, f"{user}0", {"training_consent": "no"}, user_id=user, created_at=old)
        add(store, f"{user}1", {}, user_id=user, created_at=NOW)
    add(store, "back2", {"training_consent": "yes"}, user_id="back", created_at=NOW + DAY)
    history.advance(store)
    expired = Expired(NOW - 100 * DAY, last_position(store), frozenset())
    assert delete_expired(store, expired, rest=lambda seconds: None)[0] == 2
    assert not store.stored_interactions(["refused0", "back0"])
    assert not_for_good(store, history, ["refused1", "back1", "back2"]) == {"refused1"}
