"""The pages of review: the next item, what it hides, and what a reviewer does with it."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from ratchet.records import Interaction, Message, ReviewItem
from ratchet.review.agreement import agreement_on
from ratchet.store.review_labels import human_labels

if TYPE_CHECKING:
    from tests.web.conftest import Browser, Site

HOSTILE = "<script>document.title='owned'</script>\x1b[2J"
HX = {"hx-request": "true"}
SECRETS = ("hidden-model", "hidden-judge", "ada-first", "my note")
ITEM = re.compile(r'data-item="([^"]+)"')


def queued(site: Site, count: int, *, people: int = 2, answer: str = "On its way.") -> None:
    now = site.clock.now
    site.store.add_interactions(
        [
            Interaction(
                id=f"i-{number}", session_id=f"s-{number}", user_id="u", created_at=now,
                model_version="hidden-model/7", response=answer,
                messages=(Message(role="user", content=f"Where is card {number}?"),),
            )
            for number in range(count)
        ]
    )  # fmt: skip
    for number in range(count):
        item = ReviewItem(
            id=f"item-{number}", created_at=now + timedelta(seconds=number),
            interaction_id=f"i-{number}", dimension="helpfulness", priority="normal",
            raised_by="low_confidence", why="hidden-judge is unsure", queue="low_confidence",
            people=people,
        )  # fmt: skip
        site.store.append(item)


def computed(browser: Browser) -> str:
    """The page of agreement, once its figures are those of all labels."""
    for _ in range(600):
        text = browser.get("/review/agreement?dimension=helpfulness").text
        if "being computed" not in text:
            return text
        time.sleep(0.05)
    raise AssertionError("agreement was not computed")


def shown(browser: Browser, path: str = "/review") -> str | None:
    found = ITEM.search(browser.get(path).text)
    return found[1] if found else None


def test_a_decision_answers_with_the_next_item(site: Site) -> None:
    queued(site, 2)
    ada = site.signed_in("reviewer", "ada")
    assert shown(ada) == "item-0"
    fields = {"token": ada.token, "item": "item-0", "label": "4"}
    answer = ada.client.post("/review/decide", data=fields, headers=HX)
    assert answer.status_code == 200
    assert ITEM.findall(answer.text) == ["item-1"]
    assert "<html" not in answer.text


def test_a_browser_without_scripts_is_led_to_the_next_item(site: Site) -> None:
    queued(site, 2)
    ada = site.signed_in("reviewer", "ada")
    ada.get("/review?queue=low_confidence")
    answer = ada.post("/review/decide", item="item-0", label="4", queue="low_confidence")
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        "/review?queue=low_confidence",
    )


def test_a_page_names_no_model_no_judge_and_no_other_reviewer(site: Site) -> None:
    queued(site, 1)
    ada, bob = site.signed_in("reviewer", "ada-first"), site.signed_in("reviewer", "bob")
    ada.get("/review")
    assert ada.post("/review/decide", item="item-0", label="2", note="my note").status_code == 303
    text = bob.get("/review").text
    assert 'data-item="item-0"' in text
    assert not any(word in text for word in SECRETS)


def test_who_is_no_reviewer_sees_and_decides_nothing(site: Site) -> None:
    queued(site, 1)
    viewer = site.signed_in("viewer", "vi")
    assert viewer.get("/review").status_code == 403
    assert viewer.post("/review/decide", item="item-0", label="4").status_code == 403
    assert ("vi", "refused", "refused") in site.audit()
    assert site.browser().get("/review").status_code == 303


def test_a_wrong_label_is_explained_and_nothing_is_stored(site: Site) -> None:
    queued(site, 1, people=1)
    ada = site.signed_in("reviewer", "ada")
    ada.get("/review")
    answer = ada.post("/review/decide", item="item-0", label="splendid")
    assert answer.status_code == 422
    assert "is decided as 1, 2, 3, 4, 5" in answer.text
    assert human_labels(site.store, "helpfulness") == ()


def test_an_item_is_passed_on_and_a_decision_taken_back(site: Site) -> None:
    queued(site, 2, people=1)
    ada = site.signed_in("reviewer", "ada")
    ada.get("/review")
    assert ada.post("/review/skip", item="item-0", reason="").status_code == 422
    assert ada.post("/review/skip", item="item-0", reason="in Finnish").status_code == 303
    assert shown(ada) == "item-1"
    ada.post("/review/decide", item="item-1", label="4")
    assert "Nothing waits for you" in ada.get("/review").text
    assert ada.post("/review/undo").status_code == 303
    assert shown(ada) == "item-1"
    assert human_labels(site.store, "helpfulness") == ()


def test_people_who_disagree_are_decided_between_by_a_third(site: Site) -> None:
    queued(site, 1)
    for name, label in (("ada", "2"), ("bob", "4")):
        browser = site.signed_in("reviewer", name)
        browser.get("/review")
        browser.post("/review/decide", item="item-0", label=label)
    cy = site.signed_in("reviewer", "cy")
    assert shown(cy) is None
    text = cy.get("/review?adjudicate=1").text
    assert "People said: 2, 4" in text
    assert "bob" not in text
    cy.post("/review/decide", item="item-0", label="4", adjudicate="1")
    assert [one.label for one in human_labels(site.store, "helpfulness")] == ["2", "4", "4"]


def test_the_page_of_agreement_shows_the_numbers_of_the_library(site: Site) -> None:
    queued(site, 6)
    for name, labels in (("ada", "224444"), ("bob", "224442")):
        browser = site.signed_in("reviewer", name)
        for number, label in enumerate(labels):
            browser.get("/review")
            browser.post("/review/decide", item=f"item-{number}", label=label)
    report = agreement_on(site.store, "helpfulness", categories=list("12345"), ordered=True)
    text = computed(browser)
    assert report.pairs[0].kappa.value is not None
    assert report.alpha.value is not None
    assert f"{report.pairs[0].kappa.value:.3f}" in text
    assert f'<dd id="alpha">{report.alpha.value:.3f}' in text
    browser.get("/review")
    browser.post("/review/undo")
    assert "The latest 11 labels, 5 items" in computed(browser)  # without what was taken back


def test_hostile_texts_run_no_script(site: Site) -> None:
    queued(site, 1, answer=HOSTILE)
    ada = site.signed_in("reviewer", "ada")
    text = ada.get("/review").text
    assert "<script>document" not in text
    assert "\x1b" not in text


GUIDELINES = """# Helpful

The user could *use* it, see [the manual](https://manual.example/a?b=1&c).

| label | when |
|---|---|
| 5 | it is done |

<script>document.title='owned'</script> [run](javascript:alert(1)) ![picture](https://a.example/x)
"""


def test_guidelines_stand_beside_the_item_as_markdown_that_runs_nothing(site: Site) -> None:
    folder = site.settings.home
    (folder / "helpful.md").write_text(GUIDELINES + "\x1b[2J", "utf-8")
    (folder / "review.yaml").write_text(
        "dimensions:\n  - {name: helpfulness, guidelines: helpful.md}\n", "utf-8"
    )
    site.settings = site.settings.model_copy(update={"review": folder / "review.yaml"})
    queued(site, 1)
    ada = site.signed_in("reviewer", "ada")
    text = ada.get("/review").text
    assert "<h3>Helpful</h3>" in text  # below the heading of the section
    assert "The user could <em>use</em> it" in text
    assert '<a href="https://manual.example/a?b=1&amp;c" rel="noopener noreferrer">' in text
    assert "<td>it is done</td>" in text
    assert "&lt;script&gt;document" in text
    assert not any(
        bad in text for bad in ("<script>document", 'href="javascript', "\x1b", '<img src="https')
    )
    (folder / "helpful.md").write_text("Changed *since*", "utf-8")
    assert "Changed <em>since</em>" in ada.get("/review").text
