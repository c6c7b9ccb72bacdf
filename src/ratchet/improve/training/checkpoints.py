"""Checkpoints of a training run, without pickles: tensors as safetensors, the rest as JSON.

    checkpoint-40/
        adapter_model.safetensors, adapter_config.json     the adapter, by peft
        optimizer.safetensors, optimizer.json              moments, and the groups' settings
        optimizer/shard-*.safetensors                      under FSDP in place of the former: what
                                                           each process holds, gathered nowhere
        scheduler.json, random-0.safetensors, random-0.json  one pair of the latter a process
        trainer_state.json, progress.json                  steps, losses, seconds
        sealed.json                                        names and digests of all of these, last

A checkpoint counts once it is sealed, so that a process killed while it writes leaves none that is
half done. Whatever could be a pickle is refused before anything is read.
"""

from __future__ import annotations

import json
import logging
import random
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from ratchet.errors import BusyError, ModelError
from ratchet.files.whole import file_digest, write_whole

logger = logging.getLogger(__name__)

SEAL, STATE, PROGRESS = "sealed.json", "trainer_state.json", "progress.json"
_OPTIMIZER, _SCHEDULER, _RANDOM = "optimizer", "scheduler.json", "random"
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".distcp"}
_MAGIC = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_BETWEEN = "|"  # no parameter's name has one
_SEEN_SECONDS, _POLL_SECONDS = 60.0, 0.5  # a network file system shows another machine's file late


# Which checkpoint ---------------------------------------------------------------------------------


def refuse_pickles(folder: Path) -> None:
    """Refuse a folder that holds anything which Python would unpickle.

    Raises:
        ModelError: A file has a pickle's ending or begins like one, zipped or bare.
    """
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        with path.open("rb") as file:
            start = file.read(4)
        if path.suffix.lower() in _PICKLES or start.startswith(_MAGIC):
            raise ModelError(
                f"weights and checkpoints must be safetensors and JSON, got what may be a pickle: "
                f"{path.relative_to(folder)} in {folder.name!r}; a pickle can run code when it is "
                "read, so remove it or convert it to safetensors"
            )


def seal(folder: Path) -> None:
    """Write down what the finished checkpoint holds; until then it does not count."""
    files = {
        str(path.relative_to(folder)): file_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != SEAL
    }
    _write_json(folder / SEAL, files)


def await_processes(folder: Path, processes: int) -> None:
    """Wait until this process sees what each of the others wrote last into a checkpoint.

    Raises:
        ModelError: It does not, within a minute.
    """
    until = time.monotonic() + _SEEN_SECONDS
    missing = [folder / f"{_RANDOM}-{process}.json" for process in range(processes)]
    while missing := [path for path in missing if not path.exists()]:
        if time.monotonic() > until:
            raise ModelError(
                "processes that train together must write into one folder that all of them see, "
                f"got no {missing[0].name} in {folder.name} on the machine that seals it; mount "
                "the same folder on every node"
            )
        time.sleep(_POLL_SECONDS)


def latest_checkpoint(run: Path) -> Path | None:
    """Return the newest sealed checkpoint of a run and remove those that were not finished.

    Raises:
        ModelError: It holds a pickle, or not what was sealed.
    """
    found = []
    for folder in run.glob("checkpoint-*"):
        if (folder / SEAL).exists():
            found.append(folder)
        else:
            logger.info("%s was not written to its end and is not used", folder.name)
            shutil.rmtree(folder, ignore_errors=True)
    if not found:
        return None
    newest = max(found, key=lambda folder: int(folder.name.rpartition("-")[2]))
    refuse_pickles(newest)
    for name, expected in json.loads((newest / SEAL).read_text("utf-8")).items():
        path = newest / name
        if not path.is_file() or file_digest(path) != expected:
            raise ModelError(
                f"a checkpoint must be as it was sealed, got a changed or missing {name} in "
                f"{newest.name}; remove the folder to go on from the one before"
            )
    return newest


@contextmanager
def sole_process(folder: Path) -> Iterator[None]:
    """Hold a work folder; the system lets go of it when the process dies.

    Raises:
        BusyError: Another process trains there.
    """
    lock = FileLock(folder / "lock", timeout=0, fallback_to_soft=False)
    try:
        held = lock.acquire()
    except Timeout as error:
        raise BusyError(
            f"an adapter is trained by one process at a time, got another one in "
            f"{folder.name}; wait for it"
        ) from error
    with held:
        yield


# Optimizer and schedule ---------------------------------------------------------------------------


def optimizer_state(model: Any, optimizer: Any) -> dict[str, Any]:
    """Return the optimizer's state by parameter name, whole on the first process.

    Every process takes part: a model that is spread over processes is gathered.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    found: dict[str, Any] = get_optimizer_state_dict(model, _plain(optimizer), options=options)
    return found


def save_optimizer(state: Mapping[str, Any], scheduler: Any, folder: Path) -> None:
    """Write the state from `optimizer_state`, and the learning-rate schedule."""
    from safetensors.torch import save_file

    tensors, plain = _by_place(state)
    whole = {place: value.detach().cpu().contiguous() for place, value in tensors.items()}
    save_file(whole, folder / f"{_OPTIMIZER}.safetensors")
    _write_rest(state, plain, scheduler, folder)


def save_optimizer_shards(
    model: Any, optimizer: Any, scheduler: Any, folder: Path, *, first: bool
) -> None:
    """Write optimizer and schedule of a model that is spread over processes (FSDP).

    Every process takes part and writes the part of the moments that it holds, so that none ever
    holds all of them. Any number of processes may read them.

    Args:
        model: The wrapped model.
        optimizer: Of the model.
        scheduler: The learning-rate schedule.
        folder: The checkpoint.
        first: Whether this process writes what all of them know.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    state = _shards(model, optimizer)
    tensors, plain = _by_place(state)
    (folder / _OPTIMIZER).mkdir(parents=True, exist_ok=True)
    writer = HuggingFaceStorageWriter(str(folder / _OPTIMIZER), save_distributed=True)
    save(tensors, storage_writer=writer)
    if first:
        _write_rest(state, plain, scheduler, folder)


def load_optimizer(model: Any, optimizer: Any, scheduler: Any, folder: Path) -> None:
    """Set optimizer and schedule to what was saved, whole or in shards; every process takes part.

    How many processes wrote it does not matter.
    """
    from safetensors.torch import load_file
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict
    from torch.distributed.checkpoint.state_dict_loader import load

    rest = _read_json(folder / f"{_OPTIMIZER}.json")
    sharded = (folder / _OPTIMIZER).is_dir()
    if sharded:
        values, _ = _by_place(_shards(model, optimizer))
        load(values, storage_reader=HuggingFaceStorageReader(str(folder / _OPTIMIZER)))
    else:
        values = load_file(folder / f"{_OPTIMIZER}.safetensors")
    state: dict[str, dict[str, Any]] = {}
    for place, value in (values | rest["plain"]).items():
        name, _, key = place.partition(_BETWEEN)
        state.setdefault(name, {})[key] = value
    whole = {"state": state, "param_groups": rest["param_groups"]}
    options = StateDictOptions(full_state_dict=not sharded)
    set_optimizer_state_dict(model, _plain(optimizer), whole, options=options)
    scheduler.load_state_dict(_read_json(folder / _SCHEDULER))


def _shards(model: Any, optimizer: Any) -> dict[str, Any]:
    """Return the part of the optimizer's state that this process holds, by parameter name."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    found: dict[str, Any] = get_optimizer_state_dict(model, _plain(optimizer))
    return found


def _by_place(state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return an optimizer's tensors, and what else it keeps, by parameter and name."""
    tensors: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    for name, values in state["state"].items():
        for key, value in values.items():
            of = tensors if hasattr(value, "dtype") else plain
            of[f"{name}{_BETWEEN}{key}"] = value
    return tensors, plain


def _write_rest(
    state: Mapping[str, Any], plain: Mapping[str, Any], scheduler: Any, folder: Path
) -> None:
    groups = [dict(group) for group in state["param_groups"]]
    _write_json(folder / f"{_OPTIMIZER}.json", {"plain": plain, "param_groups": groups})
    _write_json(folder / _SCHEDULER, scheduler.state_dict())


def _plain(optimizer: Any) -> Any:
    """Return the optimizer that accelerate wrapped."""
    return getattr(optimizer, "optimizer", optimizer)


# Chance -------------------------------------------------------------------------------------------


def save_random(folder: Path, process: int) -> None:
    """Write the state of every generator that training draws from."""
    import torch
    from safetensors.torch import save_file

    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    tensors = {"cpu": torch.random.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.random.get_rng_state()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / f"{_RANDOM}-{process}.safetensors")
    state = {
        "python": [version, list(internal), gauss],
        "numpy": [name, np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
    }
    _write_json(folder / f"{_RANDOM}-{process}.json", state)


def load_random(folder: Path, process: int, processes: int, *, bound: bool) -> None:
    """Set the generators to what `save_random` wrote.

    Where another number of processes wrote the checkpoint, no state fits, and the generators stay
    as they are.

    Args:
        folder: The checkpoint.
        process: The rank of this one.
        processes: How many train now.
        bound: Whether the numbers depend on how many train, as with dropout.

    Raises:
        ModelError: They do, and another number of processes wrote the checkpoint.
    """
    import torch
    from safetensors.torch import load_file

    written = len(list(folder.glob(f"{_RANDOM}-*.json")))
    if written != processes:
        if bound:
            raise ModelError(
                "a run with dropout, or of KTO, goes on with as many processes as it began with, "
                f"got {processes} for {folder.name}, which {written} wrote; start it with {written}"
            )
        logger.info("%s was written by %d processes; %d go on", folder.name, written, processes)
        return
    path = folder / f"{_RANDOM}-{process}.json"
    state = _read_json(path)
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    legacy = (name, np.array(keys, dtype=np.uint32), position, has_gauss, cached)
    np.random.set_state(legacy)  # noqa: NPY002
    tensors = load_file(path.with_suffix(".safetensors"))
    torch.random.set_rng_state(tensors["cpu"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.random.set_rng_state(tensors["cuda"])


# Files --------------------------------------------------------------------------------------------


def save_progress(folder: Path, values: Mapping[str, float]) -> None:
    """Write what a run has used up so far."""
    _write_json(folder / PROGRESS, dict(values))


def read_progress(folder: Path) -> dict[str, float]:
    """Return what `save_progress` wrote."""
    return dict(_read_json(folder / PROGRESS))


def _write_json(path: Path, value: object) -> None:
    """Write a file that appears whole or not at all."""
    write_whole(path, json.dumps(value).encode())


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))
