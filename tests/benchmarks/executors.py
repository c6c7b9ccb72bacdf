"""Texts a second that MiniLM embeds in this process, in two, on Ray and served; prints Markdown.

    python -m tests.benchmarks.executors [--texts 4096] [--rounds 2]

Real messages to a bank, made distinct, in shards as `embed` makes them. In each round the executors
take turns; each starts its workers anew, but for Ray's cluster of this machine, which stays. One
thread computes in each process. Times include the start of workers, and the loading of the encoder
in them; vectors must be equal. `served` is the same model behind `/v1/embeddings` in a process of
its own, which is there already and takes one request at a time; its vectors are close.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock

import numpy as np

from ratchet.analyze.failures.embedding import Vectors, embed
from ratchet.executors import executor_of
from ratchet.models import MINILM, SentenceEncoder
from ratchet.models.served_encoder import ServedEncoder
from tests.benchmarks.provenance import commit
from tests.servers.embedding_server import EmbeddingServer, serving

MESSAGES = Path(__file__).parents[3] / "shared" / "data" / "banking77" / "train.csv"
EXECUTORS = ("inline", "processes:2", "ray:local")
SERVED = "served"


def messages(count: int) -> list[str]:
    """Return so many different texts."""
    with MESSAGES.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    return [f"{texts[n % len(texts)]} ({n // len(texts)})" for n in range(count)]


def serve(told: Connection) -> None:
    """Serve MiniLM until the pipe is closed; its address is the first thing said."""
    import torch

    torch.set_num_threads(1)
    encoder, one = SentenceEncoder.load(MINILM), Lock()

    def encode(texts: list[str]) -> np.ndarray:
        with one:
            return encoder.encode(texts)

    with serving(EmbeddingServer(longest=100_000, encode=encode)) as server:
        told.send(server.url)
        told.recv()


@contextmanager
def served() -> Iterator[ServedEncoder]:
    """An encoder of a server in a process of its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there,), daemon=True)
    process.start()
    try:
        yield ServedEncoder.connect(here.recv())
    finally:
        here.send("end")
        process.join(30)


def timed(
    name: str, texts: Sequence[str], encoder: SentenceEncoder | ServedEncoder
) -> tuple[Vectors, float, float]:
    """Return the vectors, the seconds that they took, and those until the first shard was done."""
    first: list[float] = []
    began = time.monotonic()

    def progress(done: int, total: int) -> None:
        if not first:
            first.append(time.monotonic() - began)

    vectors = embed(texts, encoder, executor=executor_of(name), progress=progress)
    return vectors, time.monotonic() - began, first[0]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=4_096)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    texts, encoder = messages(options.texts), SentenceEncoder.load(MINILM)
    encoder.encode(texts[:64])
    seconds: dict[str, list[float]] = {name: [] for name in (*EXECUTORS, SERVED)}
    starts: dict[str, list[float]] = {name: [] for name in (*EXECUTORS, SERVED)}
    expected: Vectors | None = None
    same = True
    for _ in range(options.rounds):
        for name in EXECUTORS:
            vectors, took, start = timed(name, texts, encoder)
            seconds[name].append(took)
            starts[name].append(start)
            expected = vectors if expected is None else expected
            same = same and bool(np.array_equal(vectors, expected))
        with served() as other:
            vectors, took, start = timed("inline", texts, other)
        seconds[SERVED].append(took)
        starts[SERVED].append(start)
        assert expected is not None
        same = same and bool(np.allclose(vectors, expected, atol=2e-3))
    here = sum(seconds["inline"])
    print(
        f"{datetime.now(UTC).date()}, commit {commit()}, {os.cpu_count()} cores "
        f"({platform.machine()}), load {os.getloadavg()[0]:.1f}: {options.texts:,} texts, "
        f"{options.rounds} rounds, vectors {'equal' if same else '**not equal**'}.\n"
    )
    print("| executor | texts a second | of this process | first shard after |")
    print("|---|---|---|---|")
    for name in seconds:
        total = sum(seconds[name])
        print(
            f"| `{name}` | {options.rounds * options.texts / total:,.0f} | {here / total:.2f} "
            f"| {min(starts[name]):.1f} to {max(starts[name]):.1f} s |"
        )


if __name__ == "__main__":
    main()
