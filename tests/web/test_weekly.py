"""The weekly report: every figure is that of a record, by hand."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest
from markdown_it import MarkdownIt

from ratchet.errors import InvalidInputError
from ratchet.notify.messages import Links
from ratchet.records import (
    AlertMute,
    Approval,
    Interaction,
    JudgeVerdict,
    Message,
    Release,
    ReviewDecision,
)
from ratchet.store.outbox import Outgoing
from ratchet.views.pages.weekly import weekly_page
from ratchet.views.text.weekly import weekly_markdown
from ratchet.web.weekly import last_week, report_message, week_named, weekly_report
from tests.browser.hostile import HOSTILE
from tests.web.filled import NEW, OLD, alert, analysis, decision, fill, metric

NOW = datetime(2026, 12, 1, 9, tzinfo=UTC)  # a Tuesday, in the week 2026-W49
WEEK = week_named("2026-W48")
INSIDE = WEEK.start + timedelta(days=2)


def told(store, week=WEEK, **options):
    report = weekly_report(store, week, assistant="router", now=NOW, **options)
    return report, {section.title: section for section in report.sections}


def rows(section):
    return [row.cells for row in section.rows]


def test_weeks_are_those_of_iso_8601():
    assert WEEK.start == datetime(2026, 11, 23, tzinfo=UTC)
    assert WEEK.end == datetime(2026, 11, 30, tzinfo=UTC)
    assert last_week(NOW) == WEEK
    assert last_week(datetime(2027, 1, 4, tzinfo=UTC)).name == "2026-W53"  # 2026 has 53 weeks
    for wrong in ("2026-48", "2026-W54", "2026-W00", "2025-W53", "x", "2026-W48\n"):
        with pytest.raises(InvalidInputError, match="2026-W48"):
            week_named(wrong)


def test_an_empty_home_has_a_report_that_says_what_is_not_known(site):
    report, sections = told(site.store)
    assert report.verdict == "unknown"
    assert len(sections) == 7
    assert "nobody can tell" in sections["Is the model better than the week before?"].says
    assert sections["What waits for people now?"].says == "Nothing."
    assert "None" not in weekly_markdown(report)


def test_better_is_said_with_the_intervals_of_both_weeks(site):
    site.store.append(analysis("a-1", WEEK.start - timedelta(hours=2), OLD, 0.20, 0.30))
    site.store.append(analysis("a-2", INSIDE, OLD, 0.12, 0.31))
    site.store.append(analysis("a-3", WEEK.end + timedelta(hours=1), OLD, 0.5, 0.1))  # the next one
    report, sections = told(site.store)
    assert (report.verdict, report.headline) == (
        "better", "The model is better than the week before."
    )  # fmt: skip
    down, copied = rows(sections["Is the model better than the week before?"])
    assert down[:3] == ("thumbs down rate", "12 % (10 % to 14 %)", "20 % (18 % to 22 %)")
    # MOVER: half of the sum of squares of the halves, sqrt(0.02^2 + 0.02^2) = 0.0283
    assert down[3] == "-8.0 points (-10.8 to -5.2)"
    assert (down[4], copied[4]) == ("better", "no difference shown")


def test_an_alert_lasts_from_its_opening_to_its_end_or_the_weeks(site):
    def step(key, at, **changes):
        site.store.append(alert(key, at, **changes))

    step("long", WEEK.start - timedelta(days=1))
    step("long", INSIDE, id="long-end", change="resolved", by="ada", note="mended")
    step("open", WEEK.end - timedelta(hours=5), severity="warning")
    step("before", WEEK.start - timedelta(days=9))
    step("before", WEEK.start - timedelta(days=8), id="before-end", change="resolved")
    step("after", WEEK.end + timedelta(hours=1))
    report, sections = told(site.store)
    found = rows(sections["What was alarming, and for how long?"])
    assert [(row[1], row[3], row[4]) for row in found] == [
        ("critical", "3 days", "ada"), ("warning", "5 hours, still open", "nobody"),
    ]  # fmt: skip
    assert dict(report.summary)["Alerts"] == "2, 1 still open"


def test_what_was_released_learned_decided_and_waits_is_that_of_the_records(site):
    fill(site.store, INSIDE)
    store = site.store
    store.append(Release(id="r-2", created_at=INSIDE, action="promote", champion=NEW, previous=OLD,
                         decision_id="d-2", by="ada", note="read 20 answers"))  # fmt: skip
    store.append(Release(id="r-3", created_at=INSIDE + timedelta(hours=1), action="rollback",
                         champion=OLD, previous=NEW, by="eve", note="worse"))  # fmt: skip
    store.append(Approval(id="d-2", created_at=INSIDE, challenger=NEW, approved=True, by="ada",
                          reason="read 20 answers", via="page"))  # fmt: skip
    store.append(AlertMute(id="m", created_at=INSIDE, about="board", by="eve", reason="known",
                           until=INSIDE + timedelta(hours=4)))  # fmt: skip
    for number in range(3):
        store.append(ReviewDecision(id=f"rd-{number}", created_at=INSIDE, item_id=f"i-{number}",
                                    label="fine", reviewer="bob"))  # fmt: skip
    store.append(decision(INSIDE, id="d-3", cycle_id="cycle-9", challenger="support-router/9",
                          verdict="hold", approval=None, reasons=("not shown",)))  # fmt: skip
    report, sections = told(store)
    released = rows(sections["What was released, what was taken back?"])
    assert [row[0] for row in released] == [
        f"{NEW} is promoted to champion by ada, {OLD} is kept for rollback",
        f"{OLD} is the champion again by eve, {NEW} is kept for rollback",
    ]
    assert sections["What was released, what was taken back?"].says == "2 steps, 1 of them back."
    assert dict(report.summary)["New champions"] == "1"
    learned = rows(sections["What did it learn?"])
    assert learned == [
        ("320 examples (sft)", NEW, "promote: better by 3 points or more"),
        ("trained earlier", "support-router/9", "hold: not shown"),
    ]
    people = rows(sections["What did people decide?"])
    assert (f"approved {NEW}", "ada", "2026-11-25 00:00 UTC", "read 20 answers") in people
    assert ("muted board for 4 hours", "eve", "2026-11-25 00:00 UTC", "known") in people
    assert ("labelled 3 items", "bob", "", "") in people
    assert sections["What did people decide?"].says == "2 decisions and 3 labels by 3 people."
    waits = rows(sections["What waits for people now?"])
    assert ("1 open alert that nobody looks after", "") in waits


def test_the_cost_is_the_mean_of_the_analysis_times_the_answers_with_its_interval(site):
    store = site.store
    found = analysis("a", INSIDE, OLD, 0.2, 0.3)
    cost = metric("cost", 0.02, 0.005, "cost")
    store.append(found.model_copy(update={"metrics": (*found.metrics, cost)}))
    store.add_interactions([
        Interaction(id=f"i{n}", session_id="s", user_id="u", created_at=INSIDE, model_version=OLD,
                    messages=(Message(role="user", content="q"),), response="a")
        for n in range(400)
    ])  # fmt: skip
    store.add_verdicts([
        JudgeVerdict(id=f"v{n}", created_at=at, judge="j", judge_version="1", dimension="d",
                     mode="pointwise", model="m", prompt=(Message(role="user", content="q"),),
                     reply="good", outcome="good", score=1.0, cost=0.25)
        for n, at in enumerate([INSIDE, INSIDE, WEEK.end])
    ])  # fmt: skip
    _, sections = told(store)
    assert rows(sections["What did it cost?"]) == [
        ("400 answers", "8.00 (6.00 to 10.00)"), ("2 verdicts of judges", "0.50"),
        ("training", "0.0 hours of this machine"),
    ]  # fmt: skip


def test_page_markdown_and_message_say_the_same(site):
    fill(site.store, INSIDE)
    report, sections = told(site.store, address="https://ratchet.example")
    page = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", weekly_page(report))))
    drawn = MarkdownIt("commonmark").enable("table").render(weekly_markdown(report))
    text = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", drawn)))
    for section in sections.values():
        for said in (section.title, section.says, *(cell for row in rows(section) for cell in row)):
            assert said in page
            assert said in text
    taken = Outgoing("m-1", "report", "2026-W48", "duty", NOW, NOW)
    links = Links("https://ratchet.example")
    message = report_message(site.store, taken, assistant="router", links=links, now=NOW)
    assert message.html == weekly_page(report)
    assert message.page == "https://ratchet.example/weekly/2026-W48"


def test_stored_texts_are_text_in_the_report(site):
    for number, text in enumerate(HOSTILE):
        site.store.append(alert(f"al-{number}", INSIDE, message=text[:400], by=text[:100]))
    report, _ = told(site.store, address="https://ratchet.example")
    page = weekly_page(report)
    assert re.findall(r"<(script|img|iframe|svg)\b", page) == []
    drawn = MarkdownIt("commonmark", {"html": True}).enable("table").render(weekly_markdown(report))
    assert re.findall(r"<(script|img|iframe|svg)\b", drawn) == []
    assert len(re.findall(r"<a href=\"(?!https://ratchet.example/)", drawn)) == 0


def test_the_page_of_a_week_is_the_report_and_each_link_leads_to_a_page(site):
    fill(site.store, INSIDE)
    browser = site.browser()
    page = browser.get("/weekly/2026-W48")
    shown = re.search(r"<h1>.*</main>", browser.get("/weekly").text, re.S)
    assert shown
    assert shown[0] in page.text
    report, _ = told(site.store)
    assert report.headline in unescape(page.text)
    inside = re.search(r"<main.*</main>", page.text, re.S)
    assert inside
    links = set(re.findall(r'href="(/[^"]*)"', inside[0]))
    assert {"/alerts/al-1", "/weekly/2026-W47"} <= links
    for link in links:
        assert browser.get(unescape(link)).status_code in (200, 303), link
    assert browser.get("/weekly/2026-W99").status_code == 422
