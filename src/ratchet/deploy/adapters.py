"""Adapters travel: from where they were trained to the folder that the backend reads.

    shelf = AdapterShelf(settings.home, settings.adapter_root, settings.backend_adapter_root)
    path = placed(shelf, store, lambda: tracker, "support-router/3")   # as the backend sees it

An adapter is known by its digest. One that lies in the folder with another digest is replaced; one
that comes out of MLflow with another digest is thrown away and an error. A folder appears by
renaming, so that nobody reads half an adapter, also after a kill.
"""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ratchet.errors import ModelError, TrackingError
from ratchet.models import adapter_digest
from ratchet.models.given_template import TEMPLATE_FILE
from ratchet.models.own_base import BASE_FILE
from ratchet.records import Candidate
from ratchet.store import EventStore
from ratchet.tracking import Tracker

logger = logging.getLogger(__name__)

TRACKER_SECONDS = 5.0
"""So long MLflow may take to say that it is there, before anything is fetched from it."""
_COMING = ".coming-"
_OLD_SECONDS = 86_400.0
"""What is still under way after so long was left by a process that was killed."""
_READ = ("adapter_config.json", "adapter_model.safetensors")
_KEPT = (*_READ, TEMPLATE_FILE, BASE_FILE)
"""What a local model reads besides only makes it refuse an adapter of another chat template."""


@dataclass(frozen=True, slots=True)
class AdapterShelf:
    """The folder that adapters lie in for the backend.

    Attributes:
        home: The home folder, where adapters lie that were trained here.
        root: The shelf as this machine sees it; by default the home's own `adapters`.
        root_at_backend: The shelf as the backend sees it; by default the same path.
    """

    home: Path
    root: Path | None = None
    root_at_backend: str | None = None

    @property
    def folder(self) -> Path:
        """The shelf as this machine sees it."""
        return self.root or self.home / "adapters"

    def place_of(self, version: str, digest: str) -> Path:
        """Return the folder of a version on the shelf, whether it is there or not."""
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", version).strip(".-")
        return self.folder / f"{plain}-{digest[:12]}"

    def find(self, candidate: Candidate) -> Path:
        """Return where a candidate's adapter lies for the backend, or is to lie.

        Nothing is read but whether a folder is there, so a gateway may ask at any time.
        """
        version = candidate.reference
        place = self.place_of(version, candidate.adapter_digest)
        return place if self.root is not None or place.exists() else self.home / candidate.path

    def at_backend(self, place: Path) -> str:
        """Return the path under which the backend sees the folder of an adapter."""
        if self.root_at_backend is None or not place.is_relative_to(self.folder):
            return str(place)
        return str(PurePosixPath(self.root_at_backend, place.relative_to(self.folder)))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An adapter that is to lie on the shelf; `trained` is where it was trained, if here."""

    version: str
    digest: str
    trained: Path | None


def placed(
    shelf: AdapterShelf, store: EventStore, tracker: Callable[[], Tracker], version: str
) -> str | None:
    """Return the path at the backend of a version's adapter, brought there first if need be.

    Args:
        shelf: Where adapters lie for the backend.
        store: The store.
        tracker: Opens MLflow, where an adapter has to be fetched.
        version: The version.

    Returns:
        None for a version without an adapter.

    Raises:
        ModelError, TrackingError: As `place_adapter`.
    """
    place = place_adapter(shelf, store, tracker, version)
    return None if place is None else shelf.at_backend(place)


def place_adapter(
    shelf: AdapterShelf, store: EventStore, tracker: Callable[[], Tracker], version: str
) -> Path | None:
    """Bring a version's adapter to the shelf, and return its folder as this machine sees it.

    What lies there with the right digest stays. Else it is copied from where it was trained, if
    that was here, or fetched from MLflow.

    Returns:
        None for a version without an adapter.

    Raises:
        ModelError: What there is has another digest, or the shelf cannot be written to.
        TrackingError: MLflow does not know the version or has lost its adapter, or does not answer.
    """
    wanted = _wanted(shelf, store, tracker, version)
    if wanted is None:
        return None
    place = shelf.place_of(version, wanted.digest)
    if shelf.root is None and wanted.trained is not None and _is(wanted.trained, wanted.digest):
        return wanted.trained
    if _is(place, wanted.digest):
        return place
    try:
        _make(shelf)
        _sweep(shelf.folder)
        coming = Path(tempfile.mkdtemp(prefix=_COMING, dir=shelf.folder))
    except OSError as error:
        raise _unwritable(shelf, error) from error
    try:
        _bring(wanted, tracker, coming)
        _put(coming, place, wanted.digest, open_to_others=shelf.root is not None)
    except OSError as error:
        raise _unwritable(shelf, error) from error
    finally:
        shutil.rmtree(coming, ignore_errors=True)
    logger.info("the adapter of %s lies at %s", version, place)
    return place


def candidate_of(store: EventStore, version: str) -> Candidate | None:
    """Return the candidate that a version is; None for one that no loop of this store trained."""
    for candidate in reversed(store.records(Candidate)):
        if candidate.reference == version:
            return candidate
    return None


def _wanted(
    shelf: AdapterShelf, store: EventStore, tracker: Callable[[], Tracker], version: str
) -> _Wanted | None:
    candidate = candidate_of(store, version)
    if candidate is not None:
        return _Wanted(version, candidate.adapter_digest, shelf.home / candidate.path)
    registered = _answering(tracker(), version).version(version)
    if registered.adapter is None:
        return None
    if registered.adapter_digest is None:
        raise ModelError(
            f"the digest of an adapter must be known before it is served, got none for {version}: "
            "it is no candidate of this store, and its version in MLflow has no tag "
            "`ratchet.adapter_digest`; register it again with this version of Ratchet"
        )
    return _Wanted(version, registered.adapter_digest, None)


def _answering(tracker: Tracker, version: str) -> Tracker:
    """Return MLflow if it is there: its client would try for minutes."""
    if not tracker.answers(within_seconds=TRACKER_SECONDS):
        raise TrackingError(
            f"the adapter of {version} must be looked up or fetched in MLflow, which does not "
            f"answer within {TRACKER_SECONDS:g} s; try again when it does"
        )
    return tracker


def _bring(wanted: _Wanted, tracker: Callable[[], Tracker], coming: Path) -> None:
    """Copy an adapter into an empty folder of the shelf, and check that it is the right one.

    Raises:
        ModelError: It is another one.
        TrackingError: MLflow has none.
    """
    if wanted.trained is not None and _is(wanted.trained, wanted.digest):
        for name in _KEPT:
            if name in _READ or (wanted.trained / name).is_file():
                shutil.copyfile(wanted.trained / name, coming / name)
        source = str(wanted.trained)
    else:
        known = _answering(tracker(), wanted.version)
        known.fetch_adapter(known.version(wanted.version), coming)
        _drop_others(coming)
        source = "MLflow's artifacts"
    found = _digest(coming)
    if found != wanted.digest:
        raise ModelError(
            f"the adapter of {wanted.version} must have the digest {wanted.digest[:12]} that it "
            f"was registered with, got {found[:12] if found else 'no adapter'} from {source}, "
            "which was changed since; restore it, or serve another version"
        )


def _drop_others(folder: Path) -> None:
    """Keep what the digest is about; what else came along, nobody has checked."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in _KEPT:
            path.unlink()


def _make(shelf: AdapterShelf) -> None:
    """Make the shelf's folder; outside of the home a backend that is another user goes through."""
    missing = [one for one in (shelf.folder, *shelf.folder.parents) if not one.exists()]
    shelf.folder.mkdir(parents=True, exist_ok=True)
    if shelf.root is not None:
        for folder in missing:
            folder.chmod(0o755)


def _put(coming: Path, place: Path, digest: str, *, open_to_others: bool) -> None:
    """Rename a checked adapter to its place, where another process may have been faster.

    Outside of the home a backend reads it that may be another user.
    """
    if open_to_others:
        coming.chmod(0o755)
        for path in coming.iterdir():
            path.chmod(0o644)
    try:
        coming.rename(place)
    except OSError:
        if _is(place, digest):
            return
        aside = Path(tempfile.mkdtemp(prefix=_COMING, dir=place.parent))
        place.rename(aside / "wrong")  # half of an adapter, or a changed one
        shutil.rmtree(aside, ignore_errors=True)
        coming.rename(place)


def _is(folder: Path, digest: str) -> bool:
    return _digest(folder) == digest


def _digest(folder: Path) -> str | None:
    """Return the digest of the adapter in a folder; None where there is none that can be read."""
    try:
        return adapter_digest(folder)
    except (OSError, ValueError, AttributeError):
        return None


def _sweep(folder: Path) -> None:
    """Remove what processes left that were killed while they brought an adapter."""
    before = time.time() - _OLD_SECONDS
    for left in folder.glob(f"{_COMING}*"):
        try:
            if left.stat().st_mtime < before:
                shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue  # another process was faster


def _unwritable(shelf: AdapterShelf, error: OSError) -> ModelError:
    return ModelError(
        f"the folder of adapters must be one that can be written to, got {shelf.folder}: "
        f"{error.strerror or error}; set RATCHET_ADAPTER_ROOT to the folder that this machine and "
        "the backend share"
    )
