"""Adapters are brought to the folder that the backend reads, verified, whole or not at all."""

from __future__ import annotations

import os
import threading

import pytest

from ratchet.deploy.adapters import AdapterShelf, place_adapter, placed
from ratchet.errors import ModelError, TrackingError
from ratchet.models import adapter_digest
from ratchet.tracking import Tracker
from tests.deploy.adapter_files import candidate, make_adapter, register


@pytest.fixture
def trained(tracker, store, tmp_path):
    """A version that another home trained: here there is only its record."""
    folder = make_adapter(tmp_path / "trainer" / "adapters" / "k")
    version = register(tracker, folder)
    candidate(store, version.reference, adapter_digest(folder), "adapters/k")
    return version


@pytest.fixture
def shelf(tmp_path):
    return AdapterShelf(tmp_path / "home", tmp_path / "shared", "/models/adapters")


def test_an_adapter_of_another_machine_is_fetched_and_named_as_the_backend_sees_it(
    trained, shelf, store, tracker, tmp_path
):
    path = placed(shelf, store, lambda: tracker, trained.reference)
    (folder,) = shelf.folder.iterdir()
    assert path == f"/models/adapters/{folder.name}"
    assert folder.name.startswith("support-router-1-")
    assert adapter_digest(folder) == adapter_digest(tmp_path / "trainer" / "adapters" / "k")
    assert os.access(folder, os.R_OK | os.X_OK)
    assert folder.stat().st_mode & 0o055 == 0o055  # a backend of another user reads it


def test_a_process_that_makes_files_for_itself_alone_opens_a_shelf_that_is_shared(
    trained, shelf, store, tracker
):
    before = os.umask(0o077)  # as the command does
    try:
        folder = place_adapter(shelf, store, lambda: tracker, trained.reference)
    finally:
        os.umask(before)
    assert folder is not None
    modes = {path.name: path.stat().st_mode & 0o777 for path in (shelf.folder, folder)}
    assert set(modes.values()) == {0o755}
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


def test_what_lies_there_is_not_fetched_again(trained, shelf, store, tracker):
    first = place_adapter(shelf, store, lambda: tracker, trained.reference)
    inode = first.stat().st_ino
    assert place_adapter(shelf, store, lambda: pytest.fail("asked"), trained.reference) == first
    assert first.stat().st_ino == inode


def test_an_adapter_that_was_trained_here_needs_no_mlflow(store, tracker, tmp_path):
    home = tmp_path / "home"
    folder = make_adapter(home / "adapters" / "k")
    (folder / "README.md").write_text("hello")
    version = register(tracker, folder)
    made = candidate(store, version.reference, adapter_digest(folder), "adapters/k")
    own = AdapterShelf(home)
    assert place_adapter(own, store, lambda: pytest.fail("asked"), version.reference) == folder
    assert own.find(made) == folder
    shared = AdapterShelf(home, tmp_path / "shared")
    found = place_adapter(shared, store, lambda: pytest.fail("asked"), version.reference)
    assert found == shared.find(made)
    assert sorted(p.name for p in found.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_a_changed_artifact_is_refused_and_nothing_of_it_stays(
    trained, shelf, store, tracker, tmp_path
):
    (artifact,) = (tmp_path / "artifacts").rglob("adapter_model.safetensors")
    artifact.write_bytes(b"poisoned")
    with pytest.raises(ModelError, match=r"must have the digest .* which was changed since"):
        place_adapter(shelf, store, lambda: tracker, trained.reference)
    assert list(shelf.folder.iterdir()) == []


def test_what_nobody_has_checked_is_left_behind(trained, shelf, store, tracker, tmp_path):
    (artifact,) = (tmp_path / "artifacts").rglob("adapter_model.safetensors")
    (artifact.parent / "adapter_model.bin").write_bytes(b"a pickle")
    (artifact.parent / "more").mkdir()
    (artifact.parent / "more" / "code.py").write_text("print()")
    found = place_adapter(shelf, store, lambda: tracker, trained.reference)
    assert {p.name for p in found.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


@pytest.mark.parametrize("is_here", [True, False])
def test_the_chat_template_that_it_was_trained_with_comes_along(store, tracker, tmp_path, is_here):
    """So that the gateway's local model too refuses it over a base with another one."""
    folder = make_adapter(tmp_path / "home" / "adapters" / "k")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    version = register(tracker, folder)
    candidate(store, version.reference, adapter_digest(folder), "adapters/k")
    home = tmp_path / ("home" if is_here else "another")
    shelf = AdapterShelf(home, tmp_path / "shared")
    found = place_adapter(shelf, store, lambda: tracker, version.reference)
    assert (found / "chat_template.jinja").read_text() == "{{ messages }}"


@pytest.mark.parametrize("broken", ["half", "changed"])
def test_a_wrong_folder_on_the_shelf_is_replaced(trained, shelf, store, tracker, broken):
    found = place_adapter(shelf, store, lambda: tracker, trained.reference)
    right = adapter_digest(found)
    if broken == "half":
        (found / "adapter_model.safetensors").unlink()
    else:
        (found / "adapter_model.safetensors").write_bytes(b"poisoned")
    assert place_adapter(shelf, store, lambda: tracker, trained.reference) == found
    assert adapter_digest(found) == right
    assert list(shelf.folder.iterdir()) == [found]


def test_an_adapter_of_this_home_that_was_changed_is_fetched_beside_it(store, tracker, tmp_path):
    home = tmp_path / "home"
    folder = make_adapter(home / "adapters" / "k")
    version, right = register(tracker, folder), adapter_digest(folder)
    made = candidate(store, version.reference, right, "adapters/k")
    (folder / "adapter_model.safetensors").write_bytes(b"poisoned")
    shelf = AdapterShelf(home)
    found = place_adapter(shelf, store, lambda: tracker, version.reference)
    assert found == shelf.find(made) != folder
    assert adapter_digest(found) == right


def test_a_process_that_was_killed_leaves_nothing_that_is_taken_for_an_adapter(
    trained, shelf, store, tracker
):
    left = make_adapter(shelf.folder / ".coming-dead", weights=b"half")
    os.utime(left, (0, 0))
    young = make_adapter(shelf.folder / ".coming-alive", weights=b"half")
    found = place_adapter(shelf, store, lambda: tracker, trained.reference)
    assert set(shelf.folder.iterdir()) == {found, young}


def test_two_processes_at_once_end_with_one_whole_adapter(trained, shelf, store, tracker):
    found, start = [], threading.Barrier(4)

    def place():
        start.wait()
        found.append(place_adapter(shelf, store, lambda: tracker, trained.reference))

    threads = [threading.Thread(target=place) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert set(shelf.folder.iterdir()) == set(found)


def test_a_version_that_only_the_registry_knows_is_placed_by_the_digest_in_its_tag(
    shelf, store, tracker, tmp_path
):
    version = register(tracker, make_adapter(tmp_path / "a"))
    assert tracker.version(version.reference).adapter_digest == adapter_digest(tmp_path / "a")
    assert place_adapter(shelf, store, lambda: tracker, version.reference).exists()
    untagged = make_adapter(tmp_path / "b", weights=b"other")
    with tracker.run("test", key="b", name="improve", tags={}) as run:
        source = run.folder(untagged, "adapter")
    old = tracker.register_adapter(run.run_id, source, "of b")
    with pytest.raises(ModelError, match=r"ratchet\.adapter_digest"):
        place_adapter(shelf, store, lambda: tracker, old.reference)


def test_a_version_without_an_adapter_needs_no_folder(shelf, store, tracker):
    base = tracker.register_base("tiny", "digest-base")
    assert placed(shelf, store, lambda: tracker, base.reference) is None
    assert placed(shelf, store, lambda: tracker, tracker.register_served("org/x").reference) is None
    assert not shelf.folder.exists()


@pytest.mark.slow
def test_without_mlflow_it_is_said_within_seconds(trained, shelf, store):
    away = Tracker("http://127.0.0.1:9", artifacts=shelf.home, model_name="support-router")
    with pytest.raises(TrackingError, match="does not answer within"):
        place_adapter(shelf, store, lambda: away, trained.reference)
    with pytest.raises(TrackingError, match="does not answer within"):
        place_adapter(shelf, store, lambda: away, "support-router/9")


def test_a_shelf_that_cannot_be_written_to_is_named(trained, store, tracker, tmp_path):
    (tmp_path / "file").write_text("")
    shelf = AdapterShelf(tmp_path / "home", tmp_path / "file" / "below")
    with pytest.raises(ModelError, match="RATCHET_ADAPTER_ROOT"):
        place_adapter(shelf, store, lambda: tracker, trained.reference)


def test_only_what_lies_on_the_shelf_has_another_path_at_the_backend(tmp_path):
    shelf = AdapterShelf(tmp_path, None, "/models/adapters")
    assert shelf.at_backend(tmp_path / "adapters" / "k") == "/models/adapters/k"
    assert shelf.at_backend(tmp_path / "elsewhere" / "k") == str(tmp_path / "elsewhere" / "k")
    assert AdapterShelf(tmp_path).at_backend(tmp_path / "adapters/k") == str(
        tmp_path / "adapters/k"
    )
