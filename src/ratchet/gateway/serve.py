"""The parent of the gateway's processes: opens the socket, starts workers, drains their log.

The drain runs here and not in a worker, so that bringing events to the store never makes an answer
wait, and goes on when a worker dies. A worker that dies is started again.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Thread

from ratchet.deploy.backends import Replicas
from ratchet.deploy.routing import current_routing
from ratchet.deploy.served import unlisted
from ratchet.errors import BusyError, InvalidInputError, RatchetError
from ratchet.gateway.adapters import wanted_adapters
from ratchet.gateway.drain import Drain
from ratchet.gateway.options import NO_CHAMPION, GatewayOptions
from ratchet.gateway.routing import State, read_state, several_versions
from ratchet.records import ApiKey
from ratchet.store import EventStore

_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_STOP_SECONDS = 15.0
_RESTART_SECONDS = 0.5
_LIST_SECONDS = 3.0


@dataclass(slots=True)
class Supervisor:
    """See the module's text.

    Attributes:
        options: What the workers are told.
        say: Where a line for the user goes.
    """

    options: GatewayOptions
    say: Callable[[str], None]
    _children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _stopping: Event = field(default_factory=Event)

    def run(self) -> int:
        """Serve until told to stop; return the exit code.

        Raises:
            InvalidInputError: The address is not loopback and nobody needs a key, or one name of
                the backend would answer as several versions.
            BusyError: The port is taken.
        """
        store = EventStore.open(
            self.options.settings.store_url, assistant=self.options.settings.model_name
        )
        has_keys = bool(store.latest(ApiKey))
        self._check_open(has_keys)
        self._check_names(store)
        listening = _listen(self.options.host, self.options.port)
        drain = Drain(self.options.folder / "wal", store)
        drain.once()  # what an earlier gateway left behind
        draining = Thread(target=drain.run, args=(self._stopping,), name="drain")
        draining.start()
        try:
            self._children = [self._start(listening) for _ in range(self.options.workers)]
            self._announce(listening, has_keys)
            self._warn(store)
            while not self._stopping.wait(_RESTART_SECONDS):
                self._restart_dead(listening)
        except KeyboardInterrupt:
            self.say("stopping ...")
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._stop_children()
            self._stopping.set()
            draining.join()
            store.close()
        return 0

    def _check_open(self, has_keys: bool) -> None:
        if has_keys or self.options.is_loopback or self.options.open:
            return
        raise InvalidInputError(
            f"a gateway on {self.options.host} needs keys, got none in the store; make one by "
            "`ratchet keys create`, or say --open to serve whoever reaches it"
        )

    def _check_names(self, store: EventStore) -> None:
        asks_for = self.options.backend_model if self.options.backend else None
        reason = several_versions(State(routing=current_routing(store)), asks_for)
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

    def _warn(self, store: EventStore) -> None:
        """Say what is missing for requests to be answered as the routing wants."""
        if not self._backends:
            return
        state = read_state(store, self.options.shelf)
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

    def _start(self, listening: socket.socket) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "RATCHET_GATEWAY": self.options.model_dump_json(),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        return subprocess.Popen(
            [sys.executable, "-m", "ratchet.gateway.worker", str(listening.fileno())],
            env=environment,
            pass_fds=[listening.fileno()],
            preexec_fn=_die_with_parent,
        )

    def _restart_dead(self, listening: socket.socket) -> None:
        for number, child in enumerate(self._children):
            if (code := child.poll()) is not None:
                self.say(f"a gateway process ended ({code}) and is started again")
                self._children[number] = self._start(listening)

    def _stop_children(self) -> None:
        for child in self._children:
            child.terminate()
        until = time.monotonic() + _STOP_SECONDS
        for child in self._children:
            try:
                child.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


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


def _die_with_parent() -> None:
    """Ask the kernel to end this child when its parent dies (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGTERM)
