"""Pictures of every page of a home in which much goes on, to look at, and those of the docs.

    python -m tests.browser.pictures FOLDER          every page: wide and narrow, light and dark
    python -m tests.browser.pictures --docs          docs/pages/*.webp, which docs/pages.md shows

The home is the same every time: its clock stands still and its traffic is drawn from a seed.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import uvicorn

from ratchet.settings import load_settings
from ratchet.store import EventStore
from ratchet.tracking import Tracker
from tests.browser.conftest import FLAGS, browser_place
from tests.web.conftest import PASSWORD, Clock, Site
from tests.web.filled import OLD, fill
from tests.web.lively import gate_run, rolled, to_review, watched

ROOT = Path(__file__).parents[2]
SIZES = {"wide": (1440, 1000), "narrow": (390, 844)}
SCHEMES = ("light", "dark")
PAGES = {
    "overview": "/", "alerts": "/alerts", "alert": "/alerts/al-1", "charts": "/charts",
    "chart": "/charts/regenerate_rate", "chart-by-version": "/charts/thumbs_down_rate?by=version",
    "board": f"/boards/{OLD}", "signals": "/signals", "review": "/review",
    "agreement": "/review/agreement", "decisions": "/decisions", "decision": "/decisions/d-2",
    "examples": "/decisions/d-2/examples?side=won", "rollouts": "/rollouts",
    "rollout": "/rollouts/ro-1", "rollback": "/rollback", "start-cycle": "/cycle/start",
    "version": "/versions/support-router/2", "training-set": "/training-sets/t-1",
    "cluster": "/clusters/c-parcel", "run": "/runs/cycle-1:deploy:d-2", "users": "/users",
    "audit": "/audit", "accounts": "/accounts", "you": "/you", "log-in": "/log-in",
    "missing": "/alerts/nothing",
}  # fmt: skip
"""Each page by the name of its picture. The page of a user is behind a form, and taken as well."""
OF_DOCS = {
    "overview": ("overview", 0), "chart": ("chart", 0), "review": ("review", 0),
    "decision": ("decision", 0), "cluster": ("cluster", 0),
}  # fmt: skip
MOST_BYTES = 150_000
_SETTLED = """
!document.querySelector("main [role=status]:not(.news)") && [...document.images].every(
  (image) => { image.loading = "eager"; return image.complete; })
"""


@contextmanager
def lively_site(folder: Path) -> Iterator[tuple[Site, str]]:
    """A home in which much goes on, and the address at which its pages are served."""
    settings = load_settings({"RATCHET_HOME": str(folder / "home")}, folder)
    settings.make_home()
    clock = Clock()
    store = EventStore.open(settings.store_url, clock=clock)
    watched(store, clock.now)
    fill(store, clock.now)
    rolled(store, clock.now)
    to_review(store, clock.now)
    tracker = Tracker(
        settings.tracking_uri, artifacts=settings.artifacts, model_name=settings.model_name
    )
    gate_run(tracker, clock.now)
    with ExitStack() as stack:
        site = Site(settings, store, clock, stack)
        site.account("ada", "admin")
        site.browser()
        yield site, stack.enter_context(served(site))
    store.close()


@contextmanager
def served(site: Site) -> Iterator[str]:
    """Serve a site on a free port of loopback."""
    server = uvicorn.Server(
        uvicorn.Config(site.app, host="127.0.0.1", port=0, log_config=None, proxy_headers=False)
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


def settle(page: Any) -> None:
    """Wait until what a page has made in the background is there, pictures too."""
    for _ in range(600):
        if page.evaluate(_SETTLED):
            return
        time.sleep(0.1)
    raise AssertionError(f"{page.url} is not ready after a minute")


def log_in(page: Any, address: str) -> None:
    """Sign in as the admin of the home."""
    page.goto(f"{address}/log-in")
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{address}/")


def open_user(page: Any, address: str) -> None:
    """Open the page of a user, which is behind a form."""
    page.goto(f"{address}/users")
    page.get_by_label("User’s id").fill("user-7")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="User user-7").wait_for()


def take_all(chromium: Any, address: str, folder: Path) -> None:
    """Take every page in both sizes and both schemes, each as long as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    for size, (width, height) in SIZES.items():
        for scheme in SCHEMES:
            context = chromium.new_context(
                viewport={"width": width, "height": height}, color_scheme=scheme
            )
            page = context.new_page()
            log_in(page, address)
            for name, path in PAGES.items():
                page.goto(f"{address}{path}")
                settle(page)
                page.screenshot(path=str(folder / f"{name}-{size}-{scheme}.png"), full_page=True)
            open_user(page, address)
            page.screenshot(path=str(folder / f"user-{size}-{scheme}.png"), full_page=True)
            context.close()


def take_of_docs(chromium: Any, address: str, folder: Path) -> None:
    """Write the pictures of the docs, each below its limit of bytes."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    context = chromium.new_context(viewport={"width": 1200, "height": 860}, color_scheme="light")
    page = context.new_page()
    log_in(page, address)
    for name, (place, scrolled) in OF_DOCS.items():
        page.goto(f"{address}{PAGES[place]}")
        settle(page)
        page.mouse.wheel(0, scrolled)
        taken = Image.open(io.BytesIO(page.screenshot()))
        path = folder / f"{name}.webp"
        taken.save(path, "webp", quality=82, method=6)
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise SystemExit(f"{path} must have at most {MOST_BYTES} bytes, got {size}")
    context.close()


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="where pictures of every page go")
    parser.add_argument("--docs", action="store_true", help="write those of the docs")
    told = parser.parse_args()
    if not told.docs and told.folder is None:
        parser.error("name a folder, or pass --docs")
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory(prefix="ratchet-pictures-") as made, ExitStack() as stack:
        _, address = stack.enter_context(lively_site(Path(made)))
        play = stack.enter_context(sync_playwright())
        chromium = play.chromium.launch(executable_path=browser_place(), args=[*FLAGS])
        stack.callback(chromium.close)
        if told.folder is not None:
            take_all(chromium, address, told.folder)
        if told.docs:
            take_of_docs(chromium, address, ROOT / "docs" / "pages")


if __name__ == "__main__":
    main()
