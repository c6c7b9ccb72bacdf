"""Pages over a store of a test's own, asked in process."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from fastapi.testclient import TestClient
from httpx import Response

from ratchet.records.accounts import Account, AuditEntry, PageRole
from ratchet.settings import Settings, load_settings
from ratchet.store import EventStore
from ratchet.web.accounts import hash_password, new_account
from ratchet.web.app import create_pages
from ratchet.web.options import PagesOptions

PASSWORD = "correct horse battery"
_TOKEN = re.compile(r'name="token" value="([0-9a-f]{64})"')
_HEADER = re.compile(r'"X-Ratchet-Token": "([0-9a-f]{64})"')
QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


class Clock:
    """A time that a test moves on."""

    def __init__(self) -> None:
        self.now = datetime(2026, 12, 1, 9, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, **span: float) -> None:
        self.now += timedelta(**span)


@dataclass
class Site:
    """The pages of a store, and browsers that ask them."""

    settings: Settings
    store: EventStore
    clock: Clock
    stack: ExitStack
    options: PagesOptions = field(default_factory=PagesOptions)
    app: Any = None

    def browser(self, address: str = "127.0.0.1") -> Browser:
        """A browser without cookies."""
        if self.app is None:
            self.app = create_pages(
                self.settings, self.store, self.options, clock=self.clock, hasher=QUICK
            )
        client = TestClient(
            self.app,
            base_url="http://127.0.0.1:8100",
            client=(address, 5000),
            follow_redirects=False,
            raise_server_exceptions=False,
        )
        return Browser(self.stack.enter_context(client))

    def account(self, name: str, role: PageRole, password: str = PASSWORD) -> Account:
        """An account with a password."""
        hashed = hash_password(password, QUICK)
        made = new_account(name, role, now=self.clock.now, password_hash=hashed)
        self.store.add_account(made)
        return made

    def signed_in(self, role: PageRole, name: str | None = None) -> Browser:
        """A browser in which somebody with a role is signed in."""
        self.account(name or role, role)
        browser = self.browser()
        assert browser.log_in(name or role).status_code == 303
        return browser

    def audit(self) -> list[tuple[str, str, str]]:
        """Who did which action, and its outcome."""
        return [(one.by, one.action, one.outcome) for one in self.store.records(AuditEntry)]


@dataclass
class Browser:
    """What a person's browser does: it keeps cookies, and sends a form's token with it."""

    client: TestClient
    token: str = ""

    def get(self, path: str, **options: Any) -> Response:
        answer = self.client.get(path, **options)
        found = _TOKEN.search(answer.text) or _HEADER.search(answer.text)
        self.token = found[1] if found else self.token
        return answer

    def post(self, path: str, **fields: str) -> Response:
        return self.client.post(path, data={"token": self.token} | fields)

    def log_in(self, name: str, password: str = PASSWORD, **fields: str) -> Response:
        self.get("/log-in")
        answer = self.post("/log-in", name=name, password=password, **fields)
        if answer.status_code == 303:
            self.get("/you")
        return answer


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an empty store, made once: to migrate one takes longer than most tests."""
    path = tmp_path_factory.mktemp("empty") / "store.db"
    EventStore.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def site(tmp_path: Path, clock: Clock, empty: Path) -> Iterator[Site]:
    settings = load_settings({"RATCHET_HOME": str(tmp_path / "home")}, tmp_path)
    settings.make_home()
    shutil.copy(empty, settings.home / "store.db")
    store = EventStore.open(settings.store_url, clock=clock)
    with ExitStack() as stack:
        yield Site(settings, store, clock, stack)
    store.close()


@pytest.fixture
def served(site: Site) -> Callable[..., Site]:
    """Set the options of the pages."""

    def told(**options: Any) -> Site:
        site.options = PagesOptions.model_validate(options)
        return site

    return told
