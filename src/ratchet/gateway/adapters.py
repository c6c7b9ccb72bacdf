"""Hold the adapters that servers have loaded, or a machine has, to what the routing names.

vLLM forgets its adapters when it restarts, and each replica has its own. So every server is asked
for its models every second: what the routing names and the server lacks is loaded, and what the
server has loaded of this home's adapters and no routing names is unloaded. What `GET /v1/models`
shows is believed, not what a load answers: "already loaded" may stand for a failed load.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from ratchet.deploy.adapters import AdapterShelf
from ratchet.gateway.http_backend import HttpBackend
from ratchet.gateway.replies import BackendError
from ratchet.gateway.routing import READ, State, read_state, wanted_adapters
from ratchet.store import EventStore

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
UNLOAD_SECONDS = 5.0
"""So long after no routing names it an adapter is unloaded: every process follows by then."""
CHECKED_SECONDS = 300.0
"""The same of an adapter that no routing has named yet: a check has it loaded before one does."""
PREPARE_SECONDS = 5.0
"""So long a new routing waits for its adapters before it takes effect."""
_LONGEST_PAUSE = 30.0


def bring_adapters(
    store: Callable[[], EventStore],
    shelf: AdapterShelf,
    bring: Callable[[EventStore, str], object],
    stop: Event,
) -> None:
    """Until told to stop, bring adapters that the routing names and this machine lacks.

    Whatever routes puts them on a shelf of its own, which the local model of another machine does
    not see. Until one is there, the version before answers.

    Args:
        store: Opens the store, or raises while it is away.
        shelf: Where adapters lie for the local model.
        bring: Puts the adapter of a version of the store on the shelf.
        stop: Set when it is to end.
    """
    seen: dict[str, int] | None = None
    missing: list[str] = []
    pause, said = LOOK_SECONDS, ""
    while not stop.wait(pause):
        try:
            opened = store()
            now = opened.last_positions(READ)
            if now != seen or missing:
                wanted = wanted_adapters(read_state(opened, shelf))
                missing = [version for version, folder in wanted.items() if not folder.exists()]
                seen = now
            for version in missing:
                bring(opened, version)
            pause, said = LOOK_SECONDS, ""
        except Exception as error:  # the store or MLflow is away, or has lost it
            if str(error) != said:
                logger.warning("an adapter that the routing names does not come: %s", error)
            pause, said = min(2 * pause, _LONGEST_PAUSE), str(error)


@dataclass(slots=True)
class AdapterKeeper:
    """See the module's text.

    Attributes:
        servers: Replicas, each with adapters of its own.
        on_loaded: Told the names of server and version when an adapter was loaded again.
        shelf: Where adapters lie for the backend.
        clock: Seconds, monotonic.
    """

    servers: Sequence[HttpBackend]
    on_loaded: Callable[[str, str], None]
    shelf: AdapterShelf | None = None
    clock: Callable[[], float] = time.monotonic
    _unnamed: dict[str, dict[str, float]] = field(default_factory=dict)
    _named: set[str] = field(default_factory=set)
    _said: dict[str, str] = field(default_factory=dict)

    async def follow(self, state: Callable[[], State]) -> None:
        """Look every second, for ever; one server never waits for another.

        Args:
            state: Gives what the routing says now.
        """

        async def hold(server: HttpBackend) -> None:
            while True:
                try:
                    await self.look(server, state())
                except Exception:
                    logger.exception("the adapters of %s cannot be looked at", server.name)
                await asyncio.sleep(LOOK_SECONDS)

        await asyncio.gather(*(hold(server) for server in self.servers))

    async def prepare(self, state: State) -> None:
        """Load what a new routing names before anybody is sent there, as far as it is quick."""
        looks = (self.look(server, state, unload=False) for server in self.servers)
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*looks), PREPARE_SECONDS)

    async def look(self, server: HttpBackend, state: State, *, unload: bool = True) -> None:
        """Hold one server to the routing once; what fails is logged and tried again."""
        problems = list[str]()
        try:
            problems += await self._hold(server, state, await server.models(), unload=unload)
        except BackendError as error:
            problems.append(error.reason)
        said = "; ".join(problems)
        if said and said != self._said.get(server.name):
            logger.warning("%s lacks adapters that the routing names: %s", server.name, said)
        self._said[server.name] = said

    async def _hold(
        self, server: HttpBackend, state: State, loaded: set[str], *, unload: bool
    ) -> list[str]:
        """Load what the routing names and is not loaded, and unload what it no longer names."""
        problems = list[str]()
        wanted = {
            state.names.get(version, version): folder
            for version, folder in wanted_adapters(state).items()
        }
        for name, folder in wanted.items():
            if name not in loaded:
                problems += await self._load(server, name, folder)
        self._named |= set(wanted)
        if unload:
            ours = {state.names.get(name, name): place for name, place in state.adapters.items()}
            for name in self._unnamed_for_long(server, loaded - set(wanted), ours):
                problems += await self._unload(server, name)
        return problems

    async def _load(self, server: HttpBackend, version: str, folder: Path) -> list[str]:
        """Load a version; return what is wrong, if anything is."""
        try:
            place = str(folder) if self.shelf is None else self.shelf.at_backend(folder)
            await server.load_adapter(version, Path(place))
        except BackendError as error:
            if version in await server.models():
                return []  # another process was faster
            if error.detail is not None and "already" in error.detail.message:
                await server.unload_adapter(version)  # the name is taken and nothing behind it
            return [error.reason]
        logger.info("%s has loaded %s", server.name, version)
        self.on_loaded(server.name, version)
        return []

    async def _unload(self, server: HttpBackend, version: str) -> list[str]:
        """Unload a version; return what is wrong, if anything is."""
        try:
            await server.unload_adapter(version)
        except BackendError as error:
            return [error.reason] if version in await server.models() else []
        logger.info("%s has unloaded %s, which no routing names", server.name, version)
        return []

    def _unnamed_for_long(
        self, server: HttpBackend, others: set[str], ours: Mapping[str, Path | None]
    ) -> list[str]:
        """Return those of this home's versions that no routing has named for some seconds."""
        now, unnamed = self.clock(), self._unnamed.setdefault(server.name, {})
        mine = {version for version in others if ours.get(version) is not None}
        for version in unnamed.keys() - mine:
            del unnamed[version]
        return [
            version
            for version in sorted(mine)
            if now - unnamed.setdefault(version, now)
            >= (UNLOAD_SECONDS if version in self._named else CHECKED_SECONDS)
        ]
