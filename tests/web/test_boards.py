"""A version's board shows its evidence over time, from the states that monitoring stored."""

from __future__ import annotations

import time

import pytest

from ratchet.analyze.monitoring.board import evidence_of
from ratchet.errors import InsufficientDataError
from ratchet.records import AlertEvent, Baseline, BoardState
from ratchet.web.boards import read_board
from tests.web.filled import OLD
from tests.web.lively import watched
from tests.web.test_charts import drawn


@pytest.fixture
def watched_site(site):
    watched(site.store, site.clock.now, hours=4)
    return site


@pytest.mark.slow
def test_the_evidence_is_that_of_the_stored_states_and_the_alarm_is_marked(watched_site):
    store, browser = watched_site.store, watched_site.browser()
    found = read_board(store, OLD)
    states = [one for one in store.records(BoardState, subject=OLD) if one.batches]
    last = states[-1]
    assert len(found.rows) == len(states) >= 3
    baseline = store.get(Baseline, last.baseline_id)
    assert found.rows[0] == (last.charted_until, evidence_of(last, baseline), last.log_threshold)
    assert found.rows[0][1] >= last.log_threshold  # three times as many are asked again
    (alert,) = [one for one in store.records(AlertEvent, subject=OLD) if one.change == "opened"]
    page = drawn_board(browser, f"/boards/{OLD}")
    assert f"/alerts/{alert.alert_id}" in page.text
    assert page.text.count('<span class="tag bad">alarm</span>') == sum(
        evidence >= bar for _, evidence, bar in found.rows
    )
    picture = browser.get(f"/board-pictures/{OLD}")
    assert picture.headers["content-type"].startswith("image/svg+xml")
    assert f"/boards/{OLD}" in browser.get(f"/alerts/{alert.alert_id}").text


@pytest.mark.slow
def test_the_chart_of_its_signal_shows_the_alert_the_release_and_why_the_baseline(watched_site):
    page = drawn(watched_site.browser(), "/charts/regenerate_rate").text
    assert "Alerts on it" in page
    assert f"those before the release of {OLD}" in page
    assert "alert    " in page


def test_a_version_that_was_not_watched_says_so(site):
    with pytest.raises(InsufficientDataError, match="watch-only"):
        read_board(site.store, OLD)
    page = drawn_board(site.browser(), f"/boards/{OLD}")
    assert '<p class="warning">' in page.text


def drawn_board(browser, path):
    """Return a page once its board was read."""
    for _ in range(400):
        answer = browser.get(path)
        if "being read" not in answer.text:
            return answer
        time.sleep(0.05)
    raise AssertionError(path)
