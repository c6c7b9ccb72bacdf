"""The command `ratchet` in this process, which is faster than in one of its own."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from ratchet.cli import main

OURS = ("RATCHET_", "MLFLOW_", "PREFECT_")


def run_main() -> None:
    """Run the command's `main` and take back what it sets for all of its process."""
    factory, mask = logging.getLogRecordFactory(), os.umask(0o022)
    os.umask(mask)
    ours = logging.getLogger("ratchet")
    handlers, level = list(ours.handlers), ours.level
    ours.handlers.clear()  # one of a command before, called otherwise, writes to a closed stream
    try:
        main()
    finally:
        os.umask(mask)
        logging.setLogRecordFactory(factory)
        ours.handlers[:] = handlers
        ours.setLevel(level)


def run_in_process(
    *words: object, folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run the command as its entry point does, and return what a process of its own would.

    Args:
        words: What follows `ratchet`.
        folder: The working folder.
        environment: The only settings of Ratchet, MLflow and Prefect that it sees.
    """
    arguments = ["ratchet", *map(str, words)]
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for name in [name for name in os.environ if name.startswith(OURS)]:
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.chdir(folder)
        patch.setattr(sys, "argv", arguments)
        code: object = 0
        try:
            run_main()
        except SystemExit as ended:
            code = ended.code or 0
    printed, said = (stream.buffer.getvalue().decode("utf-8") for stream in (out, err))
    return subprocess.CompletedProcess(arguments, int(str(code)), printed, said)
