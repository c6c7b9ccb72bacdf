"""The gateway's view of the store: new when something is written, not read anew otherwise."""

from datetime import UTC, datetime

import pytest

from ratchet.gateway import routing
from ratchet.gateway.routing import Router
from ratchet.records import Candidate, Release, ServedName
from tests.gateway.conftest import routing as routing_of

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def release(number, champion, previous=None):
    return Release(
        id=f"r{number}",
        created_at=NOW,
        action="promote",
        champion=champion,
        previous=previous,
    )


@pytest.fixture
def reads(monkeypatch):
    """How often the whole state was read."""
    times = []
    read = routing.read_state

    def counted(*arguments):
        times.append(1)
        return read(*arguments)

    monkeypatch.setattr(routing, "read_state", counted)
    return times


def test_what_is_written_is_followed_and_nothing_is_read_twice(store, tmp_path, reads):
    changes = []
    router = Router(lambda: store, home=tmp_path, default=None, on_change=changes.append)
    for _ in range(3):
        router.refresh()
    assert router.choose("ann") is None
    assert len(reads) == 1
    store.append(release(1, "m/1"))
    for _ in range(3):
        router.refresh()
    assert router.choose("ann") == "m/1"
    assert len(reads) == 2
    store.append(release(2, "m/2", "m/1"))
    router.refresh()
    assert router.choose("ann") == "m/2"
    assert router.state.aliases == {"champion": "m/2", "previous": "m/1"}
    store.append(
        Candidate(
            id="c", cycle_id="1", created_at=NOW, model_name="m", version="3", adapter_digest="d",
            path="adapters/3", training_set_id="t", run_id="r", losses=(), training_seconds=1.0,
        )
    )  # fmt: skip
    router.refresh()
    assert router.state.adapters["m/3"] == tmp_path / "adapters/3"
    assert len(reads) == 4
    assert len(changes) == 3


def test_a_store_that_fails_is_read_again(store, tmp_path, monkeypatch):
    router = Router(lambda: store, home=tmp_path, default=None)
    store.append(release(1, "m/1"))
    with monkeypatch.context() as patched:
        patched.setattr(routing, "read_state", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            router.refresh()
    router.refresh()
    assert router.choose("ann") == "m/1"


def test_a_version_is_asked_for_by_the_name_that_the_backend_has_for_it(serve, mock):
    gateway = serve(backend=mock.url)
    gateway.store.append(routing_of(("m/1", 1.0), key="r"))
    for number, name in enumerate(["org/base", "org/base-2"]):
        gateway.store.append(ServedName(id=f"n{number}", created_at=NOW, version="m/1", name=name))
        gateway.app.state.gateway.router.refresh()
        answer = gateway.ask()
        assert answer["model"] == "m/1"
        assert mock.seen[-1]["model"] == name
