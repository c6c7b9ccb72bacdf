"""The pages for people in a real Chromium: log-in, keys, accessibility, hostile strings, looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

import pytest
import uvicorn

from ratchet.store import EventStore
from ratchet.store.erasure import interactions_of
from ratchet.web.accounts import invite
from tests.browser import pictures
from tests.browser.hostile import HOSTILE
from tests.browser.pictures import PAGES, SCHEMES, SIZES, lively_site
from tests.web.conftest import PASSWORD, Site, clock, empty, site
from tests.web.filled import alert, fill, roll_out

__all__ = ["clock", "empty", "site"]

Axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="needs axe-playwright-python"
).Axe
PATHS = (
    "/", "/alerts", "/alerts/al-1", "/decisions", "/decisions/d-2", "/rollouts", "/rollouts/ro-1",
    "/rollback", "/cycle/start", "/versions/support-router/2", "/training-sets/t-1",
    "/clusters/c-parcel", "/charts", "/charts/thumbs_down_rate?by=version", "/signals", "/users",
    "/boards/support-router/1", "/decisions/d-2/examples", "/runs/cycle-1:analyze", "/review",
    "/review/agreement", "/audit", "/accounts", "/you",
    "/runbooks", "/runbooks/board", "/weekly/2026-W48",
)  # fmt: skip


@pytest.fixture
def address(site: Site) -> Iterator[str]:
    """The pages of a home in which much goes on, served on a free port of loopback."""
    fill(site.store, site.clock.now)
    roll_out(site.store, site.clock.now)
    site.browser()
    server = uvicorn.Server(
        uvicorn.Config(site.app, host="127.0.0.1", port=0, log_config=None, proxy_headers=False)
    )
    thread = Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def opened(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Open a window; at the end no script failed and the policy refused nothing.

    What the browser may say besides, e.g. of a server that was killed, is named in `allowed`.
    """
    contexts, complaints = [], []

    def make(*, allowed: tuple[str, ...] = (), **options: Any) -> Any:
        def hear(text: str) -> None:
            if not any(one in text for one in ("status of 4", *allowed)):
                complaints.append(text)

        context = chromium.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: hear(str(error)))
        page.on("console", lambda message: hear(message.text))
        page.on("dialog", lambda dialog: hear(dialog.message))
        return page

    yield make
    for context in contexts:
        context.close()
    assert complaints == []


def violations(page: Any) -> list[str]:
    """Return what axe finds on a page, a line each."""
    found = Axe().run(page).response["violations"]
    return [
        f"{page.url}: {one['id']}: {node['html'][:200]} {node['failureSummary'][:200]}"
        for one in found
        for node in one["nodes"]
    ]


def log_in(page: Any, address: str, name: str, path: str = "/") -> None:
    page.goto(f"{address}{path}")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{address}{path}")


def test_the_first_admin_comes_by_the_link_and_everybody_signs_in_from_then_on(
    site, address, opened
):
    page = opened()
    page.goto(f"{address}/welcome/{invite(site.store, None, now=site.clock.now)}")
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_label("The same again").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{address}/")
    assert page.locator(".who").inner_text().startswith("ada")
    other = opened()
    other.goto(f"{address}/alerts")
    assert "/log-in" in other.url
    assert violations(other) == []
    log_in(other, address, "ada", "/alerts")


def test_an_alert_is_looked_after_by_the_keyboard_alone(site, address, opened):
    site.account("eve", "engineer")
    page = opened()
    log_in(page, address, "eve")
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("a")
    page.wait_for_url(f"{address}/alerts")
    page.goto(f"{address}/alerts/al-1")
    page.keyboard.press("k")
    page.keyboard.type("I look after it, g a does not leave")
    page.keyboard.press("Enter")
    page.get_by_text("acknowledged by eve").first.wait_for()
    assert page.url == f"{address}/alerts/al-1"
    assert site.audit()[-1] == ("eve", "acknowledge", "done")


@pytest.mark.mostly_slow("390-dark")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_every_page_is_accessible_and_fits_its_window(site, address, opened, shot, width, scheme):
    site.account("ada", "admin")
    page = opened(viewport={"width": width, "height": 900}, color_scheme=scheme)
    log_in(page, address, "ada")
    found = []
    for path in PATHS:
        assert page.goto(f"{address}{path}").status == 200
        found += violations(page)
        found += too_wide(page, width)
        name = path.partition("?")[0].strip("/").replace("/", "-") or "overview"
        shot(page, f"pages-{name}-{width}-{scheme}")
    assert found == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", SIZES)
def test_every_page_of_a_home_in_which_much_goes_on_is_accessible(tmp_path, opened, size, scheme):
    width, height = SIZES[size]
    found = []
    with lively_site(tmp_path) as (_, address):
        page = opened(viewport={"width": width, "height": height}, color_scheme=scheme)
        pictures.log_in(page, address)
        for path in PAGES.values():
            page.goto(f"{address}{path}")
            pictures.settle(page)
            found += [*violations(page), *too_wide(page, width)]
        pictures.open_user(page, address)
        found += [*violations(page), *too_wide(page, width)]
        page.close()
    assert found == []


@pytest.mark.slow
def test_a_user_is_forgotten_by_the_form_and_the_address_never_names_them(tmp_path, opened):
    with lively_site(tmp_path) as (site, address):
        page, addresses = opened(), []
        page.on("request", lambda request: addresses.append(request.url))
        pictures.log_in(page, address)
        pictures.open_user(page, address)
        page.get_by_text("Forget this user").click()
        page.get_by_label("The id once more").fill("user-7")
        page.get_by_label("Reason").fill("request 31")
        page.get_by_role("button", name="Forget for good").click()
        page.get_by_role("heading", name="The user is forgotten").wait_for(timeout=60_000)
        assert not [one for one in addresses if "user-7" in one]
        assert interactions_of(site.store, "user-7") == ()
        page.close()


def too_wide(page: Any, width: int) -> list[str]:
    """Say that a page is wider than its window, where it is."""
    wide = page.evaluate("document.documentElement.scrollWidth")
    return [f"{page.url} is {wide} wide"] if wide > width else []


def test_hostile_strings_are_shown_and_run_nothing(site, address, opened):
    texts = [text for text in HOSTILE if text.strip() and "\x00" not in text and len(text) < 300]
    store: EventStore = site.store
    for number, text in enumerate(texts[:120]):
        clean = text.encode("utf-8", "replace").decode()
        store.append(
            alert(f"h-{number}", site.clock.now, message=clean, action=clean, certainty=clean)
        )
    page = opened()
    page.goto(f"{address}/alerts")
    assert page.locator("main tbody tr").count() == 121
    assert page.locator("main script").count() == 0
    place = texts.index("<script>alert(1)</script>")
    page.goto(f"{address}/alerts/h-{place}")
    assert page.locator("h1").inner_text() == "<script>alert(1)</script>"


def test_a_page_of_another_site_cannot_act_in_the_name_of_who_is_signed_in(site, address, opened):
    site.account("eve", "engineer")
    page = opened()
    log_in(page, address, "eve")
    page.set_content(
        f'<form method="post" action="{address}/alerts/al-1/resolve">'
        '<input name="reason" value="forged"><button>go</button></form>'
    )
    page.get_by_text("go").click()
    page.wait_for_load_state()
    assert [entry[1] for entry in site.audit()] == ["log-in"]
