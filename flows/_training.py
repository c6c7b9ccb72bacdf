"""Training as tasks: one run a GPU at a time, cached by what determines it, watched in MLflow."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from pydantic import BaseModel, ConfigDict, Field

from ratchet.flows._runtime import base_folder, cycle_run, logger, workspace
from ratchet.improve.curation.dataset import read_any_rows
from ratchet.improve.curation.rows import Row
from ratchet.improve.training.config import TOKENS_BEFORE, FinetuneConfig, Start
from ratchet.improve.training.devices import Device, choose_device
from ratchet.improve.training.launch import LaunchConfig, launched
from ratchet.improve.training.run import is_known
from ratchet.improve.training.search import SearchConfig, SearchResult, search
from ratchet.models import adapter_digest, model_digest
from ratchet.operate.base_model import is_of
from ratchet.records import Cycle, TrainingSet


class TrainingOptions(BaseModel):
    """How training is carried out; nothing here changes the adapter of a configuration.

    Attributes:
        launch: How many processes train it.
        search: Configurations to try first; None takes the one that is given.
        samples: How many answers before and after are kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    launch: LaunchConfig = LaunchConfig()
    search: SearchConfig | None = None
    samples: int = Field(default=4, ge=0, le=64)


def starting_point(champion: str) -> Start:
    """Return what a training from the champion begins with: files of gigabytes are read for it."""
    start = _start(champion)
    return Start(model_digest(base_folder()), adapter_digest(start) if start else None)


def training_key(training_set: TrainingSet, config: FinetuneConfig, start: Start) -> str:
    """Return what names a configuration's adapter: rows, configuration, base model and start.

    A training of before is found by the name that it had, after the digest of the whole set.
    """
    home, whole = workspace().settings.home, start.key(training_set.digest, config)
    if not training_set.learnt:
        return whole
    key = start.key(training_set.learnt, config)
    return whole if is_known(home, whole) and not is_known(home, key) else key


def as_begun(training_set: TrainingSet, config: FinetuneConfig, start: Start) -> FinetuneConfig:
    """Return the configuration of a training that began when a limit of tokens was the default.

    Its checkpoints saw other rows than those that fit today; it goes on, and is known, as it began.
    """
    before = config.model_copy(update={"maximum_tokens": TOKENS_BEFORE})
    home = workspace().settings.home
    begun = config.maximum_tokens is None and is_known(
        home, training_key(training_set, before, start)
    )
    today = is_known(home, training_key(training_set, config, start))
    return before if begun and not today else config


def _start(champion: str) -> Path | None:
    """Return the adapter to go on from: the champion's, unless it is of another base model."""
    tracker = workspace().tracker
    version = tracker.version(champion)
    adapter = tracker.adapter_folder(version)
    if adapter is None or is_of(base_folder(), version, adapter):
        return adapter
    logger.info(
        "%s is of another base model (%s): training begins from %s alone",
        champion, version.base, workspace().settings.base_model,
    )  # fmt: skip
    return None


def _rows(training_set: TrainingSet) -> tuple[list[Row], list[Row]]:
    """Return what is trained on, and what it is validated with, where the set says."""
    folder = workspace().settings.home.joinpath(training_set.path)
    return read_any_rows(folder), read_any_rows(folder, "validation")


@contextmanager
def gpu_slots(device: Device, processes: int) -> Iterator[None]:
    """Hold as many of this machine's GPUs as there are processes; wait until they are free.

    The limit is made with the machine's GPUs as its slots where nobody made it; one that a person
    set stands. A machine without a GPU has no limit: there the home's lock is enough.
    """
    if device.kind != "cuda":
        yield
        return
    name = f"ratchet-gpu-{socket.gethostname()}"
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            wanted = GlobalConcurrencyLimitCreate(name=name, limit=device.count)
            try:
                client.create_global_concurrency_limit(wanted)
            except ObjectAlreadyExists:
                logger.debug("another run made the limit %s meanwhile", name)
    # strict: without the limit two runs would share a GPU. A run of hours outlives a server that
    # does not answer for a moment.
    with concurrency(name, occupy=processes, strict=True, raise_on_lease_renewal_failure=False):
        yield


@task(name="search", cache_policy=NO_CACHE)
def choose_config(
    training_set: TrainingSet, config: FinetuneConfig, options: SearchConfig, champion: str
) -> SearchResult:
    """Try configurations on the training set; a search that was interrupted goes on."""
    rows, validation = _rows(training_set)
    start = starting_point(champion)
    with gpu_slots(choose_device(config), 1):
        return search(
            rows,
            config,
            options,
            base=base_folder(),
            start_from=_start(champion),
            home=workspace().settings.home,
            key=lambda tried: training_key(training_set, tried, start),
            validation=validation,
        )


@task(
    name="finetune",
    cache_key_fn=lambda _context, parameters: f"finetune-{parameters['key']}",
    persist_result=True,
    result_serializer="json",
)
def train(
    cycle: Cycle,
    training_set: TrainingSet,
    config: FinetuneConfig,
    options: TrainingOptions,
    key: str,
) -> dict[str, Any]:
    """Train the adapter; cached on the dataset, the configuration and what it starts from.

    What is cached is plain JSON, which `FinetuneResult.of_cache` reads: with the name of a class in
    it, the cache would break when the class moves.
    """
    work = workspace()
    rows, validation = _rows(training_set)
    with (
        gpu_slots(choose_device(config), options.launch.processes),
        cycle_run(cycle, "improve", key) as run,
        run.live() as report,
    ):
        result = launched(
            rows,
            config,
            options.launch,
            base=base_folder(),
            start_from=_start(cycle.champion),
            key=key,
            home=work.settings.home,
            validation=validation,
            report=report,
            samples=options.samples,
        )
    return result.model_dump(mode="json")
