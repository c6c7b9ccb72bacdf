"""How absence is read: what is declared, what is learnt, and what it costs to learn it.

Expected numbers are those planted: so many answers, so many of them with a yes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from ratchet.outcomes.experience import experience_metrics
from ratchet.outcomes.join import Outcomes, join_feedback
from ratchet.outcomes.quality import QualityWeights, quality
from ratchet.records import Metric
from ratchet.records.reporting import DECLARABLE_KINDS
from ratchet.records.signals import FEEDBACK_SIGNALS
from ratchet.store import EventStore, heard
from ratchet.store.heard import FEWEST_YES, hear, questions, unknown_reasons
from tests.store.reported_store import (
    DAY,
    HOUR,
    MINUTE,
    START,
    answer,
    declare,
    event,
    numbers,
    presence,
    window,
)

LATER = START + DAY
LAG = 5 * MINUTE


@pytest.fixture
def store(store_url: str) -> Iterator[EventStore]:
    opened = EventStore.open(store_url, clock=lambda: LATER)
    yield opened
    opened.close()


def joined(store: EventStore) -> Outcomes:
    return join_feedback(store.interactions(window()), store.told_feedback(window()))


def rates(store: EventStore) -> dict[str, Metric]:
    outcomes = joined(store)
    unknown = unknown_reasons(store, now=LATER)
    metrics = experience_metrics(outcomes, quality(outcomes, QualityWeights()), unknown=unknown)
    return {metric.name: metric for metric in metrics}


def observed(store: EventStore, kind: str, **options: Any) -> list[float | None]:
    return numbers(store.signals(window(), lag=LAG, **options)[kind])


# The catalogue ------------------------------------------------------------------------------------


def test_the_catalogue_says_of_every_kind_what_absence_means() -> None:
    assert {signal.name: signal.absence for signal in FEEDBACK_SIGNALS} == {
        "thumbs": "unknown", "stars": "unknown", "dimension": "unknown",
        "comment": "no", "correction": "no",
        "copy": "declared", "regenerate": "declared", "task_completed": "declared",
        "session_end": "unknown", "safety_violation": "declared", "judge_score": "unknown",
        "asked_again": "traffic", "edited": "traffic", "continued": "traffic",
        "left": "unknown", "visit_seconds": "unknown", "next_turn": "unknown",
        "session_score": "unknown",
    }  # fmt: skip
    assert DECLARABLE_KINDS == ("copy", "regenerate", "task_completed", "safety_violation")


def test_a_kind_whose_absence_is_known_is_not_declared(store: EventStore) -> None:
    with pytest.raises(ValidationError, match="kind must be a yes or no"):
        declare(store, "thumbs")


# Learnt -------------------------------------------------------------------------------------------


def test_yes_alone_is_no_rate_and_the_application_is_asked(store: EventStore) -> None:
    presence(store, 900, {"regenerate": 41, "copy": 200})
    found = hear(store, now=LATER)
    assert [item.in_words.partition(", so")[0] for item in found] == [
        "application shop sends `copy` only when it happens: 200 yes, 0 no of 900 answers",
        "application shop sends `regenerate` only when it happens: 41 yes, 0 no of 900 answers",
    ]
    assert "ratchet signals declare copy --application shop --reported when-it-h" in (
        found[0].in_words
    )
    assert (hear(store, now=LATER), questions(store, now=LATER)) == ((), found)
    for kind in ("regenerate", "copy"):
        assert observed(store, kind) == [None] * 900
    rate = rates(store)["regenerate_rate"]
    assert (rate.value, rate.reason) == (None, found[1].in_words)


def test_a_few_yes_prove_nothing(store: EventStore) -> None:
    presence(store, 100, {"copy": FEWEST_YES - 1})
    assert hear(store, now=LATER) == ()
    assert rates(store)["copy_rate"].observations == FEWEST_YES - 1
    presence(store, 1, {"copy": 1}, start=START + 10 * HOUR)
    assert [item.yes for item in hear(store, now=LATER)] == [FEWEST_YES]


def test_one_no_shows_that_noes_are_sent(store: EventStore) -> None:
    rows = presence(store, 100, {"task_completed": 99})
    store.add_feedback([event(rows[-1], "task_completed", False)])
    assert hear(store, now=LATER) == ()
    assert rates(store)["completion_rate"].value == 0.99


def test_an_application_that_begins_to_send_noes_is_known_from_then_on(store: EventStore) -> None:
    presence(store, 100, {"copy": 40})
    assert len(hear(store, now=START + HOUR)) == 1
    presence(store, 50, {"copy": 10}, start=START + 2 * HOUR, noes=True)
    assert hear(store, now=LATER) == questions(store, now=LATER) == ()
    copy = rates(store)["copy_rate"]
    # the first no is on the eleventh of the later answers; what came before is presence alone
    assert (copy.observations, copy.value) == (40, 0.0)


def test_the_rates_of_another_application_are_not_spoiled(store: EventStore) -> None:
    presence(store, 300, {"copy": 150}, application="app")
    presence(store, 200, {"copy": 60}, application="page", noes=True)
    assert [item.application for item in hear(store, now=LATER)] == ["app"]
    copy = rates(store)["copy_rate"]
    assert (copy.observations, copy.value) == (200, 0.3)
    seen = [value for value in observed(store, "copy") if value is not None]
    assert (len(seen), sum(seen)) == (200, 60)


def test_the_application_is_what_metadata_names_else_the_segment(store: EventStore) -> None:
    presence(store, 30, {"copy": 30}, application="de", metadata={"application": "shop"})
    presence(store, 30, {"copy": 30}, application="fr", metadata={"application": ""})
    assert [item.application for item in hear(store, now=LATER)] == ["fr", "shop"]


# Declared -----------------------------------------------------------------------------------------


def test_declared_absence_is_a_no_in_every_reading(store: EventStore) -> None:
    presence(store, 900, {"regenerate": 41, "copy": 200})
    hear(store, now=LATER)
    declare(store, "regenerate", "copy")
    metrics = rates(store)
    assert metrics["regenerate_rate"].value == pytest.approx(41 / 900)
    assert metrics["copy_rate"].value == pytest.approx(200 / 900)
    assert observed(store, "regenerate") == [1.0] * 41 + [0.0] * 859
    assert questions(store, now=LATER) == ()


def test_answers_from_before_the_declaration_are_not_known(store: EventStore) -> None:
    presence(store, 100, {"copy": 50})
    hear(store, now=LATER)
    declare(store, "copy", since=START + 80 * timedelta(seconds=10))
    assert observed(store, "copy") == [None] * 80 + [0.0] * 20


def test_an_answer_that_failed_has_no_absence(store: EventStore) -> None:
    store.add_interactions([answer("a", error="timeout", response=""), answer("b")])
    declare(store, "copy")
    assert sorted(observed(store, "copy"), key=str) == [0.0, None]
    assert np.isnan(joined(store).copied).sum() == 1


def test_an_answer_younger_than_the_settling_time_is_not_observed_whatever_came(
    tmp_path: Any,
) -> None:
    now = START + HOUR
    store = EventStore.open(f"sqlite:///{tmp_path / 'store.db'}", clock=lambda: now)
    ages = {"old yes": 20, "old no": 20, "young yes": 5, "young no": 5}
    rows = {name: answer(name, now - age * MINUTE) for name, age in ages.items()}
    store.add_interactions(list(rows.values()))
    store.add_feedback([event(rows[name], "copy") for name in rows if "yes" in name])
    declare(store, "copy", after=10 * MINUTE)
    found = joined(store)
    by_name = dict(zip(found.interaction_ids, found.copied, strict=True))
    assert (by_name["old yes"], by_name["old no"]) == (1.0, 0.0)
    assert np.isnan([by_name["young yes"], by_name["young no"]]).all()
    store.close()


def test_where_feedback_counts_within_a_lag_absence_means_no_within_it(store: EventStore) -> None:
    soon, late = answer("soon"), answer("late", START + MINUTE)
    store.add_interactions([soon, late])
    store.add_feedback([event(soon, "copy"), event(late, "copy", after=20 * MINUTE)])
    declare(store, "copy", after=HOUR)
    assert observed(store, "copy") == [1.0, 0.0]  # five minutes; all answers at the same age
    assert joined(store).copied.tolist() == [1.0, 1.0]


def test_the_latest_declaration_counts_and_one_of_the_application_before_one_of_all(
    store: EventStore,
) -> None:
    store.add_interactions([answer(name, START, name) for name in ("mail", "page", "shop")])
    declare(store, "copy", application="shop", reported="both")
    declare(store, "copy", application="*")
    declare(store, "copy", application="page")
    declare(store, "copy", application="page", reported="never", at=START + MINUTE)
    found = joined(store)
    by_name = dict(zip(found.segments, found.copied, strict=True))
    assert by_name["mail"] == 0.0  # as all
    assert np.isnan([by_name["page"], by_name["shop"]]).all()


def test_both_takes_a_hundred_percent_for_true_and_asks_no_more(store: EventStore) -> None:
    presence(store, 60, {"task_completed": 60})
    hear(store, now=LATER)
    assert rates(store)["completion_rate"].value is None
    declare(store, "task_completed", reported="both")
    assert rates(store)["completion_rate"].value == 1.0
    assert questions(store, now=LATER) == ()


def test_what_is_never_reported_is_neither_counted_nor_asked_about(store: EventStore) -> None:
    presence(store, 60, {"regenerate": 30})
    declare(store, "regenerate", reported="never")
    assert hear(store, now=LATER) == ()
    assert rates(store)["regenerate_rate"].value is None


def test_a_series_begins_anew_where_an_application_reports_otherwise(store: EventStore) -> None:
    presence(store, 50, {"copy": 20}, noes=True)
    presence(store, 50, {"copy": 10}, start=START + 2 * HOUR)
    declare(store, "copy", since=START + HOUR, at=START + 3 * HOUR)
    assert observed(store, "copy") == [None] * 50 + [1.0] * 10 + [0.0] * 40
    steady = store.signals(window(), lag=LAG)["steady"].to_pylist()
    assert steady == [False] * 50 + [True] * 50
    # a board whose baseline is older goes on with what it knew
    old = observed(store, "copy", known_at=START + 2 * HOUR)
    assert old == [1.0] * 20 + [0.0] * 30 + [None] * 50
    new = observed(store, "copy", known_at=START + 3 * HOUR)
    assert new == [1.0] * 20 + [0.0] * 30 + [1.0] * 10 + [0.0] * 40


def test_an_absence_is_no_sign_of_life(store: EventStore) -> None:
    presence(store, 50, {"copy": 10})
    declare(store, "copy")
    table = store.signals(window(), lag=LAG)
    assert table["copy"].null_count == 0
    assert sum(table["signalled"].to_pylist()) == 10


def test_raw_feedback_stays_what_was_sent(store: EventStore) -> None:
    presence(store, 50, {"copy": 30})
    hear(store, now=LATER)
    declare(store, "copy")
    assert store.feedback(window()).num_rows == 30
    assert store.told_feedback(window()).num_rows == 50


# Cost ---------------------------------------------------------------------------------------------


@contextmanager
def rows_read(store: EventStore) -> Iterator[list[tuple[str, int, int]]]:
    """Collect the spans of positions that are read meanwhile."""
    spans: list[tuple[str, int, int]] = []

    def note(_c: Any, _cur: Any, statement: str, values: Any, _ctx: Any, _many: bool) -> None:
        ranged = list(values.values()) if isinstance(values, dict) else list(values)
        for table in ("interactions", "feedback"):
            if f"{table}.position >" in statement:
                whole = [value for value in ranged if isinstance(value, int)]
                spans.append((table, whole[0], whole[1]))

    sa.event.listen(store._engine, "before_cursor_execute", note)
    try:
        yield spans
    finally:
        sa.event.remove(store._engine, "before_cursor_execute", note)


def test_a_later_count_reads_what_arrived_since_and_nothing_else(store: EventStore) -> None:
    presence(store, 400, {"copy": 100})
    with rows_read(store) as first:
        hear(store, now=LATER)
    assert first == [("interactions", 0, 400), ("feedback", 0, 100)]
    with rows_read(store) as again:
        hear(store, now=LATER)
    assert again == []
    presence(store, 7, {"copy": 3}, start=START + 5 * HOUR)
    with rows_read(store) as more:
        hear(store, now=LATER)
    assert more == [("interactions", 400, 407), ("feedback", 100, 103)]
    (question,) = questions(store, now=LATER)
    assert (question.yes, question.answers) == (103, 407)


def test_a_long_way_is_counted_in_steps_and_comes_to_the_same(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    presence(store, 120, {"copy": 50, "regenerate": 30})
    monkeypatch.setattr(heard, "_STEP", 37)
    hear(store, now=LATER)
    assert {(item.kind, item.yes, item.answers) for item in questions(store, now=LATER)} == {
        ("copy", 50, 120), ("regenerate", 30, 120),
    }  # fmt: skip


def test_what_was_heard_in_a_window_is_counted_by_application_and_kind(store: EventStore) -> None:
    presence(store, 40, {"copy": 25}, application="app")
    presence(store, 30, {"copy": 10}, application="page", noes=True)
    found = {(item.application, item.kind): item for item in heard.heard(store, window())}
    app, page = found["app", "copy"], found["page", "copy"]
    assert (app.yes, app.no, app.answers) == (25, 0, 40)
    assert (page.yes, page.no, page.answers) == (10, 20, 30)
    assert found["app", "regenerate"].yes == 0
