"""A few configurations against each other, within a time budget, by their validation loss.

Successive halving (Jamieson and Talwalkar 2016): every trial trains for a share of its run, the
better ones go on from where they stopped. A trial that goes on is the same run as one that was not
stopped, so the winner's is not done again, and a search that is interrupted goes on too.
"""

from __future__ import annotations

import itertools
import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ratchet.errors import InsufficientDataError, InvalidInputError, RatchetError
from ratchet.files.whole import write_whole
from ratchet.improve.curation.rows import Row
from ratchet.improve.training.callbacks import validation_losses
from ratchet.improve.training.config import FinetuneConfig
from ratchet.improve.training.memory import free_memory
from ratchet.improve.training.run import TrainingJob, prepare_job, train, work_folder
from ratchet.records import digest

logger = logging.getLogger(__name__)

Value = int | float | bool | str | tuple[str, ...] | None
Status = Literal["measured", "dropped", "failed", "out of time"]


class SearchConfig(BaseModel):
    """Which configurations are tried, and for how long.

    Attributes:
        grid: Values by the name of a setting of `FinetuneConfig`; every combination is a trial.
        trials: At most so many of the combinations, chosen by the seed.
        budget_seconds: No trial begins a stage that would end after this, going by its own speed.
        stages: 1 trains every trial to its end; with more, each stage keeps a third and trains
            three times as far.
        seed: Chooses the combinations.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    grid: dict[str, tuple[Value, ...]]
    trials: Annotated[int, Field(ge=1)] = 8
    budget_seconds: Annotated[float, Field(gt=0.0)] = 1800.0
    stages: Annotated[int, Field(ge=1, le=5)] = 2
    seed: int = 0


class Trial(BaseModel):
    """A configuration with what was measured of it.

    Attributes:
        settings: What it changes of the configuration that the search began from.
        losses: Validation losses as (share of the run, loss), in order.
        seconds: Of training.
        status: `measured` reached the last stage, `dropped` was behind others before.
        reason: Why it failed or was not measured to the end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: dict[str, Value]
    losses: tuple[tuple[float, float], ...] = ()
    seconds: float = 0.0
    status: Status = "out of time"
    reason: str = ""


class SearchResult(BaseModel):
    """All trials, and the best configuration.

    Attributes:
        best: The configuration with the lowest validation loss among those that got furthest.
        seconds: Of training, over all interruptions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    best: FinetuneConfig
    trials: tuple[Trial, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Study:
    job: TrainingJob
    configs: tuple[FinetuneConfig, ...]
    settings: tuple[dict[str, Value], ...]
    options: SearchConfig
    home: Path
    key: Callable[[FinetuneConfig], str]


def search(
    rows: Sequence[Row],
    config: FinetuneConfig,
    options: SearchConfig,
    *,
    base: Path,
    start_from: Path | None,
    home: Path,
    key: Callable[[FinetuneConfig], str],
    validation: Sequence[Row] = (),
    clock: Callable[[], float] = time.monotonic,
) -> SearchResult:
    """Try configurations and return all trials with the best one.

    `finetune` with the best configuration and its key goes on with the run that won.

    Args:
        rows: What to learn.
        config: What the trials have in common; without validation rows it must hold a share out.
        options: What is tried.
        base: Folder of the base model.
        start_from: Folder of an adapter to go on from.
        home: The home folder.
        key: The key of a configuration, as `finetune` gets it.
        validation: Rows to measure with.
        clock: Seconds.

    Raises:
        InvalidInputError: A name is no setting, a value does not fit, or there is no validation.
        InsufficientDataError: No trial was measured within the budget.
    """
    if not validation and config.validation_share == 0.0:
        raise InvalidInputError(
            "a search compares validation losses, got no validation rows; set validation_share"
        )
    settings = combinations(options)
    configs = tuple(_changed(config, change) for change in settings)
    job = prepare_job(rows, config, base=base, start_from=start_from, validation=validation)
    study = _Study(job, configs, settings, options, home, key)
    path = home / "adapters" / f"search-{_identity(study)[:16]}.json"
    found = _read(path, study)
    for stage in range(options.stages):
        share = 3.0 ** (stage + 1 - options.stages)
        for place in _contenders(found, stage, options):
            if not any(done == share for done, _ in found[place].losses):
                found[place] = _measure(study, found, place, share, clock)
                _write(path, found)
    found = _judged(found)
    best = _best(found)
    for place, trial_config in enumerate(configs):
        if place != best:
            shutil.rmtree(_work(study, trial_config), ignore_errors=True)
    logger.info("the best of %d trials: %s", len(found), settings[best])
    return SearchResult(best=configs[best], trials=tuple(found), seconds=_spent(found))


def combinations(options: SearchConfig) -> tuple[dict[str, Value], ...]:
    """Return the combinations that are tried.

    Raises:
        InvalidInputError: A name is no setting that can be tried, or one has no values.
    """
    fixed = {"method", "validation_share", "evaluations", "patience"}
    unknown = [n for n in options.grid if n not in FinetuneConfig.model_fields or n in fixed]
    if unknown or not options.grid or not all(options.grid.values()):
        raise InvalidInputError(
            f"a search tries values of settings of FinetuneConfig other than "
            f"{', '.join(sorted(fixed))}, got {dict(options.grid)}; name them in `grid`"
        )
    names = list(options.grid)
    every = [
        dict(zip(names, values, strict=True))
        for values in itertools.product(*options.grid.values())
    ]
    order = np.random.default_rng(options.seed).permutation(len(every))[: options.trials]
    return tuple(every[place] for place in sorted(order))


def _changed(config: FinetuneConfig, change: Mapping[str, Value]) -> FinetuneConfig:
    try:
        return FinetuneConfig.model_validate(config.model_dump() | dict(change))
    except ValueError as error:
        raise InvalidInputError(
            f"a trial must be a valid configuration, got {dict(change)}: {error}; change `grid`"
        ) from error


def _contenders(found: Sequence[Trial], stage: int, options: SearchConfig) -> list[int]:
    """Return the trials that take part in a stage, the best of the one before first."""
    alive = [place for place, trial in enumerate(found) if trial.status != "failed"]
    if stage == 0:
        return alive
    before = 3.0 ** (stage - options.stages)
    losses = {place: dict(found[place].losses).get(before, math.inf) for place in alive}
    ranked = sorted((p for p in alive if math.isfinite(losses[p])), key=lambda p: losses[p])
    return ranked[: max(1, math.ceil(len(found) / 3**stage))]


def _measure(
    study: _Study,
    found: Sequence[Trial],
    place: int,
    share: float,
    clock: Callable[[], float],
) -> Trial:
    """Train one trial up to a share of its run and measure it, if there is time."""
    trial, spent = found[place], _spent(found)
    done = trial.losses[-1][0] if trial.losses else 0.0
    needed = trial.seconds / done * (share - done) if done else 0.0
    if spent + needed >= study.options.budget_seconds:
        return trial.model_copy(
            update={
                "reason": f"{spent:.0f} of {study.options.budget_seconds:.0f} s were spent and "
                f"{needed:.0f} s more needed"
            }
        )
    started = clock()
    config = study.configs[place]
    job = replace(study.job, config=config, pause_after=share)
    logger.info("trial %s up to %.0f %% of its run", study.settings[place], 100 * share)
    try:
        with work_folder(study.home, study.key(config)) as work:
            measured = validation_losses(train(job, work).history)
    except (RatchetError, RuntimeError) as error:
        free_memory()
        change = {"status": "failed", "reason": f"{type(error).__name__}: {error}"[:500]}
        return trial.model_copy(update=change | {"seconds": trial.seconds + clock() - started})
    free_memory()
    losses = (*trial.losses, (share, measured[-1][1]))
    seconds = trial.seconds + clock() - started
    return trial.model_copy(update={"losses": losses, "seconds": seconds})


def _judged(found: Sequence[Trial]) -> list[Trial]:
    """Say of each trial how it ended."""
    judged = []
    for trial in found:
        if trial.losses and trial.losses[-1][0] == 1.0:
            judged.append(trial.model_copy(update={"status": "measured", "reason": ""}))
        elif trial.status != "failed" and trial.losses and not trial.reason:
            judged.append(trial.model_copy(update={"status": "dropped"}))
        else:
            judged.append(trial)
    return judged


def _best(found: Sequence[Trial]) -> int:
    measured = [
        (-trial.losses[-1][0], trial.losses[-1][1], place)
        for place, trial in enumerate(found)
        if trial.status != "failed" and trial.losses and math.isfinite(trial.losses[-1][1])
    ]
    if not measured:
        reasons = "; ".join(trial.reason for trial in found if trial.reason) or "no finite loss"
        raise InsufficientDataError(
            f"a search needs a measured trial, got none of {len(found)} ({reasons}); "
            "raise budget_seconds or change `grid`"
        )
    return min(measured)[2]


def _spent(found: Sequence[Trial]) -> float:
    return sum(trial.seconds for trial in found)


# On disk ------------------------------------------------------------------------------------------


def _work(study: _Study, config: FinetuneConfig) -> Path:
    return study.home / "adapters" / f"training-{study.key(config)[:16]}"


def _identity(study: _Study) -> str:
    keys = [study.key(config) for config in study.configs]
    return digest([keys, study.options.stages])


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: tuple[Trial, ...]


def _read(path: Path, study: _Study) -> list[Trial]:
    if not path.exists():
        return [Trial(settings=change) for change in study.settings]
    logger.info("going on with an earlier search")
    stored = _Stored.model_validate_json(path.read_text("utf-8")).trials
    return [trial.model_copy(update={"reason": ""}) if trial.status != "failed" else trial
            for trial in stored]  # fmt: skip


def _write(path: Path, found: Sequence[Trial]) -> None:
    write_whole(path, _Stored(trials=tuple(found)).model_dump_json().encode())
