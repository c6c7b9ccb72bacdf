"""What goes of a home and what stays, by the rules of retention, with a real history and MLflow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from ratchet.errors import BusyError
from ratchet.operate.pruning import Line, Pruning, advance_history
from ratchet.operate.report import as_json, as_markdown, as_text, size_in_words
from ratchet.operate.retention import RetentionConfig
from ratchet.records import Candidate, Cycle, Interaction, Message, Release, Thumbs, TrainingSet
from ratchet.settings import Settings, load_settings
from ratchet.store import EventStore
from ratchet.store.history import History
from ratchet.store.leases import PRUNING, hold
from ratchet.tracking import Tracker

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


@pytest.fixture
def settings(tmp_path: Path, store_url: str) -> Settings:
    """Those of an empty home, with a store on either database."""
    environ = {"RATCHET_HOME": str(tmp_path / "home"), "RATCHET_STORE_URL": store_url}
    return load_settings(environ, tmp_path)


@pytest.fixture
def store(open_store: Callable[[], EventStore]) -> EventStore:
    return open_store()


def add(store: EventStore, ages: dict[str, int]) -> None:
    store.add_interactions(
        [
            Interaction(
                id=key, session_id=key, user_id="u", created_at=NOW - days * DAY,
                model_version="m/1", response="delivery",
                messages=(Message(role="user", content="where is my parcel"),),
            )
            for key, days in ages.items()
        ]
    )  # fmt: skip
    store.add_feedback(
        [
            Thumbs(id=f"t{key}", interaction_id=key, created_at=NOW - days * DAY, value="up")
            for key, days in ages.items()
        ]
    )


def prune(store: EventStore, settings: Settings, **options: Any) -> dict[str, Line]:
    config = options.pop("config", RetentionConfig())
    pruning = Pruning(store, settings, config, now=NOW, **options)
    return {line.what: line for line in pruning.run()}


@pytest.mark.mostly_slow("postgresql")
def test_interactions_leave_the_store_once_history_has_them(
    store: EventStore, settings: Settings
) -> None:
    add(store, {"a": 200, "b": 100, "c": 10, "d": 0})
    history = History.open(settings.history)
    assert "interactions" not in prune(store, settings)  # no history: everything stays
    preview = prune(store, settings, history=history, preview=True)
    assert (preview["interactions"].rows, preview["interactions"].gone) == (2, None)
    assert preview["feedback about them"].rows == 2
    assert "interactions" not in prune(store, settings, history=history)  # nothing written yet
    assert store.counts()["interactions"] == 4

    advance_history(history, store)
    done = prune(store, settings, history=history)
    assert (done["interactions"].gone, done["feedback about them"].gone) == (2, 2)
    assert set(store.stored_interactions(list("abcd"))) == {"c", "d"}
    assert set(history.fetch_interactions(list("abcd"))) == set("abcd")
    again = prune(store, settings, history=history)
    assert (again["interactions"].rows, again["interactions"].gone) == (0, 0)
    add(store, {"e": 0})
    advance_history(history, store)  # positions went on: history takes the store for the same
    assert set(history.fetch_interactions(["e"])) == {"e"}


def test_one_process_at_a_time_prunes_a_store_and_anybody_may_look(
    open_store: Callable[[], EventStore], settings: Settings
) -> None:
    store, other = open_store(), open_store()
    with hold(other, PRUNING):
        with pytest.raises(BusyError, match=r"one pruning at a time.*got another \(process"):
            prune(store, settings)
        assert prune(store, settings, preview=True)
    assert prune(store, settings)


def test_the_window_of_the_latest_cycle_stays(store: EventStore, settings: Settings) -> None:
    add(store, {"a": 300, "b": 150, "c": 95, "d": 0})
    store.append(
        Cycle(
            id="c", number=1, created_at=NOW - 100 * DAY, champion="m/1", options_digest="o",
            seed=0, window_start=NOW - 160 * DAY, window_end=NOW - 100 * DAY, example_set_id="e",
        )
    )  # fmt: skip
    history = History.open(settings.history)
    advance_history(history, store)
    assert prune(store, settings, history=history)["interactions"].gone == 1
    assert set(store.stored_interactions(list("abcd"))) == {"b", "c", "d"}


def test_what_a_version_in_use_was_trained_on_stays(store: EventStore, settings: Settings) -> None:
    add(store, dict.fromkeys("abcd", 200) | {"z": 0})
    for number, rows in (("1", ["a"]), ("2", ["b", "c"]), ("3", ["d"])):
        folder = settings.home / "datasets" / f"set{number}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"interaction_id": rows}), folder / "train.parquet")
        store.append(
            TrainingSet(
                id=f"s{number}", cycle_id="c", created_at=NOW, digest="d",
                path=f"datasets/set{number}", size=len(rows), funnel=(),
            )
        )  # fmt: skip
        store.append(
            Candidate(
                id=f"k{number}", cycle_id="c", created_at=NOW, model_name="m", version=number,
                adapter_digest="d", path="p", training_set_id=f"s{number}", run_id="r", losses=(),
                training_seconds=1.0,
            )
        )  # fmt: skip
    store.append(
        Release(
            id="r", created_at=NOW, decision_id=None, action="promote", champion="m/2",
            previous=None, by="ana",
        )
    )  # fmt: skip
    history = History.open(settings.history)
    advance_history(history, store)
    # the champion is m/2, the latest candidate m/3: nothing refers to m/1 any more
    assert prune(store, settings, history=history)["interactions"].gone == 1
    assert set(store.stored_interactions(list("abcd"))) == {"b", "c", "d"}


def test_a_history_that_cannot_be_written_leaves_the_store_alone(
    store: EventStore, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    class Busy(History):
        def advance(self, store: EventStore, **_options: Any) -> Any:
            raise BusyError("another writer is at work")

    add(store, {"a": 200, "d": 0})
    history = Busy.open(settings.history)
    advance_history(history, store)
    assert "what it lacks stays" in caplog.text
    assert "interactions" not in prune(store, settings, history=history)
    assert store.counts()["interactions"] == 2


@pytest.mark.mostly_slow("sqlite")
def test_a_history_of_another_store_lets_nothing_go(
    store: EventStore, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    earlier = datetime(2026, 1, 1, tzinfo=UTC)
    other = EventStore.open(f"sqlite:///{tmp_path}/other.db", clock=lambda: earlier)
    add(other, {f"o{number}": 200 for number in range(9)})
    history = History.open(settings.history)
    advance_history(history, other)
    add(store, {"a": 200, "b": 150, "d": 0})
    advance_history(history, store)
    for preview in (False, True):
        lines = prune(store, settings, history=history, preview=preview)
        assert "interactions" not in lines
        assert "states of boards" in lines
    assert "belongs to one store" in caplog.text
    assert store.counts()["interactions"] == 3


def test_a_history_that_cannot_be_reached_leaves_the_other_rules_alone(
    store: EventStore, settings: Settings
) -> None:
    class Away(History):
        def cursor(self) -> Any:
            raise OSError(5, "cannot be reached")

        def days(self) -> Any:
            raise OSError(5, "cannot be reached")

    add(store, {"a": 200, "d": 0})
    config = RetentionConfig(history_days=500)
    lines = prune(store, settings, history=Away.open(settings.history), config=config)
    assert "interactions" not in lines
    assert "cannot be reached" in (lines["days of history"].failed or "")
    assert lines["states of boards"].gone == 0
    assert store.counts()["interactions"] == 2


@pytest.mark.mostly_slow("sqlite")
def test_history_goes_by_its_own_rule(store: EventStore, settings: Settings) -> None:
    add(store, {"a": 800, "b": 400, "d": 0})
    history = History.open(settings.history)
    advance_history(history, store)
    config = RetentionConfig(history_days=500)
    line = prune(store, settings, history=history, config=config)["days of history"]
    assert (line.rows, line.gone) == (1, 1)  # its feedback was received today
    assert line.bytes > 0
    assert set(history.fetch_interactions(["a", "b", "d"])) == {"b", "d"}


@pytest.mark.mostly_slow("sqlite")
def test_runs_that_only_show_go_from_mlflow_with_their_pictures(
    store: EventStore, settings: Settings, tracker: Tracker
) -> None:
    for stage in ("watch", "deploy", "improve", "analyze"):
        with tracker.run("x", key=stage, name=stage, tags={"ratchet.stage": stage}) as run:
            run.text("picture " * 100, "plots/board.svg")
            run.metrics({"log_evidence": 1.0})
    client = MlflowClient(tracker._client.tracking_uri)
    (experiment,) = [item for item in client.search_experiments() if item.name == "x"]
    runs = {run.info.run_name: run.info for run in client.search_runs([experiment.experiment_id])}
    tracker._ensure_model()
    client.create_model_version("support-router", "x", run_id=runs["analyze"].run_id)

    early = prune(store, settings, tracker=tracker)["MLflow runs"]
    assert (early.rows, early.gone) == (0, 0)
    later = Pruning(store, settings, RetentionConfig(), now=NOW + 181 * DAY, tracker=tracker)
    preview = {line.what: line for line in replace(later, preview=True).run()}["MLflow runs"]
    assert (preview.rows, preview.gone, preview.bytes) == (1, None, 800)
    place = Path(str(runs["watch"].artifact_uri).removeprefix("file://"))
    assert any(place.rglob("board.svg"))
    assert {line.what: line for line in later.run()}["MLflow runs"].gone == 1
    assert not any(place.rglob("board.svg"))
    left = {
        run.info.run_name for run in client.search_runs([experiment.experiment_id], run_view_type=3)
    }
    assert left == {"deploy", "improve", "analyze"}  # the last one made a version


def test_a_rule_that_fails_is_told_and_the_others_go_on(
    store: EventStore, settings: Settings
) -> None:
    lines = prune(store, settings, prefect="http://127.0.0.1:9/api")
    assert lines["flow runs of passes"].failed
    assert lines["flow runs of passes"].gone is None
    assert lines["states of boards"].gone == 0


def test_a_table_shows_what_applies_and_what_failed() -> None:
    lines = [
        Line("interactions", "older than 90 days", 1_200, NOW, 2_500_000, 1_200),
        Line("verdicts of judges", "older than 180 days"),
        Line("MLflow runs", "ended", failed="no answer"),
    ]
    text = as_text(lines)
    assert f"interactions  1,200     {NOW:%Y-%m-%d}  2.5 MB  older than 90 days" in text
    assert "verdicts" not in text
    assert text.endswith("MLflow runs: no answer")
    assert f"| interactions | 1,200 | {NOW:%Y-%m-%d} | 2.5 MB |" in as_markdown(lines)
    assert as_text([lines[1]]) == "nothing is old enough to go"
    assert as_json(lines[0]) == {
        "what": "interactions", "rule": "older than 90 days", "rows": 1_200,
        "oldest": NOW.isoformat(), "bytes": 2_500_000, "gone": 1_200, "failed": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (2.5e9, "2.5 GB")]
)
def test_sizes_are_in_units_of_a_thousand(size: float, words: str) -> None:
    assert size_in_words(size) == words
