"""One of the processes that train an adapter together, started by `training.launch`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from ratchet.errors import RatchetError
from ratchet.files.logs import harmless_logs
from ratchet.files.text import shown_line
from ratchet.improve.training.callbacks import Checkpoints
from ratchet.improve.training.examples import read_rows
from ratchet.improve.training.finetune import finetune
from ratchet.improve.training.launch import ERROR_MARK, MARK, Spec
from ratchet.improve.training.run import process


def work(spec: Spec) -> None:
    """Take part in the training that the spec describes.

    Raises:
        RatchetError: As `finetune`.
    """
    finetune(
        read_rows(Path(spec.rows)),
        spec.config,
        base=Path(spec.base),
        start_from=Path(spec.start_from) if spec.start_from else None,
        key=spec.key,
        home=Path(spec.home),
        validation=read_rows(Path(spec.validation)) if spec.validation else (),
        checkpoints=Checkpoints(spec.checkpoint_seconds, spec.checkpoint_steps),
    )


def main(arguments: list[str]) -> int:
    """Run one worker; the first one's log lines are marked for the parent."""
    import torch

    harmless_logs()
    if process() == 0:
        logging.basicConfig(level=logging.INFO, format=f"{MARK}%(message)s", stream=sys.stdout)
        logging.getLogger().setLevel(logging.WARNING)
        logging.getLogger("ratchet").setLevel(logging.INFO)
    try:
        work(Spec.model_validate_json(Path(arguments[0]).read_text("utf-8")))
    except RatchetError as error:
        sys.stdout.write(f"{ERROR_MARK}{type(error).__name__}: {shown_line(str(error))}\n")
        return 2
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
