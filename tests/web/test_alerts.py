"""The pages of alerts and runbooks: what is muted, by whom and why."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape

import pytest

from ratchet.notify.muting import muted_at, mutes
from ratchet.notify.runbooks import RUNBOOKS
from ratchet.records import AlertMute
from tests.web.filled import alert, fill


def words(page):
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page.text)))


def test_an_engineer_mutes_an_alert_with_a_reason_and_everybody_sees_it(site):
    event = alert("al-1", site.clock.now)
    site.store.append(event)
    browser = site.signed_in("engineer", "eve")
    browser.get("/alerts/al-1")
    done = browser.post("/alerts/al-1/mute", hours="6", reason="the vendor mends it")
    assert (done.status_code, done.headers["location"]) == (303, "/alerts/al-1")
    (made,) = site.store.records(AlertMute)
    assert (made.by, made.reason) == ("eve", "the vendor mends it")
    assert made.until - made.created_at == timedelta(hours=6)
    assert site.audit()[-1] == ("eve", "mute", "done")
    text = words(browser.get("/alerts/al-1"))
    assert "until 2026-12-01 15:00 UTC by eve: the vendor mends it" in text
    assert "muted until 2026-12-01 15:00 UTC" in words(browser.get("/alerts"))
    browser.get("/alerts/al-1")
    assert browser.post("/alerts/al-1/unmute", reason="mended").status_code == 303
    assert muted_at(mutes(site.store), event, site.clock.now) is None
    assert site.audit()[-1] == ("eve", "unmute", "done")


@pytest.mark.parametrize(
    ("fields", "status"),
    [({"hours": "6"}, 422), ({"hours": "six", "reason": "x"}, 422),
     ({"hours": "nan", "reason": "x"}, 422), ({"hours": "1e9", "reason": "x"}, 422)],
)  # fmt: skip
def test_a_mute_needs_a_time_and_a_reason(site, fields, status):
    site.store.append(alert("al-1", site.clock.now))
    browser = site.signed_in("engineer", "eve")
    browser.get("/alerts/al-1")
    assert browser.post("/alerts/al-1/mute", **fields).status_code == status
    assert site.store.records(AlertMute) == ()


@pytest.mark.parametrize("role", ["viewer", "reviewer"])
def test_who_is_no_engineer_mutes_nothing_and_is_not_offered_to(site, role):
    site.store.append(alert("al-1", site.clock.now))
    browser = site.signed_in(role)
    assert "/mute" not in browser.get("/alerts/al-1").text
    assert browser.post("/alerts/al-1/mute", hours="1", reason="x").status_code == 403
    assert site.audit()[-1] == (role, "refused", "refused")


def test_a_form_of_another_site_mutes_nothing(site):
    site.store.append(alert("al-1", site.clock.now))
    browser = site.signed_in("engineer", "eve")
    browser.token = "0" * 64
    assert browser.post("/alerts/al-1/mute", hours="1", reason="x").status_code == 403
    assert site.store.records(AlertMute) == ()


@pytest.mark.parametrize("kind", RUNBOOKS)
def test_every_kind_has_a_runbook_page(site, kind):
    text = words(site.browser().get(f"/runbooks/{kind}"))
    book = RUNBOOKS[kind]
    for said in (book.title, book.means, *book.look, *book.do, *(one for one, _ in book.commands)):
        assert re.sub(r"\s+", " ", said) in text


def test_an_alert_leads_to_its_runbook_and_the_runbook_to_open_alerts(site):
    fill(site.store, site.clock.now)
    browser = site.browser()
    for path in ("/", "/alerts", "/alerts/al-1"):
        assert 'href="/runbooks/board"' in browser.get(path).text
    assert "/alerts/al-1" in browser.get("/runbooks/board").text
    assert "/alerts/al-1" not in browser.get("/runbooks/cluster").text
    assert browser.get("/runbooks/nothing").status_code == 404
