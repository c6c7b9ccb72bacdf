"""Which versions the servers have: each is asked for its models at the start and every second.

    listing = Listing(servers)
    await listing.look()
    listing.lacking(state)  # {"backend-2": ["support-router/3"]}

A server that does not say what it has is believed to have everything: what it answers shows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from ratchet.gateway.http_backend import HttpBackend
from ratchet.gateway.replies import BackendError
from ratchet.gateway.routing import State

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0


@dataclass(slots=True)
class Listing:
    """See the module's text.

    Attributes:
        servers: The replicas.
    """

    servers: Sequence[HttpBackend]
    _said: dict[str, str] = field(default_factory=dict)

    async def look(self) -> None:
        """Ask every server once, side by side."""
        await asyncio.gather(*(self._ask(server) for server in self.servers))

    async def follow(self) -> NoReturn:
        """Ask every second, for ever; one server never waits for another."""

        async def hold(server: HttpBackend) -> NoReturn:
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                await self._ask(server)

        await asyncio.gather(*(hold(server) for server in self.servers))
        raise AssertionError("a loop without an end has ended")

    async def _ask(self, server: HttpBackend) -> None:
        try:
            await server.models()
        except BackendError as error:
            if self._said.get(server.name) != error.reason:
                logger.warning("%s does not say what it serves: %s", server.name, error.reason)
            self._said[server.name] = error.reason
        else:
            self._said.pop(server.name, None)

    def has(self, state: State, version: str) -> bool:
        """Tell whether a server has a version, as far as servers say."""
        return any(server.has(state.target(version)) for server in self.servers)

    def lacking(self, state: State) -> dict[str, list[str]]:
        """Return the versions that the routing names and a server lacks, by the server's name."""
        lacks = {
            server.name: [v for v in state.served if not server.has(state.target(v))]
            for server in self.servers
        }
        return {name: versions for name, versions in lacks.items() if versions}
