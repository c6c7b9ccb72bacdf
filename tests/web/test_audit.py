"""The audit trail holds what was done on pages, by commands, by Prefect's form and by Ratchet."""

from __future__ import annotations

import csv
import io
import re
from datetime import timedelta
from html import unescape

import pytest

from ratchet.deploy.approval import expire, say
from ratchet.deploy.rollout.canary import stop_rollout
from ratchet.records import AlertEvent
from ratchet.views.audit import KINDS, trail
from tests.cli.in_process import run_in_process
from tests.web.filled import NEW, alert, decision, fill, roll_out


def entries(site, **chosen):
    now = site.clock.now
    return trail(
        site.store, since=now - timedelta(days=30), until=now + timedelta(days=1), **chosen
    )


def told(site, **chosen):
    return [(one.kind, one.by, one.action, one.way) for one in entries(site, **chosen)]


def rows(answer):
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


def test_an_approval_is_in_the_audit_whichever_way_it_was_given(site):
    now = site.clock.now
    for key in ("d-1", "d-2", "d-3"):
        site.store.append(decision(now - timedelta(hours=1), id=key))
    ways = {"d-1": "command", "d-2": "prefect"}
    for minutes, (key, via) in enumerate(ways.items()):
        say(site.store, decision(now - timedelta(hours=1), id=key), approved=True, by="eve",
            reason="read 20", via=via, now=now + timedelta(minutes=minutes))  # fmt: skip
    late = now + timedelta(days=3)
    expire(site.store, decision(now - timedelta(hours=1), id="d-3"), late)
    found = trail(site.store, since=now, until=late + timedelta(days=1), kind="approval")
    assert [(one.by, one.action, one.way, one.subject) for one in found] == [
        ("Ratchet", "reject", "expiry", "d-3"),
        ("eve", "approve", "prefect", "d-2"),
        ("eve", "approve", "command", "d-1"),
    ]


def test_what_is_done_on_a_page_is_in_the_audit_once(site):
    fill(site.store, site.clock.now)
    roll_out(site.store, site.clock.now)
    browser = site.signed_in("engineer", "eve")
    browser.post("/alerts/al-1/acknowledge", reason="I look")
    site.clock.pass_(minutes=1)
    browser.post("/rollouts/ro-1/stop", reason="slow")
    assert told(site, who="EVE") == [
        ("rollout", "eve", "stop rollout", "127.0.0.1"),
        ("alert", "eve", "acknowledge", "127.0.0.1"),
        ("sign-in", "eve", "log-in", "127.0.0.1"),
    ]


def test_what_is_done_by_command_is_there_without_a_page(site):
    fill(site.store, site.clock.now)
    roll_out(site.store, site.clock.now)
    stop_rollout(site.store, by="bea", now=site.clock.now, note="by hand", person=True)
    (stopped,) = entries(site, kind="rollout", who="bea")
    assert (stopped.action, stopped.reason) == ("stop rollout", "by hand")
    assert ("decision", "Ratchet", "promote", "gate") in told(site, kind="decision")


def test_what_ratchet_updates_of_an_acknowledged_alert_is_no_deed_of_a_person(site):
    now = site.clock.now
    by = {"change": "acknowledged", "by": "eve", "note": "I look"}
    steps = (
        {}, by, by | {"value": 0.33}, {"change": "resolved"},
        {"change": "opened"}, by | {"note": "again"},
    )  # fmt: skip
    for number, changes in enumerate(steps):
        site.store.append(
            alert("al-1", now + timedelta(minutes=number), **{"id": f"s{number}"} | changes)
        )
    assert len(site.store.records(AlertEvent)) == len(steps)
    found = entries(site, kind="alert")
    assert [(one.by, one.reason) for one in found] == [("eve", "again"), ("eve", "I look")]


def test_keys_erasures_exports_and_switches_of_commands_are_in_the_audit(site, tmp_path):
    environment = {"RATCHET_HOME": str(site.settings.home)}

    def command(*words):
        done = run_in_process(*words, "--by", "bea", folder=tmp_path, environment=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    key = command("keys", "create", "shop", "--note", "for the shop").strip()
    public = re.search(r"[0-9a-f]{8,}", key)[0]
    key_id = next(one["id"] for one in _keys(site) if one["id"] in key or public in one["id"])
    command("keys", "revoke", key_id, "--note", "leaked")
    command("keys", "rotate-secret", "--note", "leaked")
    command("signals", "switch", "left", "--off", "--note", "robots")
    command("export", "interactions", "--out", str(tmp_path / "all.jsonl"))
    command("forget", "user-17", "--yes", "--note", "request 31")
    found = trail(site.store, since=site.clock.now - timedelta(days=1),
                  until=site.clock.now + timedelta(days=400), who="bea")  # fmt: skip
    assert [(one.kind, one.action) for one in reversed(found)] == [
        ("key", "make key"), ("key", "revoke key"), ("key", "new secret of tokens"),
        ("signal", "switch signal off"), ("export", "export interactions"),
        ("erasure", "forget user"),
    ]  # fmt: skip
    keys = [one for one in found if one.kind == "key"]
    assert [one.reason for one in keys] == ["leaked", "leaked", "shop: ingest; for the shop"]
    everybody = trail(site.store, since=site.clock.now - timedelta(days=1),
                      until=site.clock.now + timedelta(days=400))  # fmt: skip
    assert len(everybody) == len(found)  # the records of the same deeds are not entries again


def _keys(site):
    from ratchet.records import ApiKey

    return [one.canonical() for one in site.store.records(ApiKey)]


def test_the_page_and_the_file_show_the_same_choice(site):
    fill(site.store, site.clock.now)
    browser = site.signed_in("engineer", "eve")
    page = browser.get("/audit?kind=decision")
    text = unescape(re.sub(r"<[^>]+>", " ", page.text))
    assert NEW in text
    assert "eve" not in re.sub(r"(?s).*<tbody>", "", page.text)
    address = unescape(re.search(r'href="(/audit\.csv[^"]*)"', page.text)[1])
    answer = browser.get(address)
    assert answer.headers["content-type"].startswith("text/csv")
    assert "attachment" in answer.headers["content-disposition"]
    assert [(row["kind"], row["action"], row["about"]) for row in rows(answer)] == [
        ("decision", "promote", NEW)
    ]
    everything = rows(browser.get("/audit.csv"))
    assert {row["kind"] for row in everything} >= {"decision", "sign-in"}
    assert len(rows(browser.get("/audit.csv?until=2020-01-01"))) == 0


def test_a_cell_of_the_file_is_no_formula(site):
    site.store.append(alert("al-1", site.clock.now))
    browser = site.signed_in("engineer", "=cmd")
    browser.post("/alerts/al-1/resolve", reason="=HYPERLINK(1)\nx")
    (row,) = rows(browser.get("/audit.csv?kind=alert"))
    assert (row["by"], row["reason"]) == ("'=cmd", "'=HYPERLINK(1) x")


@pytest.mark.parametrize(
    "query", ["kind=love", "since=yesterday", "until=0001-01-01", "since=9999-12-31"]
)
def test_a_choice_that_there_is_not_is_refused(site, query):
    browser = site.signed_in("engineer")
    assert browser.get(f"/audit?{query}").status_code == 422
    assert browser.get(f"/audit.csv?{query}").status_code == 422


def test_every_kind_can_be_chosen_and_viewers_read_no_audit(site):
    engineer, viewer = site.signed_in("engineer"), site.signed_in("viewer")
    for kind in KINDS:
        assert engineer.get(f"/audit?kind={kind}").status_code == 200
    assert viewer.get("/audit").status_code == 403
    assert viewer.get("/audit.csv").status_code == 403
