"""Training speed beside TRL's own SFT script, in turn; prints Markdown.

    python -m tests.benchmarks.training_throughput --base FOLDER [--rows 128] [--rounds 2]

Both train LoRA adapters of rank 16 on all linear layers for one epoch in float32, on the same rows,
eight a step, with the loss on the answer alone. Seconds are those of the training loop: loading and
writing are left out of both.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from ratchet.improve.curation.rows import Row, TrainingRow
from ratchet.improve.training.examples import examples, read_rows, write_rows
from ratchet.simulation.routing import conversation
from tests.benchmarks.poisoning import labelled
from tests.benchmarks.provenance import commit

ROOT = Path(__file__).parents[2]
BATCH, RANK, ALPHA, RATE, WARMUP, LONGEST = 8, 16, 32, 1e-3, 4, 512
WAYS = ("TRL's script", "Ratchet", "Ratchet, multiply: medium")


def rows(count: int) -> list[Row]:
    """Return real messages with their queues."""
    found = labelled()
    labels = tuple(sorted({queue for _, queue in found}))
    step = len(found) // count
    return [
        TrainingRow(f"i{n}", conversation(labels, text), queue, "correction")
        for n, (text, queue) in enumerate(found[::step][:count])
    ]


def trl(base: Path, folder: Path) -> float:
    """Train with TRL's script and return the seconds that it reports."""
    command = [
        sys.executable, "-m", "trl.scripts.sft",
        "--model_name_or_path", str(base), "--dataset_name", str(folder / "data"),
        "--output_dir", str(folder / "trl"), "--use_peft", "--lora_r", str(RANK),
        "--lora_alpha", str(ALPHA), "--lora_dropout", "0.0",
        "--lora_target_modules", "all-linear", "--learning_rate", str(RATE),
        "--lr_scheduler_type", "linear", "--warmup_steps", str(WARMUP),
        "--per_device_train_batch_size", str(BATCH), "--num_train_epochs", "1",
        "--max_length", str(LONGEST), "--gradient_checkpointing", "false",
        "--dtype", "float32", "--bf16", "false", "--use_cpu", "true", "--logging_steps", "1",
        "--report_to", "none", "--save_strategy", "no", "--seed", "0", "--disable_tqdm", "true",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    said = re.findall(r"\{[^{}]*'train_runtime'[^{}]*\}", done.stdout + done.stderr)
    if done.returncode or not said:
        raise SystemExit(f"TRL's script ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return float(ast.literal_eval(said[-1])["train_runtime"])


def ours(base: Path, folder: Path, multiply: str) -> float:
    """Train with `finetune` in a process of its own and return its seconds."""
    arguments = ["--base", str(base), "--ours", multiply, "--folder", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.training_throughput", *arguments],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    return float(done.stdout.strip().splitlines()[-1])


def train_ours(base: Path, folder: Path, multiply: str) -> float:
    """Train the rows of the folder and return the seconds."""
    from ratchet.improve.training.config import FinetuneConfig
    from ratchet.improve.training.finetune import finetune

    config = FinetuneConfig.model_validate(
        {
            "rank": RANK, "alpha": ALPHA, "learning_rate": RATE, "epochs": 1.0,
            "batch_size": BATCH, "warmup_steps": WARMUP, "maximum_tokens": LONGEST,
            "multiply": multiply,
        }
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as home:
        result = finetune(
            read_rows(folder / "rows.jsonl"), config,
            base=base, start_from=None, key="k" * 64, home=Path(home),
        )  # fmt: skip
    return result.seconds


def main() -> int:
    """Measure in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ours", choices=["highest", "medium"])
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    if asked.ours:
        print(train_ours(asked.base, asked.folder, asked.ours))
        return 0
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        found = rows(asked.rows)
        write_rows(found, folder / "rows.jsonl")
        columns = [json.dumps(example) for example in examples(found, "sft")]
        (folder / "data" / "train.jsonl").write_text("\n".join(columns) + "\n", "utf-8")
        for _ in range(asked.rounds):
            seconds[WAYS[0]].append(trl(asked.base, folder))
            seconds[WAYS[1]].append(ours(asked.base, folder, "highest"))
            seconds[WAYS[2]].append(ours(asked.base, folder, "medium"))
            print({way: values[-1] for way, values in seconds.items()}, file=sys.stderr)
    print(
        f"Measured on {datetime.now(UTC):%Y-%m-%d} at commit {commit()}, {os.cpu_count()} cores, "
        f"no GPU, Python {platform.python_version()}: {asked.rows} rows, "
        f"{asked.rounds} rounds in turn, medians.\n"
    )
    print("| trained by | seconds | rows a second | as fast as TRL's script |\n|---|---|---|---|")
    first = seconds[WAYS[0]]
    for way, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(first, values, strict=True))
        middle = statistics.median(values)
        print(f"| {way} | {middle:.1f} | {asked.rows / middle:.2f} | {ratio:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
