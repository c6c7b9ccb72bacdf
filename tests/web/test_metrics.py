"""`/metrics` of the pages: alerts, evidence, the rollout and what waits, as the store says."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ratchet.analyze.monitoring.board import evidence_of
from ratchet.gateway.access import new_key
from ratchet.records import Baseline, BoardState
from tests.gateway.test_metrics import check, samples, value
from tests.web.filled import OLD, alert, fill, roll_out
from tests.web.lively import watched


def scraped(site) -> str:
    answer = site.browser().get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return answer.text


def test_an_empty_store_says_that_there_is_nothing(site):
    text = scraped(site)
    check(text)
    assert value(text, "ratchet_alerts_open") == 0
    assert value(text, "ratchet_rollout_running") == 0
    assert "ratchet_champion_info" not in samples(text)


def test_alerts_waiting_things_and_the_last_analysis(site):
    fill(site.store, site.clock.now)
    text = scraped(site)
    check(text)
    assert value(text, "ratchet_champion_info", version=OLD) == 1
    opened = alert("al-1", site.clock.now)
    kind = {"severity": opened.severity, "kind": opened.kind}
    assert value(text, "ratchet_alerts_open", **kind) == value(text, "ratchet_alerts_open") == 1
    assert value(text, "ratchet_waiting", what="alerts") == 1
    assert value(text, "ratchet_waiting", what="decisions") == 1
    down = {"metric": "thumbs_down_rate", "version": OLD}
    assert value(text, "ratchet_analysis_metric", **down) == 0.12
    lower = value(text, "ratchet_analysis_metric_lower", **down)
    assert lower < 0.12 < value(text, "ratchet_analysis_metric_upper", **down)
    site.store.append(
        alert("al-2", site.clock.now, alert_id=opened.alert_id, change="resolved", action="")
    )
    assert value(scraped(site), "ratchet_alerts_open") == 0


def test_the_rollout_is_told_with_its_bounds(site):
    rollout = roll_out(site.store, site.clock.now)
    text = scraped(site)
    check(text)
    assert value(text, "ratchet_rollout_running") == 1
    both = {"champion": rollout.champion.version, "challenger": rollout.challenger.version}
    assert value(text, "ratchet_rollout_info", **both) == 1
    assert value(text, "ratchet_rollout_stages") == len(rollout.plan.stages)
    assert value(text, "ratchet_rollout_users") > 0
    for name, series in samples(text).items():
        if name == "ratchet_rollout_difference":
            for key in series:
                low = samples(text)["ratchet_rollout_difference_lower"][key]
                assert low <= series[key] <= samples(text)["ratchet_rollout_difference_upper"][key]


@pytest.mark.slow
def test_evidence_is_that_of_the_stored_board(site):
    watched(site.store, site.clock.now, hours=4)
    text = scraped(site)
    last = site.store.latest_by_subject(BoardState)[OLD]
    baseline = site.store.get(Baseline, last.baseline_id)
    assert value(text, "ratchet_board_log_evidence", version=OLD) == evidence_of(last, baseline)
    assert value(text, "ratchet_board_log_threshold", version=OLD) == last.log_threshold
    assert value(text, "ratchet_board_log_evidence", version=OLD) >= last.log_threshold


def test_a_key_that_may_read_opens_it_where_people_sign_in(site):
    record, key = new_key("prometheus", ["read"], now=site.clock.now)
    asks, asking = new_key("shop", ["ingest"], now=site.clock.now)
    site.store.append(record)
    site.store.append(asks)
    site.account("ana", "viewer")
    browser = site.browser("10.0.0.9")
    assert browser.get("/metrics").status_code == 401
    of = {"authorization": f"Bearer {asking}"}
    assert browser.get("/metrics", headers=of).status_code == 403
    of = {"authorization": f"Bearer {key}"}
    assert browser.get("/metrics", headers=of).status_code == 200
    site.clock.pass_(**{"days": timedelta(days=1).days})
    assert browser.log_in("ana").status_code == 303
    assert browser.get("/metrics").status_code == 200
