"""Artifacts in a folder are written into that folder, not into one of its name on another disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ratchet.errors import TrackingError
from ratchet.tracking import EXPERIMENT, Tracker
from ratchet.tracking.places import MARK


def write(tracker: Tracker) -> str:
    with tracker.run(EXPERIMENT, key="k", name="n", tags={}) as run:
        run.text("words", "report.md")
    return run.run_id


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "artifacts" / EXPERIMENT


def test_a_folder_is_marked_at_its_first_use_and_then_known(tracker: Tracker, folder: Path) -> None:
    tracker.check_place()  # nothing was ever kept
    write(tracker)
    mark = (folder / MARK).read_text()
    assert write(tracker)
    tracker.check_place()
    assert (folder / MARK).read_text() == mark


def test_a_machine_without_the_folder_is_refused_and_writes_nothing(
    tracker: Tracker, folder: Path, tmp_path: Path
) -> None:
    """The folder is moved away, as on a machine whose disk has another one of its name, or none."""
    write(tracker)
    shutil.move(folder, tmp_path / "there")
    for _ in range(2):
        with pytest.raises(TrackingError, match=r"another machine's or was lost.*--serve-art"):
            write(tracker)
        with pytest.raises(TrackingError, match="another machine's"):
            tracker.check_place()
        assert not folder.exists() or not list(folder.iterdir())
        folder.mkdir(exist_ok=True)
    folder.rmdir()
    shutil.move(tmp_path / "there", folder)
    write(tracker)


def test_a_folder_that_was_lost_is_taken_again_where_a_person_says_so(
    tracker: Tracker, folder: Path
) -> None:
    write(tracker)
    mark = (folder / MARK).read_text()
    shutil.rmtree(folder)
    with pytest.raises(TrackingError, match=f"where it was lost, write {mark} into {folder}"):
        write(tracker)
    folder.mkdir()
    (folder / MARK).write_text(f"{mark}\n")
    assert write(tracker)


def test_an_experiment_of_an_earlier_version_is_marked_where_its_folder_is(
    tracker: Tracker, folder: Path, tmp_path: Path
) -> None:
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    made = client.create_experiment(EXPERIMENT, artifact_location=folder.as_uri())
    with pytest.raises(TrackingError, match="got the folder"):  # a worker elsewhere comes first
        write(tracker)
    folder.mkdir(parents=True)
    write(tracker)
    tags = client.get_experiment(made).tags
    assert (folder / MARK).read_text() in tags.values()
