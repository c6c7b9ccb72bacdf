"""What is wrong with an installation, and what to do about it; nothing is changed.

Every check ends within seconds. One that fails by itself is a problem that is told, like any other.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from ratchet.deploy.backends import Replicas
from ratchet.deployments import read_deployments
from ratchet.errors import RatchetError
from ratchet.files.hub_ids import is_hub_id
from ratchet.files.text import counted
from ratchet.files.whole import file_digest
from ratchet.gateway.log import segments
from ratchet.judges.rubrics import load_judges
from ratchet.models.given_template import file_of, given_text
from ratchet.models.weights import (
    SMOLLM2,
    converted_smollm2,
    require_safetensors,
    smollm2_file,
)
from ratchet.notify.channels import open_channels
from ratchet.notify.policy import load_policy
from ratchet.operate.readiness import BACKEND_SECONDS
from ratchet.operate.report import size_in_words
from ratchet.servers import answering_prefect, shipped_deployments
from ratchet.settings import Settings, loose
from ratchet.store.checking import read_schema
from ratchet.store.history import History
from ratchet.store.history.writing import check_there
from ratchet.tracking import Tracker

State = Literal["ok", "warning", "problem"]
LEAST_BYTES, SCARCE_BYTES = 1_000_000_000, 5_000_000_000
_LEAST_INODES = 10_000
_AHEAD = timedelta(minutes=5)
_TRACKER_SECONDS = 20.0
_SHOWN = 3
_UNSYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)
_TIMEX_BYTES = 256


@dataclass(frozen=True, slots=True)
class Health:
    """One thing that was looked at.

    Attributes:
        state: A warning lets Ratchet work; a problem does not, or loses or shows data.
        found: What there is.
        do: The way out; empty where all is well.
    """

    name: str
    state: State
    found: str
    do: str = ""


@dataclass(frozen=True, slots=True)
class Doctor:
    """See the module's text.

    Attributes:
        settings: Of the home.
        now: The time.
        tracker: Opens MLflow.
        backend_key: What the server that answers users asks for.
        environ: Holds the secrets of the channels by which people are told.
    """

    settings: Settings
    now: datetime
    tracker: Callable[[], Tracker]
    backend_key: str | None = None
    environ: Mapping[str, str] = field(default_factory=dict)

    def look(self) -> Iterator[Health]:
        """Yield everything, in the order in which to mend it."""
        checks: Mapping[str, Callable[[], Health]] = {
            "home": self._home,
            "permissions": self._permissions,
            "disk": self._disk,
            "clock": self._clock,
            "store": self._store,
            "log": self._log,
            "history": self._history,
            "Prefect": self._prefect,
            "MLflow": self._mlflow,
            "model": self._model,
            "backend": self._backend,
            "deployments": self._deployments,
            "judges": self._judges,
            "alerts": self._alerts,
            "GPU": self._gpu,
        }
        for name, check in checks.items():
            try:
                yield check()
            except (RatchetError, OSError) as error:
                yield Health(name, "problem", str(error), "mend what it says, then run this again")

    def _home(self) -> Health:
        home = self.settings.home
        if not home.exists():
            do = "start with `ratchet demo` or `ratchet adopt`, or set RATCHET_HOME"
            return Health("home", "warning", f"no folder {home} yet", do)
        if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
            do = "run as the user that owns it, or set RATCHET_HOME"
            return Health("home", "problem", f"{home} cannot be written to", do)
        return Health("home", "ok", str(home))

    def _permissions(self) -> Health:
        open_to_others = list(loose(self.settings.home)) if self.settings.home.exists() else []
        if not open_to_others:
            return Health("permissions", "ok", "nothing in the home is open to other users")
        names = ", ".join(str(path) for path in open_to_others[:_SHOWN])
        more = " and others" if len(open_to_others) > _SHOWN else ""
        do = f"chmod -R go= '{self.settings.home}', as the user that owns it"
        found = f"{counted(len(open_to_others), 'path')} open to other users: {names}{more}"
        return Health("permissions", "problem", found, do)

    def _disk(self) -> Health:
        folder = next(
            path for path in (self.settings.home, *self.settings.home.parents) if path.exists()
        )
        free = shutil.disk_usage(folder).free
        inodes = os.statvfs(folder).f_favail
        few_inodes = 0 < inodes < _LEAST_INODES  # some file systems have no number of them
        found = f"{size_in_words(free)} free"
        if free < LEAST_BYTES or few_inodes:
            what = f"{counted(inodes, 'file')} can still be made" if few_inodes else found
            do = "free some, or take old data away: ratchet prune --dry-run"
            return Health("disk", "problem", what, do)
        if free < SCARCE_BYTES:
            return Health("disk", "warning", found, "see what would go: ratchet prune --dry-run")
        return Health("disk", "ok", found)

    def _clock(self) -> Health:
        schema = read_schema(self.settings.store_url)
        newest = None if schema is None else schema.newest
        if newest is not None and newest > self.now + _AHEAD:
            said, stored = f"{self.now:%Y-%m-%d %H:%M}", f"{newest:%Y-%m-%d %H:%M}"
            found = f"it says {said}, and the store's last row came at {stored}"
            return Health("clock", "problem", found, "set the clock: timedatectl set-ntp true")
        if _is_unsynchronised():
            do = "let it follow a time server: timedatectl set-ntp true"
            return Health("clock", "warning", "the system does not say that it is synchronised", do)
        return Health("clock", "ok", f"{self.now:%Y-%m-%d %H:%M:%S} UTC")

    def _store(self) -> Health:
        schema = read_schema(self.settings.store_url)
        if schema is None:
            do = "it is made when the first answer is recorded; if there was one: ratchet restore"
            return Health("store", "warning", "there is none yet", do)
        if schema.unknown:
            found = f"a later version has changed it ({schema.unknown[-1]})"
            return Health("store", "problem", found, "install that version of Ratchet")
        if schema.missing:
            found = (
                f"{counted(len(schema.missing), 'migration')} to come ({schema.missing[0]} first)"
            )
            do = "back it up, then open it once: ratchet backup FOLDER && ratchet status"
            return Health("store", "warning", found, do)
        found = f"{schema.identity}; its schema is this version's"
        if self.settings.store_id not in (None, schema.identity):
            do = "set RATCHET_STORE_URL to the address of that store, or unset RATCHET_STORE_ID"
            found = f"it is {schema.identity}, and {self.settings.store_id} is expected"
            return Health("store", "problem", found, do)
        return Health("store", "ok", found)

    def _log(self) -> Health:
        folder = self.settings.home / "gateway" / "wal"
        found = segments(folder)
        waiting = sum(path.stat().st_size for path in found)
        if not waiting:
            return Health("log", "ok", "nothing waits")
        words = f"{size_in_words(waiting)} in {counted(len(found), 'segment')}"
        if _is_held(folder / "drain.lock"):
            return Health("log", "ok", f"{words}, which a gateway brings to the store")
        do = "start a gateway, which stores it first: ratchet serve"
        return Health("log", "warning", f"{words} wait, and no gateway runs", do)

    def _history(self) -> Health:
        history = History.open(self.settings.history)
        cursor = history.cursor()
        schema = read_schema(self.settings.store_url)
        check_there(history.place, () if schema is None else schema.histories)
        if cursor is None:
            return Health("history", "ok", "nothing is written yet")
        return Health("history", "ok", f"written up to {cursor.written_at:%Y-%m-%d %H:%M} UTC")

    def _prefect(self) -> Health:
        address = answering_prefect(self.settings)
        if address is not None:
            return Health("Prefect", "ok", f"answers at {address}")
        if self.settings.prefect_api_url is not None:
            do = "start that server, or unset PREFECT_API_URL for the home's own"
            return Health("Prefect", "problem", "the server of PREFECT_API_URL does not answer", do)
        return Health("Prefect", "warning", "none runs, so no schedule does", "run: ratchet up")

    def _mlflow(self) -> Health:
        uri = self.settings.tracking_uri
        path = Path(uri.removeprefix("sqlite:///"))
        if uri.startswith("sqlite:///") and not path.exists():
            return Health("MLflow", "ok", "no run yet; its database is made with the first one")
        if self.tracker().answers(within_seconds=_TRACKER_SECONDS):
            return Health("MLflow", "ok", "answers")
        do = "start it (ratchet up, or the server of MLFLOW_TRACKING_URI), or restore a backup"
        return Health("MLflow", "problem", "it does not answer", do)

    def _model(self) -> Health:
        settings = self.settings
        if settings.backend and not settings.states_base_model:
            return Health("model", "ok", "a server answers; training needs RATCHET_BASE_MODEL")
        template = ""
        if settings.chat_template:
            given_text(settings.chat_template)
            template = f", with the chat template {file_of(settings.chat_template)}"
            if settings.backend:
                template += " (its server needs it too: vLLM's --chat-template)"
        if is_hub_id(settings.base_model):
            said = f"{settings.base_model} of the Hub, which is fetched when it is needed"
            return Health("model", "ok", f"{said}{template}")
        if settings.base_model != SMOLLM2:
            require_safetensors(Path(settings.base_model), "model*.safetensors")
            return Health("model", "ok", f"{settings.base_model}{template}")
        smollm2_file()
        known, weights = converted_smollm2(settings.cache)
        if known is None:
            return Health("model", "ok", "it is converted when it is needed, once, in 20 s")
        if not weights.exists() or file_digest(weights) != known:
            do = f"delete the folder, it is made anew: rm -r '{weights.parent}'"
            return Health("model", "problem", "the converted model is damaged", do)
        return Health("model", "ok", f"in {settings.cache}{template}")

    def _backend(self) -> Health:
        if not self.settings.backend:
            return Health("backend", "ok", "none: the local model answers, or nobody")
        silent = []
        with Replicas.of(self.settings.backend, key=self.backend_key) as replicas:
            for replica in replicas:
                try:
                    replica.listed(BACKEND_SECONDS)
                except RatchetError:
                    silent.append(replica.url)
        if silent:
            do = "start it, or correct its address (ratchet init, RATCHET_BACKEND)"
            return Health("backend", "warning", f"{', '.join(silent)} does not answer", do)
        return Health("backend", "ok", f"the backend answers: {', '.join(self.settings.backend)}")

    def _deployments(self) -> Health:
        path = self.settings.deployments
        read_deployments(path).over(shipped_deployments())
        return Health("deployments", "ok", "those that are shipped" if path is None else str(path))

    def _judges(self) -> Health:
        path = self.settings.judges
        if path is None:
            return Health("judges", "ok", "none")
        return Health("judges", "ok", f"{counted(len(load_judges(path)), 'judge')} in {path}")

    def _alerts(self) -> Health:
        settings = self.settings
        policy = load_policy(settings.alerts)
        channels = open_channels(policy, settings.notify, self.environ)
        if not channels:
            return Health("alerts", "ok", "nobody is told: RATCHET_ALERTS names no file")
        routes = f"{counted(len(policy.routes), 'route')} to {counted(len(channels), 'channel')}"
        return Health("alerts", "ok", f"{routes}; `ratchet alerts test` tries them")

    def _gpu(self) -> Health:
        program = shutil.which("nvidia-smi")
        has_device = any(Path("/dev").glob("nvidia[0-9]*"))
        if program is None and not has_device:
            return Health("GPU", "ok", "none: training takes the processors")
        try:
            built_for = version_of("torch")
        except PackageNotFoundError:
            built_for = "none"
        if built_for == "none" or built_for.endswith("+cpu"):
            do = "install the build of torch for CUDA (https://pytorch.org/get-started/locally)"
            return Health("GPU", "warning", f"a GPU is there, and torch is {built_for}", do)
        if program is None:
            do = "install the driver's tools, or give this container the GPU"
            return Health("GPU", "warning", "a GPU is there, nvidia-smi is not", do)
        return _ask_driver(program)


def _ask_driver(program: str) -> Health:
    query = [program, "--query-gpu=name,memory.free,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            query, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False
        )
    except subprocess.TimeoutExpired:
        return Health("GPU", "problem", "nvidia-smi does not answer", "look at dmesg; restart it")
    if done.returncode:
        found = f"nvidia-smi fails: {(done.stdout + done.stderr).strip()[:200]}"
        return Health("GPU", "problem", found, "install the driver anew, or restart the machine")
    return Health("GPU", "ok", "; ".join(done.stdout.split("\n")).strip("; "))


def _is_held(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0, fallback_to_soft=False):
            return False
    except Timeout:
        return True


def _is_unsynchronised() -> bool:
    """Tell whether Linux says that its clock follows no time server; False where nobody knows."""
    if sys.platform != "linux":
        return False
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)  # struct timex, with no change asked for
    return bool(ctypes.CDLL(None).adjtimex(buffer) == _UNSYNCHRONISED)
