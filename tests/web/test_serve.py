"""The pages as a process of their own, and the command that keeps accounts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from ratchet.cli.start import pages_lines
from ratchet.errors import RatchetError
from ratchet.records.accounts import AuditEntry
from ratchet.servers import Servers, free_port, pages_file, running_pages
from ratchet.settings import load_settings
from ratchet.store import EventStore
from ratchet.web.accounts import invited
from tests.cli.in_process import run_in_process


def test_the_pages_are_served_beside_others_and_tell_the_first_admin_the_link(tmp_path):
    settings = load_settings({"RATCHET_HOME": str(tmp_path / "home")}, tmp_path)
    servers = Servers(settings=settings, say=lambda _: None)
    try:
        said = servers.start_pages(port=free_port(18_100), environ=os.environ)
        address = said["address"]
        assert httpx.get(f"{address}/health").text.startswith("ratchet pages")
        assert httpx.get(said["first_admin"]).status_code == 200
        assert said["first_admin"] in "\n".join(pages_lines(said))
        assert pages_file(settings).stat().st_mode & 0o077 == 0
        assert running_pages(settings) == said
    finally:
        servers.stop()
    assert running_pages(settings) == {}


def test_pages_that_do_not_come_up_say_why(tmp_path):
    (tmp_path / "pages.yaml").write_text("newcomers: owner\n", "utf-8")
    environ = {"RATCHET_HOME": "home", "RATCHET_PAGES": "pages.yaml"}
    servers = Servers(settings=load_settings(environ, tmp_path), say=lambda _: None)
    try:
        with pytest.raises(RatchetError, match="newcomers"):
            servers.start_pages(port=free_port(18_200), environ=os.environ)
    finally:
        servers.stop()


def test_accounts_are_kept_by_the_command(tmp_path: Path):
    home = {"RATCHET_HOME": str(tmp_path / "home")}

    def run(*arguments: str):
        return run_in_process("accounts", *arguments, folder=tmp_path, environment=home)

    added = run("add", "Ada", "--role", "admin", "--by", "root")
    path = added.stdout.strip().splitlines()[-1]
    assert urlsplit(path).path.startswith("/welcome/")
    store = EventStore.open(f"sqlite:///{tmp_path / 'home' / 'store.db'}")
    is_good, account = invited(store, path.rpartition("/")[2], now=store.accounts()[0].created_at)
    assert (is_good, account.name) == (True, "Ada")
    assert run("add", "ada").returncode == 2
    assert "last admin" in run("disable", "ada").stderr
    assert run("add", "bob", "--role", "boss").returncode == 2
    run("add", "bob", "--role", "admin")
    run("role", "ada", "viewer", "--note", "no longer on call")
    assert run("disable", "ADA", "--note", "left").returncode == 0
    assert run("invite", "ada").returncode == 2
    run("enable", "ada")
    listed = json.loads(run("list", "--json").stdout)
    assert [(one["name"], one["role"], one["disabled"]) for one in listed] == [
        ("Ada", "viewer", False), ("bob", "admin", False),
    ]  # fmt: skip
    assert all("password_hash" not in one for one in listed)
    actions = [(one.by, one.action) for one in store.records(AuditEntry)]
    assert actions[0] == ("root", "add account")
    assert [action for _, action in actions] == [
        "add account", "add account", "change role", "disable account", "enable account",
    ]  # fmt: skip
    store.close()
