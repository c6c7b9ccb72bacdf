"""Training on a GPU beside TRL, in one command of at most nine minutes; writes Markdown and JSON.

    PYTHONPATH=src python -m tests.benchmarks.gpu [--minutes 9] [--out FOLDER] [--parts lora-8b]

For a bare machine with one card and no network: Python 3.11 or later, torch 2.11 or later,
transformers, peft, accelerate, safetensors, pyarrow and pandas must be there. What such a machine
lacks is brought as wheels, 5.1 MB in all for Python 3.12 on x86-64:

    annotated_types 0.8.0      0.01 MB    pydantic_core 2.50.4      2.26 MB
    datasets 5.2.0             0.61 MB    trl 1.16.0                0.95 MB
    dill 0.4.1                 0.12 MB    typing_extensions 4.16.0  0.05 MB
    multiprocess 0.70.19       0.15 MB    typing_inspection 0.4.5   0.01 MB
    pydantic 2.14.3            0.49 MB    xxhash 4.1.0              0.47 MB

    python -m pip download --no-deps --only-binary=:all: --python-version 3.12 \\
        --implementation cp --platform manylinux2014_x86_64 -d wheels trl==1.16.0 \\
        datasets==5.2.0 pydantic==2.14.3 pydantic_core==2.50.4 annotated_types==0.8.0 \\
        typing_extensions==4.16.0 typing_inspection==0.4.5 multiprocess==0.70.19 dill==0.4.1 \\
        xxhash==4.1.0
    python -m pip install --no-index --no-deps --target site wheels/*.whl    # on the machine
    PYTHONPATH=src:site python -m tests.benchmarks.gpu

datasets needs pyarrow 24 and huggingface_hub 1.31 or later beside it, transformers httpx.

Each part runs in a process of its own, which is ended when its time is over, so that one that
fails or hangs costs the others nothing. A part whose package is missing is skipped by name. The
tables are written after each row. Models have random weights and are made on the spot
(`gpu_models`), the arithmetic of a step is in `gpu_flops`, and the training is that of `improve`.
The rows, eight a step, the longest row and the adapter's shape are the same for both sides; all
else is each side's default.

`--toy` runs every part on a processor in seconds, to see that it runs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.gpu_parts import PARTS, ROOT
from tests.benchmarks.gpu_report import Outcome, write
from tests.benchmarks.provenance import commit

_QUIET = {
    "CUDA_VISIBLE_DEVICES": "0",  # one card
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
}
_LAST_SECONDS = 10.0  # of the time that is given, kept for ending
_FEWEST_SECONDS = 20.0  # a part is not begun with less


def scale_of(toy: bool, home: Path) -> Any:
    """Return the size of a run: a card's, or a toy's."""
    from tests.benchmarks.gpu_training import Scale

    if toy:
        return Scale("cpu", "toy", "toy", shorten=0.125, steps=5, home=home)
    return Scale("cuda", "1b", "8b", shorten=1.0, steps=24, home=home)


def missing(name: str) -> list[str]:
    """Import what a part needs and return what is not there."""
    found = []
    for package in PARTS[name].needs:
        try:
            importlib.import_module(package)
        except ImportError:
            found.append(package)
    return found


def run_part(name: str, into: Path, home: Path, *, toy: bool, seconds: float) -> None:
    """Run a part in this process and write its rows, and how it ended, line by line."""
    with into.open("a", encoding="utf-8") as file:

        def tell(**values: Any) -> None:
            file.write(json.dumps(values) + "\n")
            file.flush()

        until = time.monotonic() + 0.9 * seconds
        lacking = missing(name)
        if lacking:
            tell(status="skipped", why=f"not installed: {', '.join(lacking)}")
            return
        try:
            scale: Any = _bare_scale(toy, home) if name == "machine" else scale_of(toy, home)
            for row in PARTS[name].measure(scale, until):
                tell(row=row)
        except Exception as error:
            traceback.print_exc()
            tell(status="failed", why=f"{type(error).__name__}: {str(error)[:300]}")
        else:
            tell(status="done")


def _bare_scale(toy: bool, home: Path) -> Any:
    """Return what the part `machine` asks of a scale, without the packages that training needs."""
    return argparse.Namespace(device="cpu" if toy else "cuda", home=home)


def _read(outcome: Outcome, into: Path) -> None:
    """Bring an outcome up to date with what its part has written."""
    lines = into.read_text("utf-8").split("\n") if into.exists() else []
    told = [json.loads(line) for line in lines[:-1] if line]
    outcome.rows = [line["row"] for line in told if "row" in line]
    for line in told:
        if "status" in line:
            outcome.status, outcome.why = line["status"], line.get("why", "")


def run_apart(
    name: str, outcome: Outcome, into: Path, home: Path, *, toy: bool, seconds: float, update: Any
) -> None:
    """Run a part in a process of its own, for so many seconds at most."""
    arguments = ["--run-part", name, "--into", str(into), "--home", str(home)]
    arguments += ["--seconds", str(seconds), *(["--toy"] if toy else [])]
    with into.with_suffix(".log").open("w") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.gpu", *arguments],
            stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True,
        )  # fmt: skip
    ends = time.monotonic() + seconds
    try:
        while child.poll() is None and time.monotonic() < ends:
            time.sleep(0.25)
            before = len(outcome.rows)
            _read(outcome, into)
            if len(outcome.rows) > before:
                update()
    finally:
        late = child.poll() is None
        if late:
            os.killpg(child.pid, signal.SIGKILL)  # the part's own processes alone
            child.wait()
    _read(outcome, into)
    if outcome.status == "running":
        said = into.with_suffix(".log").read_text("utf-8")[-300:].strip()
        code = child.returncode
        outcome.status = "out of time" if late else "failed"
        outcome.why = f"after {seconds:.0f} s" if late else f"ended with code {code}: {said}"


def main() -> int:
    """Run the parts in their order and write the tables."""
    asked = _arguments()
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if asked.train:
        return _train(*asked.train, toy=asked.toy)
    if asked.run_part:
        run_part(asked.run_part, asked.into, asked.home, toy=asked.toy, seconds=asked.seconds)
        return 0
    started = time.monotonic()
    ends = started + 60.0 * asked.minutes - _LAST_SECONDS
    asked.out.mkdir(parents=True, exist_ok=True)
    words = f"{datetime.now(UTC):%Y-%m-%d} at commit {_commit()}"
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.parts:
            outcome = Outcome(name, "running")
            outcomes.append(outcome)
            update = partial(write, outcomes, asked.out, words)
            _one(name, outcome, Path(folder), asked, ends, update)
            update()
            taken = time.monotonic() - started
            print(f"{taken:5.0f} s  {name}: {outcome.status} {outcome.why}", flush=True)
    print((asked.out / "gpu.md").read_text("utf-8"))
    return 0


def _one(name: str, outcome: Outcome, folder: Path, asked: Any, ends: float, update: Any) -> None:
    began = time.monotonic()
    patience = 5.0 if asked.toy else 1.0  # of a busy processor
    seconds = min(patience * PARTS[name].seconds, ends - began)
    if seconds < _FEWEST_SECONDS:
        outcome.status, outcome.why = "skipped", "no time was left"
        return
    into = folder / f"{name}.jsonl"
    if asked.one_process:
        run_part(name, into, folder, toy=asked.toy, seconds=seconds)
        _read(outcome, into)
    else:
        run_apart(name, outcome, into, folder, toy=asked.toy, seconds=seconds, update=update)
    outcome.seconds = time.monotonic() - began


def _train(base: str, home: str, *, toy: bool) -> int:
    """Train as the part `resume` does, saying each step: the run that is killed."""
    import torch

    from tests.benchmarks.gpu_parts import train_for_resumption

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)

    def say(step: int, _numbers: Any) -> None:
        print("step", step, flush=True)
        time.sleep(0.3)  # for the one who kills

    train_for_resumption(scale_of(toy, Path(home)), Path(base), Path(home), say)
    return 0


def _commit() -> str:
    try:
        return commit()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _arguments() -> Any:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--out", type=Path, default=Path("gpu-results"))
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--toy", action="store_true", help="every part on a processor, in seconds")
    parser.add_argument("--one-process", action="store_true", help="all parts in this process")
    parser.add_argument("--run-part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=60.0, help=argparse.SUPPRESS)
    parser.add_argument("--train", nargs=2, metavar=("BASE", "HOME"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
