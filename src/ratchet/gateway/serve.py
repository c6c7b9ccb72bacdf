"""The parent of the gateway's processes: opens the socket, starts workers, drains their log.

The drain runs here and not in a worker, so that bringing events to the store never makes an answer
wait, and goes on when a worker dies. A worker that dies is started again, also while the store is
away: what it said last is kept beside it (`ratchet.gateway.known`).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event, Thread

from ratchet.deploy.backends import Replicas
from ratchet.deploy.served import unlisted
from ratchet.errors import BusyError, InvalidInputError, RatchetError, SettingsError
from ratchet.gateway.adapters import bring_adapters
from ratchet.gateway.drain import Drain
from ratchet.gateway.known import LastKnown, StoreLink
from ratchet.gateway.options import NO_CHAMPION, GatewayOptions, told_to_worker
from ratchet.gateway.routing import State, read_state, several_versions, wanted_adapters
from ratchet.processes import end_with_parent, open_environment, python
from ratchet.store import EventStore

_STOP_SECONDS = 15.0
_RESTART_SECONDS = 0.5
_LIST_SECONDS = 3.0
_LASTING_SECONDS = 10.0
_LONGEST_PAUSE = 10.0


@dataclass(slots=True)
class Supervisor:
    """See the module's text.

    Attributes:
        options: What the workers are told.
        say: Where a line for the user goes.
        bring: Puts the adapter of a version of the store where the local model reads it.
    """

    options: GatewayOptions
    say: Callable[[str], None]
    bring: Callable[[EventStore, str], object] | None = None
    _children: list[_Child] = field(default_factory=list)
    _stopping: Event = field(default_factory=Event)
    _counts: Path | None = None

    def run(self) -> int:
        """Serve until told to stop; return the exit code.

        Raises:
            InvalidInputError: The address is not loopback and nobody needs a key, or one name of
                the backend would answer as several versions.
            BusyError: The port is taken.
        """
        known = LastKnown(self.options.folder, self.options.settings)
        link = StoreLink(self.options.settings, known)
        state = self._begin(link)
        self._check_open(state.needs_key)
        self._check_names(state)
        listening = _listen(self.options.host, self.options.port)
        draining = Thread(
            target=Drain(self.options.folder / "wal", link.get).run,
            args=(self._stopping,),
            name="drain",
        )
        draining.start()
        if self.bring is not None and not self._backends:
            about = (link.get, self.options.shelf, self.bring, self._stopping)
            Thread(target=bring_adapters, args=about, name="adapters", daemon=True).start()
        try:
            self._children = [_Child(number) for number in range(self.options.workers)]
            self._counts = _counts_folder(self.options, listening)
            self._start_missing(listening, link)
            self._announce(listening, state.needs_key)
            self._warn(state)
            while not self._stopping.wait(_RESTART_SECONDS):
                self._start_missing(listening, link)
        except KeyboardInterrupt:
            self.say("stopping ...")
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._stop_children()
            self._stopping.set()
            draining.join()
            link.close()
        return 0

    def _begin(self, link: StoreLink) -> State:
        """Return what the store says, or said last where it does not open now.

        Raises:
            RatchetError: It does not open, and never said anything; or it is another assistant's.
        """
        try:
            return read_state(link.get(), self.options.shelf)
        except Exception as error:
            found = link.known.read()
            if found is None or isinstance(error, SettingsError):
                raise
            state, moment = found
            self.say(
                f"the store does not open, requests are answered by the routing of "
                f"{moment:%Y-%m-%d %H:%M:%S} UTC and recorded in the log: {error}"
            )
            return state

    def _check_open(self, has_keys: bool) -> None:
        if has_keys or self.options.is_loopback or self.options.open:
            return
        raise InvalidInputError(
            f"a gateway on {self.options.host} needs keys, got none in the store; make one by "
            "`ratchet keys create`, or say --open to serve whoever reaches it"
        )

    def _check_names(self, state: State) -> None:
        asks_for = self.options.backend_model if self.options.backend else None
        reason = several_versions(state, asks_for)
        if reason is not None:
            raise InvalidInputError(reason)

    def _announce(self, listening: socket.socket, has_keys: bool) -> None:
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        local = f"the local model {self.options.settings.base_model}"
        behind = " ".join(self._backends) or local
        scheme = "http" if self.options.tls_cert is None else "https"
        self.say(f"gateway  {scheme}://{shown}:{port}   (in front of {behind})")
        if not has_keys:
            self.say(
                "no keys are in place: whoever reaches this address may do everything; "
                "`ratchet keys create` puts one in place"
            )

    @property
    def _backends(self) -> tuple[str, ...]:
        first = self.options.backend
        return () if first is None else (first, *self.options.replicas)

    def _warn(self, state: State) -> None:
        """Say what is missing for requests to be answered as the routing wants."""
        if not self._backends:
            return
        if state.routing is None:
            self.say(NO_CHAMPION)
            return
        loaded = wanted_adapters(state) if self.options.load_adapters else {}
        names = {
            version: self.options.backend_model or state.names.get(version, version)
            for version in state.served
            if version not in loaded
        }
        try:
            with Replicas.of(self._backends, key=self.options.backend_key) as replicas:
                lines = unlisted(replicas, names, seconds=_LIST_SECONDS)
        except RatchetError as error:
            lines = [f"the backend does not say what it serves: {error}"]
        for line in lines:
            self.say(line)

    def _start(
        self, listening: socket.socket, link: StoreLink, number: int
    ) -> subprocess.Popen[bytes]:
        update = {"store_file": link.identity, "counts": self._counts, "worker": number}
        options = self.options.model_copy(update=update)
        environment = open_environment(os.environ) | {
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        child = subprocess.Popen(
            python("-m", "ratchet.gateway.worker", str(listening.fileno())),
            env=environment,
            stdin=subprocess.PIPE,
            pass_fds=[listening.fileno()],
            preexec_fn=partial(_die_with_parent, os.getpid()),
        )
        assert child.stdin is not None
        with suppress(BrokenPipeError), child.stdin as told:  # it died, and is started again
            told.write(told_to_worker(options, os.environ))
        return child

    def _start_missing(self, listening: socket.socket, link: StoreLink) -> None:
        """Start each process that does not run; one that ends at once is waited for longer."""
        for child in self._children:
            process, now = child.process, time.monotonic()
            if process is not None:
                if (code := process.poll()) is None:
                    continue
                child.end(now)
                self.say(f"a gateway process ended ({code}) and is started again")
            if now < child.start_after:
                continue
            try:
                child.process, child.started = self._start(listening, link, child.number), now
            except OSError as error:  # no memory, no processes, no descriptors: later there may be
                child.end(now)
                self.say(f"a gateway process cannot be started, it is tried again: {error}")

    def _stop_children(self) -> None:
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            process.terminate()
        until = time.monotonic() + _STOP_SECONDS
        for process in running:
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass(slots=True)
class _Child:
    """A process of the gateway.

    Attributes:
        number: Its place among them.
        process: What runs; None where nothing does.
        started: When it was started, by the monotonic clock.
        start_after: Not before then is the next one started.
    """

    number: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    start_after: float = 0.0
    _pause: float = 0.0

    def end(self, now: float) -> None:
        """Note that nothing runs; what ended soon after its start is given more time."""
        lasted = self.process is not None and now - self.started > _LASTING_SECONDS
        self._pause = 0.0 if lasted else min(_LONGEST_PAUSE, max(_RESTART_SECONDS, 2 * self._pause))
        self.process, self.start_after = None, now + self._pause


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        raise BusyError(
            f"the gateway needs the address {host} port {port}, got: {error.strerror}; "
            "name another one by --port"
        ) from error
    listening.listen(2048)
    return listening


def _counts_folder(options: GatewayOptions, listening: socket.socket) -> Path | None:
    """Return an empty folder for what the workers count; one worker needs none.

    A port has one gateway on a machine. Counts begin anew with the gateway, as Prometheus expects.
    """
    if options.workers == 1:
        return None
    port = listening.getsockname()[1]
    folder = options.folder / "metrics" / f"{socket.gethostname()}-{port}"
    with suppress(OSError):  # a full disk is no reason not to answer
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
    return folder


def _die_with_parent(parent: int) -> None:
    """Ask the kernel to end this child when its parent dies (Linux)."""
    end_with_parent()
    if sys.platform == "linux" and os.getppid() != parent:  # it died before the kernel was asked
        os._exit(1)
