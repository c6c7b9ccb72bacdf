"""The first screen and the pages behind it: figures are those of the records, actions act."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from html import unescape

import numpy as np
import pytest
import sqlalchemy as sa

from ratchet.deploy.promotion import establish_champion
from ratchet.deploy.routing import running_rollout, serving_champion
from ratchet.records import (
    AlertEvent,
    Approval,
    Correction,
    Decision,
    Interaction,
    Release,
    RolloutStop,
    RoutingRefusal,
)
from ratchet.review.choosing import choose_items
from ratchet.review.policy import ReviewPolicy
from ratchet.web.refreshing import Kept
from ratchet.web.standing import changes_between, standing, waiting, week_of
from tests.conftest import MODEL_NAME
from tests.deploy.adapter_files import trained
from tests.review.test_choosing import sheet
from tests.store.test_forget import NOW, curated, interaction
from tests.web.filled import NEW, OLD, alert, analysis, decision, fill, roll_out


def words(page):
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page.text)))


def test_an_empty_home_says_of_each_question_that_nothing_is_known(site):
    text = words(site.browser().get("/"))
    for said in ("No version is in front of users yet", "Not known yet", "No alert is open",
                 "No failure cluster is known", "no cycle yet"):  # fmt: skip
        assert said in text


def test_the_screen_answers_its_questions_from_the_records(site):
    fill(site.store, site.clock.now)
    text = words(site.browser().get("/"))
    assert f"Users have {OLD}" in text
    assert "thumbs down of support-router/1 is 31 %" in text
    assert "roll back if the rise began with the release" in text
    assert "parcel, tracking, courier 76 % 65 % to 84 % 45 failures" in text
    assert f"Approve or reject {NEW}" in text
    assert "7, begun 5 hours ago: decided: promote" in text
    assert "Better" in text


def test_pairs_that_wait_are_counted_once_in_the_queue_or_not(site):
    sheet(site.store)
    kept = Kept(site.store, site.clock)
    before = waiting(site.store, (), kept.get)
    choose_items(site.store, ReviewPolicy(), sampled_from=(), now=site.clock.now)
    after = waiting(site.store, (), kept.get)
    assert before.pairs == after.pairs == (("sheet", 2),)
    assert before.reviews == after.reviews == ()


def test_what_a_record_changes_is_on_the_next_screen(site):
    browser = site.browser()
    assert "No alert is open" in words(browser.get("/"))
    site.store.append(alert("al-1", site.clock.now))
    assert "No alert is open" not in words(browser.get("/"))


# Better than last week ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("down", "copied", "says"),
    [(0.12, 0.30, "better"), (0.28, 0.30, "worse"), (0.21, 0.31, "same"), (0.12, 0.10, "mixed")],
)
def test_the_week_is_judged_by_the_direction_of_each_metric(site, down, copied, says):
    now = site.clock.now
    site.store.append(analysis("a-1", now - timedelta(days=7), OLD, 0.20, 0.30))
    site.store.append(analysis("a-2", now, OLD, down, copied))
    assert week_of(site.store, now).says == says


def test_an_analysis_of_some_days_before_is_no_week_before(site):
    now = site.clock.now
    site.store.append(analysis("a-1", now - timedelta(days=3), OLD, 0.20, 0.30))
    site.store.append(analysis("a-2", now, OLD, 0.1, 0.3))
    assert week_of(site.store, now).says == "unknown"


def test_the_interval_of_a_change_is_that_of_zou_and_donner(site):
    before = analysis("a-1", site.clock.now, OLD, 0.20, 0.30)
    after = analysis("a-2", site.clock.now, OLD, 0.12, 0.30)
    change = changes_between(after, before)[0]
    half = np.hypot(0.02, 0.02)
    assert change.difference == pytest.approx(-0.08)
    assert (change.interval.lower, change.interval.upper) == pytest.approx(
        (-0.08 - half, -0.08 + half)
    )


# Pages --------------------------------------------------------------------------------------------


def test_every_link_of_every_page_leads_to_a_page(site):
    fill(site.store, site.clock.now)
    roll_out(site.store, site.clock.now)
    browser, waiting, seen = site.browser(), ["/"], {"/"}
    while waiting:
        path = waiting.pop()
        answer = browser.get(path)
        assert answer.status_code == 200, path
        for link in map(unescape, re.findall(r'href="(/[^"#]*)"', answer.text)):
            if link not in seen:
                seen.add(link)
                waiting.append(link)
    for path in ("/versions/support-router/2", "/training-sets/t-1", "/clusters/c-parcel",
                 "/alerts/al-1", "/decisions/d-2", "/rollouts/ro-1", "/rollback"):  # fmt: skip
        assert path in seen


@pytest.mark.parametrize(
    "path",
    ["/versions/x/9", "/training-sets/x", "/clusters/x", "/alerts/x", "/decisions/x",
     "/rollouts/x", "/nothing"],
)  # fmt: skip
def test_what_is_not_there_is_said_to_be_so(site, path):
    answer = site.browser().get(path)
    assert answer.status_code == 404
    assert "There is no" in answer.text


def test_a_viewer_sees_all_and_is_offered_no_action(site):
    fill(site.store, site.clock.now)
    roll_out(site.store, site.clock.now)
    browser = site.signed_in("viewer", "vera")
    for path in ("/", "/alerts/al-1", "/decisions/d-2", "/rollouts/ro-1", "/rollouts"):
        answer = browser.get(path)
        assert answer.status_code == 200
        forms = re.findall(r'<form method="post" action="([^"]+)"', answer.text)
        assert forms == ["/log-out"], path
    for path in ("/rollback", "/cycle/start"):
        assert browser.get(path).status_code == 403
        assert browser.post(path, reason="x").status_code == 403


def test_a_training_set_shows_some_of_its_rows_and_says_where_it_is_gone(site):
    fill(site.store, site.clock.now)
    browser = site.browser()
    assert "it may have been deleted" in read(browser, "/training-sets/t-1")
    site.store.add_interactions(
        [interaction(n, f"u{n}", f"where is my parcel number {n}, please") for n in range(12)]
    )
    given = {"created_at": NOW, "value": "parcel <tracking>"}
    site.store.add_feedback(
        [Correction(id=f"f{n}", interaction_id=f"i{n}", **given) for n in range(12)]
    )
    made = curated(site.store, site.settings.home, "cycle-1")
    text = read(browser, f"/training-sets/{made.id}")
    assert text.count("answer to learn") == 5
    assert text.count("&lt;tracking&gt;") == 5
    assert "in cycle 7" in text


def read(browser, path):
    """Return a page once its rows were read."""
    for _ in range(400):
        text = browser.get(path).text
        if "are being read" not in text:
            return text
        time.sleep(0.05)
    raise AssertionError(path)


# Actions ------------------------------------------------------------------------------------------


def test_an_alert_is_acknowledged_and_resolved_with_name_and_reason(site):
    site.store.append(alert("al-1", site.clock.now))
    browser = site.signed_in("engineer", "eve")
    assert browser.post("/alerts/al-1/acknowledge", reason=" ").status_code == 422
    assert browser.post("/alerts/al-1/acknowledge", reason="I look").status_code == 303
    site.clock.pass_(minutes=1)
    assert browser.post("/alerts/al-1/resolve", reason="was a test").status_code == 303
    steps = site.store.records(AlertEvent)
    assert [(one.change, one.by, one.note) for one in steps[1:]] == [
        ("acknowledged", "eve", "I look"), ("resolved", "eve", "was a test"),
    ]  # fmt: skip
    assert site.audit()[-2:] == [("eve", "acknowledge", "done"), ("eve", "resolve", "done")]
    assert browser.post("/alerts/al-1/resolve", reason="again").status_code == 422


def test_a_running_rollout_is_stopped_once(site):
    fill(site.store, site.clock.now)
    roll_out(site.store, site.clock.now)
    browser = site.signed_in("engineer", "eve")
    assert browser.post("/rollouts/ro-1/stop", reason="slow answers").status_code == 303
    stop = site.store.get(RolloutStop, "ro-1")
    assert (stop.by, stop.note, stop.person) == ("eve", "slow answers", True)
    assert running_rollout(site.store) is None
    assert serving_champion(site.store).version == OLD
    assert browser.post("/rollouts/ro-1/stop", reason="again").status_code == 422


def test_a_promotion_is_approved_another_rejected_and_the_release_rolled_back(
    site, tracker, tmp_path
):
    changed = {"tracking_uri": f"sqlite:///{tmp_path / 'mlflow.db'}", "model_name": MODEL_NAME}
    site.settings = site.settings.model_copy(update=changed)
    base = tracker.register_base("tiny", "digest-base")
    home = site.settings.home
    made, other = (trained(site.store, tracker, home, number) for number in (2, 3))
    establish_champion(site.store, tracker, lambda: base, site.clock.now)
    for key, version in (("d-2", made), ("d-3", other)):
        changes = {"id": key, "champion": base.reference, "challenger": version}
        site.store.append(decision(site.clock.now, **changes))
    browser = site.signed_in("engineer", "eve")
    assert browser.post("/decisions/d-3/reject", reason="worse on refunds").status_code == 303
    assert browser.post("/decisions/d-2/approve", reason="read 20 answers").status_code == 303
    said = {one.id: (one.approved, one.by, one.via) for one in site.store.records(Approval)}
    assert said == {"d-2": (True, "eve", "page"), "d-3": (False, "eve", "page")}
    assert serving_champion(site.store).version == made
    assert browser.post("/decisions/d-3/approve", reason="no").status_code == 409
    site.clock.pass_(minutes=1)
    assert made in words(browser.get("/rollback"))
    assert browser.post("/rollback", reason="wrong queue").status_code == 303
    release = site.store.latest(Release)
    assert (release.action, release.by, release.note) == ("rollback", "eve", "wrong queue")
    assert serving_champion(site.store).version == base.reference
    assert [entry[1:] for entry in site.audit()[-4:]] == [
        ("reject", "done"), ("approve", "done"), ("approve", "failed"), ("roll back", "done"),
    ]  # fmt: skip


def test_a_decision_that_could_not_be_acted_on_says_why_and_what_stands(site):
    fill(site.store, site.clock.now)
    browser = site.signed_in("viewer", "vic")
    (found,) = [one for one in site.store.records(Decision) if one.id == "d-2"]
    assert "tried again" not in browser.get("/decisions/d-2").text
    site.clock.pass_(minutes=1)
    refusal = RoutingRefusal(
        id="r-1", created_at=site.clock.now, step="promotion", version=found.challenger,
        stands=found.champion, reason="the server <b>lists</b> no such model",
        decision_id=found.id,
    )  # fmt: skip
    site.store.append(refusal)
    page = browser.get("/decisions/d-2")
    assert "the server &lt;b&gt;lists&lt;/b&gt; no such model" in page.text
    assert "was not promoted since it does not answer" in words(page)
    assert f"{found.champion} stays, and it is tried again by itself" in words(page)


def test_only_an_approver_decides_where_there_are_some(site, tracker, tmp_path):
    site.settings = site.settings.model_copy(
        update={
            "tracking_uri": f"sqlite:///{tmp_path / 'mlflow.db'}",
            "approvers": ("ana",),
        }
    )
    site.store.append(decision(site.clock.now))
    browser = site.signed_in("admin", "eve")
    assert browser.post("/decisions/d-2/approve", reason="looks good").status_code == 422
    assert site.store.records(Approval) == ()
    assert site.audit()[-1] == ("eve", "approve", "failed")


def test_a_cycle_is_not_started_without_a_server_that_runs_it(site):
    browser = site.signed_in("engineer", "eve")
    assert browser.post("/cycle/start", reason="new data").status_code == 422
    assert site.audit()[-1] == ("eve", "start cycle", "failed")


# Hostile strings and time -------------------------------------------------------------------------


def test_stored_texts_are_shown_as_text(site):
    hostile = "<script>alert(1)</script>\u202e"
    site.store.append(alert("al-1", site.clock.now, message=hostile, action=hostile))
    browser = site.browser()
    for path in ("/", "/alerts", "/alerts/al-1"):
        answer = browser.get(path)
        assert "<script>alert" not in answer.text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;\ufffd" in answer.text


def test_the_state_is_gathered_without_searching_through_traffic(site):
    fill(site.store, site.clock.now)
    asked = []

    def heard(_connection, _cursor, statement, *_rest):
        asked.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", heard)
    try:
        standing(site.store, site.clock.now, Kept(site.store, site.clock))
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", heard)
    assert asked
    # a few are looked up by their ids: whether the open cycle began with simulated users
    searched = re.compile(r"FROM (interactions|feedback)\b(?!\s+WHERE \1\.id IN)")
    assert not [text for text in asked if searched.search(text)]


def test_the_screen_answers_in_time_over_many_interactions(site):
    fill(site.store, site.clock.now)
    site.store.add_interactions(
        [
            Interaction.model_validate(
                {"id": f"i-{n}", "session_id": "s", "user_id": f"u-{n % 50}",
                 "created_at": site.clock.now, "model_version": OLD,
                 "messages": [{"role": "user", "content": "hi"}], "response": "ok"}
            )
            for n in range(2_000)
        ]
    )  # fmt: skip
    browser, seconds = site.browser(), []
    for _ in range(20):
        start = time.perf_counter()
        assert browser.get("/").status_code == 200
        seconds.append(time.perf_counter() - start)
    assert sorted(seconds)[10] < 0.3
