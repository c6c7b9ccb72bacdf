"""A decision's page shows what it lost and won side by side, from the table in its MLflow run."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from html import unescape
from urllib.parse import quote

import pytest

from ratchet.records import Erasure
from ratchet.web.gate_examples import examples_in
from tests.web.filled import decision, fill
from tests.web.lively import FLOW, gate_run

SIZE = 60  # of which the challenger wins 24 (7 of 10 right, not 5) and loses 12


def table(rows, metric="exact_match"):
    columns = ["set", "example", "message", "target", "champion", "challenger",
               f"champion {metric}", f"challenger {metric}"]  # fmt: skip
    return {"columns": columns, "data": [list(row) for row in rows]}


@pytest.fixture
def gated(site, tracker, tmp_path):
    """A home whose decision has its run in MLflow."""
    site.settings = site.settings.model_copy(
        update={"tracking_uri": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    )
    fill(site.store, site.clock.now)
    gate_run(tracker, site.clock.now, SIZE)
    return site


def pages(browser, path):
    """Return a page once what it shows was fetched."""
    for _ in range(400):
        answer = browser.get(path)
        if "being fetched" not in answer.text and "being looked for" not in answer.text:
            return answer
        time.sleep(0.05)
    raise AssertionError(path)


def test_a_decisions_page_shows_the_first_losses_with_both_answers_and_what_differs(gated):
    page = pages(gated.browser(), "/decisions/d-2")
    text = unescape(page.text)
    # of each ten the champion alone is right on 3 and 4, the challenger alone on 5, 6, 7 and 8
    assert "12 lost" in text
    assert "24 won" in text
    assert "24 the same, by exact_match on golden" in text
    assert text.count('<article class="card pair"') == 10
    first = text.partition("<article")[2].partition("</article>")[0]
    assert "1 → 0" in first
    assert '<p class="turn">right answer</p><pre>account and password</pre>' in first
    # a space that stands in both answers is in no mark
    for tag, words in (("del", "account and password"), ("ins", "I would say billing")):
        assert " ".join(re.findall(f"<{tag}>(.*?)</{tag}>", first)).split() == words.split()


def test_examples_are_paged_and_either_side_is_shown(gated):
    browser = gated.browser()
    pages(browser, "/decisions/d-2")
    second = browser.get("/decisions/d-2/examples?page=2").text
    assert second.count('<article class="card pair"') == 2
    assert "page=1" in second
    assert "page=3" not in second
    won = browser.get("/decisions/d-2/examples?side=won").text
    assert won.count('<article class="card pair"') == 10
    assert "0 → 1" in won
    ids = re.findall(r'aria-label="Example (e-\d+)"', won + second)
    assert len(ids) == len(set(ids)) == 12
    for wrong in ("side=drawn", "page=0", "page=x"):
        assert browser.get(f"/decisions/d-2/examples?{wrong}").status_code in (404, 422)
    assert "no such metric" in browser.get("/decisions/d-2/examples?metric=charm").text


def test_the_page_leads_to_the_runs_in_mlflow_and_prefect(gated):
    gated.settings = gated.settings.model_copy(
        update={"prefect_api_url": "http://prefect.example/api"}
    )
    text = pages(gated.browser(), "/decisions/d-2").text
    assert f"http://prefect.example/runs/flow-run/{FLOW}" in text
    key = "/runs/cycle-1:deploy:d-2"
    run = pages(gated.browser(), key).text
    assert f"/flow-run/{FLOW}" in run
    assert "ratchet up" in run  # no MLflow page is served here
    assert quote(key) in gated.browser().get("/").text


def test_a_run_that_is_gone_is_said_to_be_so(site, tracker, tmp_path):
    site.settings = site.settings.model_copy(
        update={"tracking_uri": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    )
    fill(site.store, site.clock.now)
    assert "is not there" in pages(site.browser(), "/decisions/d-2").text
    assert "no such run" in pages(site.browser(), "/runs/it's:gone").text


def test_after_an_erasure_the_answers_are_fetched_anew(gated):
    browser = gated.browser()
    pages(browser, "/decisions/d-2")
    gated.store.append(
        Erasure(id="e", created_at=gated.clock.now, user_digest="d", interactions=0, feedback=0,
                verdicts=0, records=0, training_sets=(), candidates=(), versions=(), runs=(),
                example_sets=())
    )  # fmt: skip
    assert "are being fetched" in browser.get("/decisions/d-2").text


# What the table says ------------------------------------------------------------------------------


def ids(side):
    return [one.example for one in side]


def test_the_worst_loss_and_the_greatest_win_come_first_whichever_direction_is_better():
    rows = [
        ("golden", f"e{n}", "q", "t", "a", "b", before, after)
        for n, (before, after) in enumerate(
            [(1.0, 0.8), (1.0, 0.1), (0.2, 0.9), (0.5, 0.6), (1, 1)]
        )
    ]
    made = decision_of(higher=True)
    (part,) = examples_in(made, table(rows))
    assert (ids(part.lost), ids(part.won)) == (["e1", "e0"], ["e2", "e3"])
    assert part.counts == {"lost": 2, "won": 2, "same": 1}
    (turned,) = examples_in(decision_of(higher=False), table(rows))
    assert (ids(turned.lost), ids(turned.won)) == (["e2", "e3"], ["e1", "e0"])


def test_a_missing_answer_of_the_challenger_is_a_loss_and_an_unmeasured_example_is_neither():
    rows = [
        ("golden", "gone", "q", None, "a", None, 0.0, None),
        ("golden", "none", "q", None, None, "b", None, 1.0),
        ("golden", "both", "q", None, "a", "a", 1.0, 1.0),
    ]
    (part,) = examples_in(decision_of(higher=True), table(rows))
    assert (ids(part.lost), ids(part.won), part.counts["same"]) == (["gone"], [], 1)


def test_each_set_is_by_itself_and_what_nobody_was_scored_on_is_left_out():
    rows = [
        ("golden", "a", "q", "t", "x", "y", 0.0, 1.0),
        ("traffic", "b", "q", "t", "x", "y", 1.0, 0.0),
        ("safety", "c", "q", "t", "x", "y", None, None),
    ]
    parts = examples_in(decision_of(higher=True), table(rows))
    assert [(one.set_name, one.counts["won"], one.counts["lost"]) for one in parts] == [
        ("golden", 1, 0), ("traffic", 0, 1),
    ]  # fmt: skip


def decision_of(*, higher):
    made = decision(datetime(2026, 12, 1, tzinfo=UTC))
    first = made.measured[0].model_copy(update={"higher_is_better": higher})
    return made.model_copy(update={"measured": (first,)})
