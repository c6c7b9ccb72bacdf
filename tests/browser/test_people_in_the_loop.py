"""Pages in a process of their own, real browsers: what people say and do there holds.

The pages are killed while people label; gateways and Prefect are processes as in production.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from ratchet.deploy.promotion import establish_champion
from ratchet.deploy.routing import serving_champion
from ratchet.records import Approval, Release, ReviewItem
from ratchet.review.agreement import agreement_on
from ratchet.servers import Servers
from ratchet.settings import Settings, load_settings
from ratchet.stats.agreement import cohen_kappa, krippendorff_alpha
from ratchet.store import EventStore
from ratchet.store.review_labels import human_labels, ratings_on
from ratchet.tracking import Tracker
from ratchet.web.accounts import hash_password, new_account
from tests.browser.hostile import HOSTILE
from tests.browser.test_pages_in_browser import opened, violations
from tests.flows.conftest import served_once
from tests.flows.prefect_home import new_home
from tests.gateway.killing import free_port, gateway
from tests.judges.test_on_store import NOON, ROUTING, Scripted, interaction, is_good
from tests.review.test_corrections import RIGHT, candidates, rows, talk
from tests.servers.vllm_server import VllmServer
from tests.web.conftest import PASSWORD
from tests.web.filled import decision

__all__ = ["opened", "served_once"]
pytestmark = pytest.mark.slow  # each starts processes of its own

ITEMS = 40
MENU = [option.name for option in ROUTING.options]
SECRETS = ("ada", "hidden-model", "hidden-judge", "a private note")
MOST_MS = 300.0
FOLLOWED_SECONDS = 5.0
"""Within so long every process of every gateway sends users to the version before."""
POLICY = f"""
people: 2
dimensions:
  - name: {ROUTING.name}
    question: {ROUTING.question}
    guidelines: routing.md
    labels: [{", ".join(MENU)}]
  - {{name: correction, people: 1}}
"""
SHOWN = """() => {
    window.took = [];
    let pressed = null;
    const item = () => document.getElementById("work")?.dataset.item;
    addEventListener("keydown", event => { pressed = [event.timeStamp, item()]; }, true);
    new MutationObserver(() => {
        if (!pressed || !document.getElementById("work") || item() === pressed[1]) return;
        const [at] = pressed, painted = new MessageChannel();
        pressed = null;
        painted.port1.onmessage = () => window.took.push(performance.now() - at);
        requestAnimationFrame(() => painted.port2.postMessage(0));
    }).observe(document.body, {childList: true, subtree: true});
}"""
"""Keeps how long each key took, from the press until another item was painted, in `took`."""


@dataclass
class Home:
    """A home with people, and its pages in a process that can be killed."""

    settings: Settings
    environ: dict[str, str]
    store: EventStore

    def people(self, **roles: Any) -> None:
        for name, role in roles.items():
            password = hash_password(PASSWORD)
            self.store.add_account(
                new_account(name, role, now=datetime.now(UTC), password_hash=password)
            )

    @contextmanager
    def pages(self, servers: Servers | None = None) -> Iterator[tuple[str, int]]:
        """Serve the pages; yield their address and process."""
        servers = servers or Servers(settings=self.settings, say=print)
        said = servers.start_pages(port=free_port(), environ=self.environ)
        try:
            yield said["address"], said["pid"]
        finally:
            servers.stop()


@pytest.fixture
def home(tmp_path: Path, made_store: Path, mlflow_database: Path) -> Iterator[Home]:
    folder = tmp_path / "home"
    (folder / "mlflow").mkdir(parents=True)
    shutil.copy(made_store, folder / "store.db")
    shutil.copy(mlflow_database, folder / "mlflow" / "mlflow.db")
    (folder / "review.yaml").write_text(POLICY, "utf-8")
    (folder / "routing.md").write_text(f"# Routing\n\n*Right* helps. {HOSTILE[0]}", "utf-8")
    ours = ("PREFECT_", "MLFLOW_", "RATCHET_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environ |= {"RATCHET_HOME": str(folder), "RATCHET_REVIEW": str(folder / "review.yaml")}
    store = EventStore.open(f"sqlite:///{folder / 'store.db'}")
    yield Home(load_settings(environ, tmp_path), environ, store)
    store.close()


def log_in(page: Any, address: str, name: str, path: str) -> None:
    """Sign in by the keyboard: the first field has the focus."""
    page.goto(f"{address}{path}")
    if "/log-in" in page.url:
        page.locator("input[name=name]:focus").wait_for()
        page.keyboard.type(name)
        page.keyboard.press("Tab")
        page.keyboard.type(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{address}{path}")
    page.wait_for_load_state("load")
    page.evaluate(SHOWN)


def shown(page: Any) -> str | None:
    found: str | None = page.locator("#work").get_attribute("data-item")
    return found


def until_next(page: Any, before: str | None) -> None:
    page.wait_for_function(
        "before => document.getElementById('work')?.dataset.item !== before", arg=before
    )


def label_by_key(page: Any, labels: list[str], note: str = "") -> None:
    """Label by the keyboard alone, with a note where one is given."""
    for label in labels:
        before = shown(page)
        if note:
            page.keyboard.press("n")
            page.keyboard.type(note)
            page.keyboard.press("Escape")
        page.keyboard.press(str(MENU.index(label) + 1))
        until_next(page, before)


def label_by_mouse(page: Any, labels: list[str]) -> None:
    for label in labels:
        before = shown(page)
        page.locator(f"button[name=label][value='{label}']").click()
        until_next(page, before)


def ask_about_routing(store: EventStore, items: int = ITEMS) -> list[str]:
    """Ask two people each about so many answers to hostile questions; return the truth."""
    hostile = [text for text in HOSTILE if text.strip() and "\x00" not in text and len(text) < 200]
    found = []
    for number in range(items):
        one = interaction(number, version="hidden-model/7")
        text = f"{one.messages[0].content} {hostile[number]}".encode("utf-8", "replace").decode()
        turn = one.messages[0].model_copy(update={"content": text})
        found.append(one.model_copy(update={"messages": (turn,)}))
    store.add_interactions(found)
    for number in range(items):
        store.append(
            ReviewItem(
                id=f"item-{number:02}", created_at=NOON, interaction_id=f"i{number:03}",
                dimension=ROUTING.name, priority="normal", raised_by="low_confidence",
                why="hidden-judge is unsure", queue="low_confidence", people=2,
            )
        )  # fmt: skip
    return ["right" if is_good(number) else "wrong" for number in range(items)]


def with_slips(truth: list[str], places: set[int]) -> list[str]:
    """Return labels of somebody who is wrong at some places."""
    other = dict(zip(MENU, reversed(MENU), strict=True))
    return [other[label] if place in places else label for place, label in enumerate(truth)]


def test_labels_of_two_people_survive_a_kill_and_lead_to_a_usable_judge_and_a_training_row(
    home: Home, opened: Callable[..., Any], tmp_path: Path
) -> None:
    truth = ask_about_routing(home.store)
    candidates(home.store, talk())
    home.people(ada="reviewer", bob="reviewer", cy="reviewer")
    by_ada, by_bob = with_slips(truth, {5, 17}), with_slips(truth, {3, 20, 33})
    path, seen = f"/review?dimension={ROUTING.name}", []
    gone = ("ERR_EMPTY_RESPONSE", "ERR_CONNECTION", "ERR_SOCKET", "htmx:")
    ada, bob = opened(allowed=gone), opened()

    with home.pages() as (address, pid):
        log_in(ada, address, "ada", path)
        log_in(bob, address, "bob", path)
        bob.on("response", lambda answer: seen.append(answer))
        label_by_key(ada, by_ada[:3], "a private note")
        label_by_key(ada, by_ada[3:20])
        assert violations(ada) == []
        for label in by_bob[:20]:
            label_by_mouse(bob, [label])
            seen[-1] = seen[-1].text()
        # killed with a label on its way: it is there or not, and none of before is lost
        ada.keyboard.press(str(MENU.index(by_ada[20]) + 1))
        os.kill(pid, signal.SIGKILL)
        # either the next item came in time, or the page says that the server is gone
        ada.wait_for_function(
            "before => document.getElementById('message').textContent.includes('did not answer')"
            " || document.getElementById('work').dataset.item !== before",
            arg="item-20",
        )

    kept = [one for one in ratings_on(home.store, ROUTING.name) if one.reviewer == "ada"]
    assert [one.label for one in kept][:20] == by_ada[:20]
    assert len(kept) in (20, 21)
    with home.pages() as (address, _pid):
        log_in(ada, address, "ada", path)
        assert shown(ada) == f"item-{len(kept):02}"
        label_by_key(ada, by_ada[len(kept) :])
        assert "Nothing waits for you" in ada.locator("main").inner_text()
        log_in(bob, address, "bob", path)
        for label in by_bob[20:]:
            label_by_mouse(bob, [label])
            seen[-1] = seen[-1].text()
        texts = [one for one in seen if isinstance(one, str)]
        assert len(texts) == ITEMS
        assert not [word for text in texts for word in SECRETS if word in text]

        bob.goto(f"{address}/review/agreement?dimension={ROUTING.name}")
        bob.locator("#figure:not([hx-get]) #alpha").wait_for(timeout=60_000)
        kappa = cohen_kappa(by_ada, by_bob, categories=MENU)
        alpha = krippendorff_alpha(
            [list(pair) for pair in zip(by_ada, by_bob, strict=True)],
            metric="nominal", categories=MENU,
        )  # fmt: skip
        assert f"{kappa.value:.3f}" in bob.locator("td.kappa").inner_text()
        assert bob.locator("#alpha").inner_text().startswith(f"{alpha.value:.3f} ")
        report = agreement_on(home.store, ROUTING.name, categories=MENU)
        assert (report.pairs[0].kappa, report.alpha.value) == (kappa, alpha.value)
        assert violations(bob) == []

        cy = opened()
        log_in(cy, address, "cy", "/review?adjudicate=1")
        assert "People said: right, wrong" in cy.locator("main").inner_text()
        assert violations(cy) == []
        label_by_key(cy, [truth[place] for place in (3, 5, 17, 20, 33)])
        settled = human_labels(home.store, ROUTING.name)
        assert len(settled) == 2 * ITEMS + 5

        log_in(cy, address, "cy", "/review?dimension=correction")
        before = shown(cy)
        assert before
        cy.keyboard.press("1")
        until_next(cy, before)

    judge = Scripted()
    assert judge.validated(home.store).record.decision == "usable"
    assert (judge.asked, judge.version) == (ITEMS, judge.judge.version)
    learnt = rows(home.store, "sft", tmp_path / "history")
    assert ("first", RIGHT) in [(row.interaction_id, row.target) for row in learnt]


def test_the_next_item_is_shown_within_300_ms_of_a_key(
    home: Home, opened: Callable[..., Any]
) -> None:
    """On a machine that does little else: how busy it was stands in the message."""
    truth = ask_about_routing(home.store, 65)
    home.people(ada="reviewer")
    page = opened()
    with home.pages() as (address, _pid):
        log_in(page, address, "ada", "/review")
        label_by_key(page, truth[:5])  # the first ones read files and compile queries
        page.evaluate("took.length = 0")
        label_by_key(page, truth[5:])
        page.wait_for_function("took.length === 60")
        took = sorted(page.evaluate("took"))
    said = f"{took[30]:.0f} ms, 95 %: {took[56]:.0f} ms; load {os.getloadavg()[0]:.1f}"
    print(said)
    assert took[56] <= MOST_MS, said


def test_a_promotion_approved_and_taken_back_by_buttons_holds_in_every_gateway(
    home: Home, opened: Callable[..., Any], tmp_path: Path
) -> None:
    settings, store = home.settings, home.store
    tracker = Tracker(
        settings.tracking_uri, artifacts=settings.artifacts, model_name=settings.model_name
    )
    base, made, other = (tracker.register_base(f"model-{key}", f"digest-{key}") for key in "abc")
    now = datetime.now(UTC)
    establish_champion(store, tracker, lambda: base, now)
    for key, version in (("d-2", made), ("d-3", other)):
        asked = {"champion": base.reference, "challenger": version.reference}
        store.append(decision(now, id=key, **asked))
    home.people(eve="engineer")
    page, ports, log = opened(), (free_port(), free_port()), tmp_path / "gateway.log"
    keys = {"RATCHET_STORE_URL": settings.store_url}
    with (
        VllmServer(base.reference, others=[made.reference]) as backend,
        gateway(settings.home, backend.url, ports[0], log, **keys),
        gateway(settings.home, backend.url, ports[1], log, **keys),
        home.pages() as (address, _pid),
    ):
        log_in(page, address, "eve", "/decisions/d-3")
        page.keyboard.press("x")
        page.keyboard.type("worse on refunds")
        page.keyboard.press("Enter")
        page.get_by_text("worse on refunds").wait_for(timeout=60_000)
        page.goto(f"{address}/decisions/d-2")
        page.keyboard.press("k")
        page.keyboard.type("read 20 answers")
        page.keyboard.press("Enter")
        page.get_by_text("read 20 answers").wait_for(timeout=60_000)
        said = {one.id: (one.approved, one.by, one.via) for one in store.records(Approval)}
        assert said == {"d-2": (True, "eve", "page"), "d-3": (False, "eve", "page")}
        assert serving_champion(store).version == made.reference
        until_routed(ports, made.reference, seconds=60.0)
        page.goto(f"{address}/rollouts")
        page.get_by_role("link", name="Roll back").click()
        assert violations(page) == []
        page.get_by_label("Reason").fill("wrong queue")
        page.get_by_role("button", name="Roll back").click()
        page.wait_for_url(f"{address}/rollouts")
        took = until_routed(ports, base.reference, seconds=FOLLOWED_SECONDS)
    release = store.latest(Release)
    assert release is not None
    assert (release.action, release.by, release.note) == ("rollback", "eve", "wrong queue")
    assert serving_champion(store).version == base.reference
    print(f"every gateway followed {took:.1f} s after the page said so")


def until_routed(ports: tuple[int, int], version: str, *, seconds: float) -> float:
    """Wait until every answer of both gateways is of a version; return how long it took."""
    begun = time.monotonic()
    body = {"model": "any", "messages": [{"role": "user", "content": "hello"}]}
    while True:
        found = set()
        for port in ports * 8:  # a connection each: the kernel hands it to any worker
            try:
                answer = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body)
                found.add(answer.headers.get("x-ratchet-version"))
            except httpx.TransportError:  # it is not up yet
                found.add(None)
        if found == {version}:
            return time.monotonic() - begun
        assert time.monotonic() - begun < seconds, f"{found}, not {version} alone"


def test_a_cycle_is_started_in_prefect_with_who_and_why(
    opened: Callable[..., Any], tmp_path: Path, served_once: Path
) -> None:
    prefect = new_home(tmp_path, served_once)
    home = Home(prefect.settings, prefect.environ, prefect.store)
    home.people(eve="engineer")
    page = opened()
    with prefect.serving():
        prefect.servers.register_deployments()
        with home.pages(prefect.servers) as (address, _pid):
            log_in(page, address, "eve", "/")
            page.get_by_role("link", name="Start a cycle").click()
            assert violations(page) == []
            page.get_by_label("Reason").fill("new labels <b>came</b>")
            page.get_by_role("button", name="Start").click()
            page.wait_for_url(f"{address}/")
            runs = httpx.post(f"{prefect.servers.prefect_api}/flow_runs/filter", json={}).json()
    (run,) = [one for one in runs if one["auto_scheduled"] is False]
    assert run["name"] == "started by eve", run
    assert run["state"]["message"] == "started by eve: new labels <b>came</b>"
    assert run["labels"]["ratchet.by"] == "eve"
    home.store.close()
