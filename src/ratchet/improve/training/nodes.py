"""Further nodes of a training on several: `ratchet train --join FOLDER` waits there for its part.

    join(Path("/shared/training"), base)

The node that starts a training (`training.launch`) writes what is trained into the nodes' folder.
The others find it there, start `torchrun` with the same rendezvous, and write nowhere else. A node
needs this code, the packages in the same versions and the base model; what differs is refused on
all of them before anything is trained.
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import NoReturn

from ratchet.errors import InvalidInputError, RatchetError
from ratchet.improve.training.devices import PACKAGES, choose_device, environment
from ratchet.improve.training.launch import SPEC, Spec, read_spec, run_node

logger = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_BROKEN = ("Connection closed", "Connection reset", "Broken pipe", "peer", "NCCL")


def join(folder: Path, base: Path) -> NoReturn:
    """Take part in the trainings that begin in a folder, one after the other, until interrupted.

    Args:
        folder: The nodes' folder, as this machine sees it.
        base: Folder of the base model on this machine.

    Raises:
        InvalidInputError: There is no such folder.
    """
    if not folder.is_dir():
        raise InvalidInputError(
            f"the nodes' folder must be there on every node, got none at {folder}; mount it"
        )
    taken: set[str] = set()
    logger.info("waiting for trainings in %s", folder)
    while True:
        for path in sorted(folder.glob(f"adapters/launch-*/{SPEC}")):
            spec = _read(path)
            if spec is None or spec.job in taken:
                continue
            taken.add(spec.job)
            logger.info("taking part in training %s, at %s", spec.job, spec.endpoint)
            try:
                run_node(spec, path, base, host=False)
                logger.info("training %s has ended", spec.job)
            except RatchetError as error:
                logger.warning("%s", error)
        time.sleep(_POLL_SECONDS)


def _read(path: Path) -> Spec | None:
    """Return a training's spec; None where it ended meanwhile, or is of one machine."""
    try:
        spec = read_spec(path)
    except FileNotFoundError:
        return None
    return spec if spec.launch is not None and spec.launch.nodes is not None else None


def require_agreement(spec: Spec, base_digest: str) -> None:
    """Compare what all workers of a training have; every one of them takes part.

    Args:
        spec: What is trained.
        base_digest: Of the base model on this machine.

    Raises:
        InvalidInputError: They differ in base model, versions or device.
    """
    versions = environment()
    own = {name: versions.get(name, "none") for name in ("python", *PACKAGES)}
    device = choose_device(spec.config)
    own |= {"base model": base_digest[:16], "device": f"{device.kind} in {device.precision}"}
    found = _told(own)
    differing = [
        f"{name} {' and '.join(sorted({of[name] for of in found}))}"
        for name in own
        if len({of[name] for of in found}) > 1
    ]
    if differing:
        raise InvalidInputError(
            f"all nodes must have the same code and base model, got {'; '.join(differing)}; "
            "install the same versions and set RATCHET_BASE_MODEL to the same weights"
        )


def _told(own: dict[str, str]) -> list[dict[str, str]]:
    """Tell the other workers something, by the store of the rendezvous; return what each told."""
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, rank, size = next(rendezvous("env://"))
    store = PrefixStore("ratchet", store)
    told, heard = ([f"{word}-{place}" for place in range(size)] for word in ("told", "heard"))
    store.set(told[rank], json.dumps(own))
    store.wait(told)
    found = [json.loads(store.get(name)) for name in told]
    store.set(heard[rank], "")
    store.wait(heard)  # a node that is refused ends, and with it maybe the store
    return found


def is_lost_connection(error: RuntimeError) -> bool:
    """Tell whether an error of torch says that another process is gone."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or any(part in str(error) for part in _BROKEN)
