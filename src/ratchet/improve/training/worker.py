"""One of the processes that train an adapter together, started by `training.launch`."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from ratchet.errors import RatchetError
from ratchet.files.logs import harmless_logs
from ratchet.files.text import shown_line
from ratchet.improve.training.callbacks import Checkpoints
from ratchet.improve.training.examples import read_rows
from ratchet.improve.training.finetune import finetune
from ratchet.improve.training.launch import ERROR_MARK, MARK, Spec, read_spec
from ratchet.improve.training.nodes import is_lost_connection, require_agreement


def work(spec: Spec, folder: Path, base: Path) -> None:
    """Take part in the training that the spec describes.

    Args:
        spec: What is trained.
        folder: Where the spec lies; its paths may be relative to it.
        base: Folder of the base model.

    Raises:
        RatchetError: As `finetune`.
    """
    finetune(
        read_rows(folder / spec.rows),
        spec.config,
        base=base,
        start_from=folder / spec.start_from if spec.start_from else None,
        key=spec.key,
        home=(folder / spec.home).resolve(),
        validation=read_rows(folder / spec.validation) if spec.validation else (),
        checkpoints=Checkpoints(spec.checkpoint_seconds, spec.checkpoint_steps),
    )


def main(arguments: list[str]) -> int:
    """Run one worker; the log lines of each machine's first one are marked for its parent.

    Args:
        arguments: Path of the spec; on several nodes folder and digest of the base model too.
    """
    import torch

    harmless_logs()
    if os.environ.get("LOCAL_RANK", "0") == "0":
        logging.basicConfig(level=logging.INFO, format=f"{MARK}%(message)s", stream=sys.stdout)
        logging.getLogger().setLevel(logging.WARNING)
        logging.getLogger("ratchet").setLevel(logging.INFO)
    path, *given = arguments
    try:
        spec = read_spec(Path(path))
        if given:
            require_agreement(spec, given[1])
        work(spec, Path(path).parent, Path(given[0] if given else spec.base))
    except RatchetError as error:
        _say(error)
        return 2
    except RuntimeError as error:
        if not given or not is_lost_connection(error):
            raise
        _say(RatchetError("the connection to another node broke: it is gone"))
        return 2
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return 0


def _say(error: RatchetError) -> None:
    """Tell the parent why training ends."""
    sys.stdout.write(f"{ERROR_MARK}{type(error).__name__}: {shown_line(str(error))}\n")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
