"""The folder that artifacts are kept in, and whether this machine has it.

MLflow's client writes to the path that an experiment names, on whatever machine it runs: a worker
elsewhere would leave its adapters on a disk of its own and end well. So the folder holds a mark,
and the experiment knows it. Object storage, or a server that artifacts go through, needs none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from ratchet.errors import TrackingError

MARK = ".ratchet-place"
_TAG = "ratchet.place"


def folder_of(location: str) -> Path | None:
    """Return the folder that an address of artifacts names; None where it is no folder."""
    place = urlsplit(location)
    return Path(unquote(place.path)) if place.scheme in ("", "file") else None


def keep_place(client: Any, experiment: Any, *, is_new: bool) -> None:
    """Mark the folder of an experiment at its first use, later see that it is the marked one.

    Args:
        client: MLflow's.
        experiment: As MLflow knows it.
        is_new: Whether this process has made it. One of an earlier version is marked where its
            folder is there.

    Raises:
        TrackingError: This machine does not have the folder.
    """
    folder = folder_of(str(experiment.artifact_location))
    if folder is None or _TAG in experiment.tags or not (is_new or folder.is_dir()):
        check_place(experiment)
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with (folder / MARK).open("x", encoding="utf-8") as file:
            file.write(str(uuid4()))
    except FileExistsError:
        pass  # by another process, just now
    client.set_experiment_tag(experiment.experiment_id, _TAG, _mark_in(folder))


def check_place(experiment: Any) -> None:
    """See that an experiment's artifacts are not kept in a folder that this machine lacks.

    Raises:
        TrackingError: They are.
    """
    folder = folder_of(str(experiment.artifact_location))
    wanted = str(experiment.tags.get(_TAG, ""))
    if folder is None or (wanted and _mark_in(folder) == wanted):
        return
    if not wanted and folder.is_dir():
        return
    raise TrackingError(
        f"artifacts must be kept where every machine finds them, got the folder {folder}, which is "
        "another machine's or was lost; serve them there by `mlflow server --serve-artifacts` with "
        "a folder or object storage (--artifacts-destination s3://BUCKET) and set "
        "MLFLOW_TRACKING_URI to its address, or mount the folder here"
        + (f"; where it was lost, write {wanted} into {folder / MARK}" if wanted else "")
    )


def _mark_in(folder: Path) -> str:
    try:
        return (folder / MARK).read_text("utf-8").strip()
    except OSError:
        return ""


def lies_elsewhere(location: str, server: str) -> bool:
    """Tell whether artifacts lie in a folder of another machine, that of a server."""
    folder = folder_of(location)
    if folder is None:
        return False
    near = urlsplit(server).hostname in ("localhost", "127.0.0.1", "::1")
    return not (near and (folder.exists() or folder.parent.exists()))
