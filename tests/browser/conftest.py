"""A Chromium of the system, or the reason why there is none, and pages to open in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.conftest import gateway, mock, serve, settings

__all__ = ["gateway", "mock", "serve", "settings"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-features=LocalNetworkAccessChecks",  # a page and a gateway of this machine
)


def browser_place() -> str | None:
    """Where a Chromium is, None where there is none."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser, started once a module: while Playwright runs, `asyncio.run` is refused."""
    place = browser_place()
    if place is None:
        pytest.skip("needs Chromium, see CONTRIBUTING.md (Debian and Ubuntu: apt install chromium)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.skip("needs the package playwright, which is not installed")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=place, args=[*FLAGS])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Open a page's text from a file; at the end, nothing was requested and no script failed."""
    contexts, requests, complaints = [], [], []

    def opened(text: str, *, fragment: str = "", **options: Any) -> Any:
        file = tmp_path / f"page-{len(contexts)}.html"
        file.write_text(text, "utf-8")
        context = chromium.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        context.set_offline(True)
        context.route("**/*", lambda route: _only(file, route, requests))
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(file.as_uri() + fragment)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert requests == []
    assert complaints == []


def _only(file: Path, route: Any, requests: list[str]) -> None:
    if route.request.url.partition("#")[0] == file.as_uri():
        route.continue_()
    else:
        requests.append(route.request.url)
        route.abort()


@pytest.fixture
def shot(tmp_path: Path) -> Any:
    """Take a screenshot where RATCHET_SCREENSHOTS names a folder."""
    folder = os.environ.get("RATCHET_SCREENSHOTS")

    def take(page: Any, name: str) -> None:
        if folder:
            page.screenshot(path=str(Path(folder) / f"{name}.png"))

    return take
