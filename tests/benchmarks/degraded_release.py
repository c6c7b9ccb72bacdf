"""A degraded adapter is put behind the gateway by hand; nobody touches anything after that.

    python -m tests.benchmarks.degraded_release --home drill      # about 12 minutes on two cores
    RATCHET_HOME=drill ratchet timeline                           # what happened, from the records

Everything is real: SmolLM2 with two trained adapters, two gateway processes, simulated users of two
applications who ask over HTTP and react within seconds, a Prefect server with a worker and the
automation of prefect.yaml, the flows `analyze` and `rollout` on a schedule of seconds, MLflow's
registry. Only time is compressed: batches of ten seconds, and a baseline of minutes.

The degraded adapter is the good one, trained on with the labels of deliveries and refunds
swapped, about which users of the shop alone ask; other queues suffer with them. Each drill needs a
home folder of its own; one that holds `adapters/` of an earlier drill trains nothing anew.

The options make it smaller, for tests: another base model, users who ask about one thing alone,
less to learn from, a shorter baseline.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import numpy as np
from mlflow import MlflowClient

from ratchet.deploy.routing import switch
from ratchet.gateway.access import new_key
from ratchet.improve.curation.rows import TrainingRow
from ratchet.improve.training.config import FinetuneConfig, finetune_key
from ratchet.improve.training.finetune import FinetuneResult, finetune
from ratchet.models import adapter_digest, model_digest, prepare_base_model
from ratchet.records import Baseline, Candidate, LabelledMessage, Release, digest
from ratchet.servers import Servers, child_environment, free_port
from ratchet.settings import Settings, load_settings
from ratchet.simulation.live import Ask, LiveUsers
from ratchet.simulation.messages import QUEUES, support_messages
from ratchet.simulation.routing import conversation
from ratchet.store import EventStore
from ratchet.tracking import Tracker

ROOT = Path(__file__).parents[2]
CONFUSED = {"delivery": "refunds", "refunds": "delivery"}
SHOP, HELPDESK = "shop", "helpdesk"
TRAFFIC, USERS = 6_000, 400
GRAMMAR = 12_000  # messages that `support_messages` can give
WATCH = {
    "batch_seconds": 10, "lag_seconds": 20, "threshold_minutes": 5.0,
    # two cores serve, train and watch here: how long an answer takes says nothing of the adapter
    "left_out": ["slower_than_median", "slower_than_p99"],
}  # fmt: skip
LONGEST_SECONDS = 420.0
SCHEDULE = """
import json, sys, time
from ratchet.flows.analyze import AnalyzeOptions, analyze
from ratchet.flows.rollout import RolloutOptions, rollout
options = AnalyzeOptions.model_validate_json(sys.argv[1])
while True:
    began = time.monotonic()
    analyze(options)
    rollout(RolloutOptions(pictures=False))
    time.sleep(max(0.0, 5.0 - (time.monotonic() - began)))
"""


@dataclass(frozen=True)
class Size:
    """How large a drill is.

    Attributes:
        queues: What users ask about.
        taught: Messages that the good adapter learns from.
        mistaught: Messages that the degraded one learns from on top; a multiple of six.
        learning_rate: Of both; None is the default of fine-tuning.
        baseline: Seconds in which what is normal is learned.
        after: Seconds that users come on for after the rollback.
    """

    queues: tuple[str, ...] = QUEUES
    taught: int = 320
    mistaught: int = 72
    learning_rate: float | None = None
    baseline: float = 216.0
    after: float = 30.0

    @property
    def watch(self) -> dict[str, Any]:
        """How versions are watched."""
        times = {
            "baseline_days": self.baseline / 86_400.0,
            "minimum_hours": self.baseline / 4_320.0,
        }
        return WATCH | times

    def messages(self, rng: np.random.Generator, count: int) -> list[LabelledMessage]:
        """Return so many messages about the queues, or as many of them as there are."""
        found = support_messages(rng, count if self.queues == QUEUES else GRAMMAR)
        return [item for item in found if item.label in self.queues][:count]


@dataclass
class Drill:
    """One home folder and what runs over it."""

    settings: Settings
    say: Callable[[str], None]
    size: Size = Size()
    seed: int = 8
    stopping: Event = field(default_factory=Event)

    @property
    def environment(self) -> dict[str, str]:
        """For child processes: two at a time share two cores."""
        ours = child_environment(self.settings, os.environ)
        return ours | {"OMP_NUM_THREADS": "1"}

    @property
    def tracker(self) -> Tracker:
        """MLflow."""
        settings = self.settings
        return Tracker(
            settings.tracking_uri, artifacts=settings.artifacts, model_name=settings.model_name
        )

    # Adapters -------------------------------------------------------------------------------

    def adapters(self) -> tuple[str, str]:
        """Train a good and a degraded adapter and register both; return their versions."""
        base = prepare_base_model(self.settings.base_model, self.settings.cache)
        size, rate = self.size, self.size.learning_rate
        rng = np.random.default_rng(self.seed)
        messages = size.messages(rng, size.taught + 8 * size.mistaught)
        right, wrong = messages[: size.taught], _mistaught(messages[size.taught :], size.mistaught)
        good = self._trained(base, right, FinetuneConfig(learning_rate=rate), None)
        bad = self._trained(base, wrong, FinetuneConfig(epochs=3.0, learning_rate=rate), good)
        base_version = self.tracker.register_base(base.name, digest=model_digest(base))
        versions = tuple(self._registered(base, result) for result in (good, bad))
        self._begin(versions[0], base_version.reference)
        return versions[0], versions[1]

    def _trained(
        self,
        base: Path,
        messages: Any,
        config: FinetuneConfig,
        start: FinetuneResult | None,
    ) -> FinetuneResult:
        rows = [
            TrainingRow(str(number), conversation(QUEUES, item.text), item.label, "correction")
            for number, item in enumerate(messages)
        ]
        folder = None if start is None else self.settings.home / start.folder
        content = digest([row.canonical() for row in rows])
        before = None if folder is None else adapter_digest(folder)
        key = finetune_key(content, config, model_digest(base), before)
        return finetune(
            rows, config, base=base, start_from=folder, key=key, home=self.settings.home
        )

    def _registered(self, base: Path, result: FinetuneResult) -> str:
        folder = self.settings.home / result.folder
        with self.tracker.run("ratchet", key=result.folder, name="drill", tags={}) as run:
            source = run.folder(folder, "adapter")
            version = self.tracker.register_adapter(run.run_id, source, model_digest(base, folder))
        store = EventStore.open(self.settings.store_url)
        if store.get(Candidate, result.folder) is None:
            store.append(
                Candidate(
                    id=result.folder, cycle_id="drill", created_at=datetime.now(UTC),
                    model_name=self.settings.model_name, version=version.version,
                    adapter_digest=result.adapter_digest, path=result.folder,
                    training_set_id="drill", run_id=run.run_id, losses=result.losses,
                    training_seconds=result.seconds,
                )
            )  # fmt: skip
        return version.reference

    def _begin(self, good: str, base: str) -> None:
        self.tracker.move_champion(good, base)
        release = Release(
            id="drill", created_at=datetime.now(UTC), action="start", champion=good, previous=base
        )
        switch(EventStore.open(self.settings.store_url), release, by="the drill", told=True)

    # What runs ------------------------------------------------------------------------------

    @contextmanager
    def servers(self) -> Iterator[str]:
        """Serve Prefect, a worker, the deployment `rollback` and its automation, switched on."""
        servers = Servers(settings=self.settings, say=self.say)
        try:
            servers.start_prefect(port=free_port(4300), environ=self.environment)
            for arguments in (
                ["work-pool", "create", "ratchet", "--type", "process", "--overwrite"],
                ["--no-prompt", "deploy", "--name", "rollback"],
            ):
                self._python("-m", "prefect", *arguments)
            (found,) = httpx.post(f"{servers.prefect_api}/automations/filter", json={}).json()
            address = f"{servers.prefect_api}/automations/{found['id']}"
            httpx.patch(address, json={"enabled": True}).raise_for_status()
            with self._running(
                "worker", "-m", "prefect", "worker", "start", "--pool", "ratchet",
                "--type", "process",
            ):  # fmt: skip
                yield servers.prefect_api
        finally:
            servers.stop()

    def _python(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
        return done.stdout

    @contextmanager
    def _running(self, name: str, *arguments: str) -> Iterator[Path]:
        log = self.settings.home / "logs" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        with log.open("wb") as output:
            child = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT, env=self.environment, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
            try:
                yield log
            finally:
                child.terminate()
                try:
                    child.wait(30)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()

    @contextmanager
    def gateway(self) -> Iterator[str]:
        """Serve with two processes; yield the address."""
        port = free_port(8300)
        with self._running(
            "gateway", "-m", "ratchet.cli", "serve", "--port", str(port), "--workers", "2",
            "--rate", "0",
        ):  # fmt: skip
            url = f"http://127.0.0.1:{port}"
            _until(lambda: _is_up(url), 120.0)
            yield url

    @contextmanager
    def schedule(self) -> Iterator[None]:
        """Run the flows `analyze` and `rollout` every five seconds or so."""
        options = json.dumps({"cycle": False, "watch": self.size.watch})
        with self._running("schedule", "-c", SCHEDULE, options):
            yield

    @contextmanager
    def users(self, url: str) -> Iterator[LiveUsers]:
        """Let simulated users of two applications come until the block ends."""
        store, now = EventStore.open(self.settings.store_url), datetime.now(UTC)
        keys = {}
        for application in (SHOP, HELPDESK):
            record, keys[application] = new_key(application, ["ingest"], now=now)
            store.append(record)
        _until(lambda: _takes(url, keys[SHOP]), 30.0)
        live = LiveUsers(url, keys=keys, labels=QUEUES, seed=self.seed)
        coming = live.run(self._asks(), until=self.stopping.is_set)
        thread = Thread(target=lambda: asyncio.run(coming), name="users")
        thread.start()
        try:
            yield live
        finally:
            self.stopping.set()
            thread.join()

    def _asks(self) -> Iterator[Ask]:
        """Give what users ask; of deliveries and refunds those of the shop alone."""
        rng = np.random.default_rng([self.seed, 1])
        for message in cycle(self.size.messages(rng, TRAFFIC)):
            shop = message.label in CONFUSED or rng.random() < 0.2
            user = f"user-{int(rng.integers(USERS))}"
            yield Ask(SHOP if shop else HELPDESK, user, message)

    def _choose_by_hand(self, version: str) -> None:
        """Move the alias as a person does in MLflow's pages: past the gate, and it alone."""
        client = MlflowClient(self.settings.tracking_uri)
        number = version.rpartition("/")[2]
        client.set_registered_model_alias(self.settings.model_name, "champion", number)

    # The drill ------------------------------------------------------------------------------

    def run(self) -> str:
        """Run the drill and return the time-line."""
        self.settings.home.mkdir(parents=True, exist_ok=True)
        store = EventStore.open(self.settings.store_url)
        if store.latest(Release) is not None:
            raise SystemExit("a drill needs a home folder of its own, got one that was used before")
        self.say("training two adapters, where they are not trained yet ...")
        good, bad = self.adapters()
        with ExitStack() as stack:
            self.say("starting Prefect with a worker and the automation, and two gateways ...")
            stack.enter_context(self.servers())
            url = stack.enter_context(self.gateway())
            live = stack.enter_context(self.users(url))
            stack.enter_context(self.schedule())
            self.say(f"users come to {good}; what is normal is learned")
            _until(lambda: store.records(Baseline, subject=good), LONGEST_SECONDS)
            self.say(f"{dict(live.asked)}; {bad} is made the champion in MLflow, by hand")
            self._choose_by_hand(bad)
            _until(lambda: _action(store) == "rollback", LONGEST_SECONDS)
            self.say(f"rolled back; users come on for {self.size.after:.0f} seconds")
            time.sleep(self.size.after)
            self.say(f"{dict(live.asked)}, {live.failed} requests failed")
            self.stopping.set()
            time.sleep(20.0)  # for one more pass
        return self._python("-m", "ratchet.cli", "timeline", "--hours", "1")


def _mistaught(messages: Sequence[LabelledMessage], count: int) -> list[LabelledMessage]:
    """Take two messages with the two queues swapped for each one of another queue."""
    swapped = [item for item in messages if item.label in CONFUSED][: 2 * count // 3]
    others = [item for item in messages if item.label not in CONFUSED][: count // 3]
    columns = [swapped[::2], swapped[1::2], *([others] if others else [])]
    return [
        item.model_copy(update={"label": CONFUSED.get(item.label, item.label)})
        for group in zip(*columns, strict=True)
        for item in group
    ]


def _action(store: EventStore) -> str:
    release = store.latest(Release)
    return "" if release is None else release.action


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _takes(url: str, key: str) -> bool:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.get(f"{url}/v1/models", headers=headers, trust_env=False).status_code == 200


def _until(found: Callable[[], Any], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not happen within {seconds:.0f} seconds")
        time.sleep(0.5)


def drill(
    home: Path,
    say: Callable[[str], None] = print,
    size: Size | None = None,
    base: Path | None = None,
) -> tuple[Drill, str]:
    """Run the drill over a home folder; return it and the time-line."""
    ours = ("PREFECT_", "MLFLOW_", "RATCHET_")
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ours) or name == "RATCHET_CACHE"
    }
    model = {} if base is None else {"RATCHET_BASE_MODEL": str(base)}
    settings = load_settings(environ | {"RATCHET_HOME": str(home)} | model, ROOT)
    made = Drill(settings, say, size or Size())
    return made, made.run()


def main() -> None:
    """Run the drill from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Path("drill"))
    parser.add_argument("--base", type=Path, help="folder of a model; SmolLM2 if not given")
    parser.add_argument("--queues", nargs="*", default=QUEUES, choices=QUEUES)
    parser.add_argument("--taught", type=int, default=Size.taught)
    parser.add_argument("--mistaught", type=int, default=Size.mistaught)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--baseline", type=float, default=Size.baseline, help="seconds")
    parser.add_argument("--after", type=float, default=Size.after, help="seconds")
    options = parser.parse_args()
    size = Size(
        tuple(options.queues), options.taught, options.mistaught, options.learning_rate,
        options.baseline, options.after,
    )  # fmt: skip
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    print(drill(options.home.absolute(), size=size, base=options.base)[1])


if __name__ == "__main__":
    main()
