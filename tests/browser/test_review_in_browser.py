"""Two reviewers in a real Chromium: by the keyboard alone, blind, and nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest
import uvicorn

from ratchet.review.agreement import agreement_on
from ratchet.stats.agreement import cohen_kappa
from ratchet.store.review_labels import ratings_on
from ratchet.web.app import create_pages
from tests.web.conftest import PASSWORD, QUICK, Site, clock, empty, site
from tests.web.test_review import queued

__all__ = ["clock", "empty", "site"]

ITEMS, MENU = 40, list("12345")


@contextmanager
def serving(site: Site) -> Iterator[str]:
    """The pages in a process-like server of their own on a free port of loopback."""
    app = create_pages(site.settings, site.store, site.options, clock=site.clock, hasher=QUICK)
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, proxy_headers=False)
    )
    thread = Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def window(chromium: Any) -> Iterator[Callable[[], Any]]:
    contexts, complaints = [], []

    def make(**options: Any) -> Any:
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        return page

    yield make
    for context in contexts:
        context.close()
    assert complaints == []


def log_in(page: Any, address: str, name: str) -> None:
    page.goto(f"{address}/review")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{address}/review")
    page.wait_for_load_state("load")


def until_next(page: Any, before: str | None) -> None:
    page.wait_for_function(
        "before => document.getElementById('work').dataset.item !== before", arg=before
    )


def label_by_key(page: Any, labels: str) -> None:
    for label in labels:
        before = page.locator("#work").get_attribute("data-item")
        page.keyboard.press(label)
        until_next(page, before)


def label_by_mouse(page: Any, labels: str) -> None:
    for label in labels:
        before = page.locator("#work").get_attribute("data-item")
        page.locator(f"button[name=label][value='{label}']").click()
        until_next(page, before)


def test_two_reviewers_label_the_same_items_and_agree_as_the_library_says(
    site: Site, window: Callable[..., Any]
) -> None:
    queued(site, ITEMS)
    for name in ("ada", "bob"):
        site.account(name, "reviewer")
    by_ada = "".join(MENU[(3 * n) % 5] for n in range(ITEMS))
    by_bob = "".join(label if n % 4 else "3" for n, label in enumerate(by_ada))
    with serving(site) as address:
        ada, bob = window(), window()
        log_in(ada, address, "ada")
        log_in(bob, address, "bob")
        assert ada.locator("#work").get_attribute("data-item") == "item-0"
        label_by_key(ada, by_ada[:20])
        assert "ada" not in bob.locator("main").inner_text()
        label_by_mouse(bob, by_bob[:20])
    # the server is gone; a new one goes on with the item that each of them had
    with serving(site) as address:
        ada.goto(f"{address}/review")
        if "/log-in" in ada.url:
            log_in(ada, address, "ada")
        assert ada.locator("#work").get_attribute("data-item") == "item-20"
        label_by_key(ada, by_ada[20:])
        assert "Nothing waits for you" in ada.locator("main").inner_text()
        bob.goto(f"{address}/review")
        if "/log-in" in bob.url:
            log_in(bob, address, "bob")
        text = bob.locator("main").inner_text()
        assert not any(word in text for word in ("ada", "hidden-model", "hidden-judge"))
        label_by_mouse(bob, by_bob[20:])
        bob.goto(f"{address}/review/agreement?dimension=helpfulness")
        bob.locator("#figure:not([hx-get]) td.kappa").wait_for(timeout=60_000)
        kappa = cohen_kappa(list(by_ada), list(by_bob), categories=MENU).value
        assert kappa is not None
        assert f"{kappa:.3f}" in bob.locator("td.kappa").inner_text()
    said = ratings_on(site.store, "helpfulness")
    assert len(said) == 2 * ITEMS
    (pair,) = agreement_on(site.store, "helpfulness", categories=MENU).pairs
    assert pair.kappa == cohen_kappa(list(by_ada), list(by_bob), categories=MENU)


def test_an_item_is_noted_passed_on_and_taken_back_by_the_keyboard_alone(
    site: Site, window: Callable[..., Any]
) -> None:
    queued(site, 3, people=1)
    site.account("ada", "reviewer")
    with serving(site) as address:
        page = window(viewport={"width": 390, "height": 800}, color_scheme="dark")
        log_in(page, address, "ada")
        page.keyboard.press("s")
        page.keyboard.type("in Finnish, 1 2 3 label nothing")
        page.keyboard.press("Enter")
        page.locator("[data-item='item-1']").wait_for()
        page.keyboard.press("n")
        page.keyboard.type("a good one")
        page.keyboard.press("Escape")
        page.keyboard.press("5")
        page.locator("[data-item='item-2']").wait_for()
        page.keyboard.press("u")
        page.locator("[data-item='item-1']").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert ratings_on(site.store, "helpfulness") == []
