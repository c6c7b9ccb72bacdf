"""A store that is expected is the only one that is opened, and none is made in its place."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from ratchet.errors import SettingsError
from ratchet.operate.opening import check_expected, open_store
from ratchet.settings import load_settings
from ratchet.store import EventStore


def test_a_store_is_known_by_the_same_name_wherever_it_is_moved(
    empty_url: str, tmp_path: Path
) -> None:
    with closing(EventStore.open(empty_url)) as store:
        identity = store.identity
    with closing(EventStore.open(empty_url)) as store:
        assert store.identity == identity
    with closing(EventStore.open(f"sqlite:///{tmp_path / 'another.db'}")) as another:
        assert another.identity != identity
    if empty_url.startswith("sqlite"):
        shutil.copyfile(tmp_path / "store.db", tmp_path / "moved.db")
        with closing(EventStore.open(f"sqlite:///{tmp_path / 'moved.db'}")) as moved:
            assert moved.identity == identity


def test_another_store_than_the_expected_one_is_refused_and_nothing_is_made(
    empty_url: str, tmp_path: Path
) -> None:
    variables = {"RATCHET_HOME": str(tmp_path / "home"), "RATCHET_STORE_ID": "f" * 16}
    settings = load_settings(variables | {"RATCHET_STORE_URL": empty_url}, tmp_path)
    with pytest.raises(SettingsError, match=r"the store f{16}, got no store at .*; set RATCHET"):
        open_store(settings)
    assert not list(tmp_path.iterdir())
    assert EventStore.opened(empty_url) is None
    with closing(EventStore.open(empty_url, assistant="support-router")) as store:
        identity = store.identity
    with pytest.raises(SettingsError, match=rf"got the store {identity} at .*`ratchet up`"):
        check_expected(settings)
    with closing(open_store(settings.model_copy(update={"store_id": identity}))) as store:
        assert store.identity == identity


def test_a_password_is_not_in_what_is_said(tmp_path: Path, postgresql_url: str) -> None:
    url = sa.make_url(postgresql_url).set(username="postgres", password="open-sesame")
    variables = {
        "RATCHET_STORE_ID": "f" * 16,
        "RATCHET_STORE_URL": url.render_as_string(hide_password=False),
    }
    with pytest.raises(SettingsError, match=r"got no store at") as refused:
        check_expected(load_settings(variables, tmp_path))
    assert "open-sesame" not in str(refused.value)
