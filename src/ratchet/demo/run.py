"""The demonstration in three steps: prepare the home, have users talk, run the loop.

demo = Demo(servers, DemoOptions(messages_limit=640))
code = demo.run(loop={"deploy": {"policy": "policy.yaml"}}, environ=os.environ)

The users come to a gateway that `ratchet serve` would start, over HTTP; the loop is the one of
production and knows nothing of them. Stopped at any moment and run again, it goes on.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ratchet.demo.asking import Asking
from ratchet.demo.plan import DemoOptions, plan_visits, read_task, write_examples
from ratchet.errors import InvalidInputError
from ratchet.operate.opening import open_store
from ratchet.records import Cycle
from ratchet.servers import Servers
from ratchet.settings import Settings, private_folder
from ratchet.store import EventStore
from ratchet.store.cycles import unfinished_cycle
from ratchet.store.origins import refuse_among_real

logger = logging.getLogger(__name__)

_PORT = 8000


@dataclass(slots=True)
class Demo:
    """See the module's text.

    Attributes:
        servers: Of the home; Prefect's runs already.
        options: Who comes, and what they want.
    """

    servers: Servers
    options: DemoOptions

    def run(self, loop: Mapping[str, Any], *, environ: Mapping[str, str]) -> int:
        """Prepare, talk and run one cycle; return the exit code of what failed, or 0.

        Args:
            loop: Further options of the loop.
            environ: The environment of what is started.

        Raises:
            RatchetError: A file breaks a rule, real users came to this home, or the gateway does
                not answer.
        """
        settings, now = self.servers.settings, datetime.now(UTC)
        task, _ = read_task(self.options, now)
        folder = private_folder(settings.home / "demo")
        examples = write_examples(task, self.options.instruction, folder)
        told = [self.options.model_dump_json(), str(examples)]
        if code := self.servers.run(["ratchet.demo.prepare", *told]):
            return code
        store = open_store(settings)
        refuse_among_real(store.origins())
        number = _next_cycle(store)
        asking = Asking(
            folder / f"asked-{number}-{self.options.asks}.jsonl",
            self.options,
            task.labels,
            plan_visits(task, self.options, number),
        )
        if not asking.is_over:
            with self.servers.gateway(port=_PORT, environ=environ) as url:
                logger.info("users talk to the gateway at %s", url)
                asking.run(url)
            asking.end()
        code = self.servers.run(["ratchet.flows.loop", json.dumps(self._of_loop(loop, examples))])
        if code == 0:
            asking.path.unlink(missing_ok=True)
        return code

    def _of_loop(self, loop: Mapping[str, Any], examples: Path) -> dict[str, Any]:
        collect = {
            "examples": str(examples),
            "max_new_tokens": self.options.max_new_tokens,
            "seed": self.options.seed,
        }
        return {**loop, "collect": collect}


def _next_cycle(store: EventStore) -> int:
    """Return the number of the cycle that the users' traffic is for."""
    unfinished = unfinished_cycle(store)
    return unfinished.number if unfinished else len(store.records(Cycle)) + 1


def refuse_among_real_users(settings: Settings, store: EventStore | None) -> None:
    """Refuse to have simulated users talk where real ones do.

    Raises:
        InvalidInputError: The store holds real ones, or the home stands in front of a server.
    """
    if settings.backend:
        raise InvalidInputError(
            "simulated users must not come among real ones, got a home that stands in front of a "
            "server; set RATCHET_HOME to another folder"
        )
    if store is not None:
        refuse_among_real(store.origins())
