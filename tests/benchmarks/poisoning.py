"""What share of hostile users the defence withstands, in label terms; prints Markdown tables.

    python -m tests.benchmarks.poisoning [--seeds 3] [--shares 0 0.1 0.2 0.3 0.4] [--sizes 4000]

4,000 messages of BANKING77 by 300 users over 30 days go to a router of eight queues that is right
half of the time. Honest users err in 5 % of what they say. Hostile users say that right answers
are wrong (half of the time by a correction to one planted queue, else by a thumb down) and like
wrong ones, and they speak up as often as it takes to be heard. They are there from the first day,
or come in the last three days. What is counted are rows of the training set whose answer is wrong.

Of more messages than BANKING77 has, each lacks one of its words; users have as many each.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ratchet.analyze.failures.embedding import steady_vectors
from ratchet.errors import InsufficientDataError
from ratchet.improve.curation.config import CurationConfig
from ratchet.improve.curation.poisoning import PoisoningConfig, suspect
from ratchet.improve.curation.pool import Context
from ratchet.improve.curation.selection import select
from ratchet.improve.curation.traffic import traffic_of
from ratchet.outcomes.join import Outcomes
from ratchet.outcomes.quality import QualityWeights, quality

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "banking77" / "train.csv"
MESSAGES, USERS, DAYS, PLANTED = 4_000, 300, 30, "transfers"
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4)
SEEDS = 3
SIZES = (4_000, 50_000, 400_000)
AT_ONCE = 50_000
"""Up to so many messages all words for answers are compared with all, beside blocks."""
FEW_HOSTILE = 0.05
START = np.datetime64("2026-11-01T00:00:00", "us")


@dataclass(frozen=True, slots=True)
class World:
    """Traffic with the truth.

    Attributes:
        truth: The right queue of each message.
        hostile: Whether its user is hostile.
    """

    outcomes: Outcomes
    truth: Any
    hostile: Any


@dataclass(frozen=True, slots=True)
class Outcome:
    """A training set held against the truth: rows, wrong ones, and those planted."""

    rows: int
    wrong: float
    planted: float
    lost: float


def labelled() -> list[tuple[str, str]]:
    """Return all messages of BANKING77 with their queues, in the order of the file."""
    queues = dict(csv.reader((ROOT / "notebooks" / "queues" / "banking77.csv").open()))
    with DATA.open(newline="", encoding="utf-8") as file:
        return [(row["text"], queues[row["category"]]) for row in csv.DictReader(file)]


def messages(seed: int, size: int = MESSAGES) -> tuple[Any, Any]:
    """Return messages with their queues, in random order; of many each lacks one of its words."""
    rows = labelled()
    rng = np.random.default_rng(seed)
    few = size <= len(rows)
    order = rng.permutation(len(rows))[:size] if few else rng.integers(0, len(rows), size)
    texts, labels = zip(*[rows[place] for place in order], strict=True)
    if not few:
        texts = tuple(map(_less_a_word, texts, rng.random(size)))
    return np.array(texts, dtype=np.object_), np.array(labels, dtype=np.object_)


def _less_a_word(text: str, where: float) -> str:
    words = text.split()
    place = int(where * len(words))
    return " ".join(words[:place] + words[place + 1 :]) or text


def world(
    share: float, *, new: bool, seed: int, unique: bool = False, size: int = MESSAGES
) -> World:
    """Draw traffic with a share of hostile users; `unique` answers are in words of their own."""
    rng = np.random.default_rng(seed)
    texts, truth = messages(seed, size)
    users = size * USERS // MESSAGES
    names = np.unique(truth.astype(str))
    planted = PLANTED if PLANTED in names else names[0]
    bad_users = rng.permutation(users) < round(share * users)
    user = rng.integers(0, users, size)
    hostile = bad_users[user]
    seconds = rng.integers(0, DAYS * 86_400, size)
    if new:
        seconds = np.where(hostile, rng.integers((DAYS - 3) * 86_400, DAYS * 86_400, size), seconds)
    answer = np.where(rng.random(size) < 0.5, truth, names[rng.integers(0, len(names), size)])
    right = answer == truth
    slip = rng.random(size) < 0.05
    says_right = np.where(hostile, ~right, right ^ slip)
    speaks = rng.random(size) < np.where(hostile, 0.8, 0.5)
    corrects = ~says_right & (rng.random(size) < 0.5)
    named = np.where(
        hostile, planted, np.where(slip, names[rng.integers(0, len(names), size)], truth)
    )
    corrections = np.where(speaks & corrects, named, None)
    if unique:
        own = np.array([f" #{n}" for n in range(size)], dtype=np.object_)
        honest = corrections != None  # noqa: E711
        corrections = np.where(honest & ~hostile, named.astype(np.object_) + own, corrections)
        answer = np.where(right, answer, answer.astype(np.object_) + "!").astype(np.object_) + own
        truth = truth + own
    order = np.argsort(seconds, kind="stable")
    columns: dict[str, Any] = {
        "prompts": texts,
        "responses": answer.astype(np.object_),
        "corrections": corrections,
        "thumbs": np.where(speaks & ~corrects, says_right.astype(float), np.nan),
        "user_ids": np.array([f"u{n}" for n in user], dtype=np.object_),
        "created_at": START + seconds.astype("timedelta64[s]").astype("timedelta64[us]"),
    }
    columns = {name: values[order] for name, values in columns.items()}
    return World(_outcomes(columns), truth[order], hostile[order])


def _outcomes(columns: dict[str, Any]) -> Outcomes:
    size = len(columns["prompts"])

    def same(value: Any) -> Any:
        return np.array([value] * size, dtype=np.object_)

    nothing = np.full(size, np.nan)
    return Outcomes(
        interaction_ids=np.array([f"i{n:06d}" for n in range(size)], dtype=np.object_),
        model_versions=same("m/1"),
        segments=same("all"),
        session_ids=same("s"),
        failed_with_error=np.zeros(size, dtype=np.bool_),
        latency_seconds=nothing,
        stars=nothing,
        copied=nothing,
        regenerated=nothing,
        completed=nothing,
        session_seconds=nothing,
        judge_scores=nothing,
        unsafe=nothing,
        edited=nothing,
        next_turn=nothing,
        comments=same(None),
        **columns,
    )


def vectors_of(outcomes: Outcomes) -> Callable[[Any], Any]:
    """Return what makes vectors of some prompts, as the flow `improve` does."""
    return lambda places: steady_vectors(list(outcomes.prompts[places]))


def curate(found: World, *, enabled: bool, reviewed: float, seed: int) -> Outcome:
    """Curate the traffic and hold the set against the truth."""
    outcomes = found.outcomes
    rng = np.random.default_rng(seed + 1)
    looked_at = np.flatnonzero(rng.random(MESSAGES) < reviewed)
    right = outcomes.responses == found.truth
    context = Context(
        vectors_of=vectors_of(outcomes),
        reviewed={str(outcomes.interaction_ids[n]): bool(right[n]) for n in looked_at},
    )
    config = CurationConfig(
        maximum_examples=MESSAGES,
        minimum_examples=1,
        poisoning=PoisoningConfig(enabled=enabled),
    )
    scores = quality(outcomes, QualityWeights())
    try:
        rows = select(outcomes, scores, (), config, context=context).rows
    except InsufficientDataError:
        return Outcome(0, float("nan"), float("nan"), 1.0)
    place = np.array([row.position for row in rows])
    wrong = np.array([row.target for row in rows]) != found.truth[place].astype(str)
    corrected = np.array([text is not None for text in outcomes.corrections])
    honest = (corrected | (outcomes.thumbs == 1.0)) & ~found.hostile
    return Outcome(
        rows=len(rows),
        wrong=float(wrong.mean()),
        planted=float((wrong & found.hostile[place]).mean()),
        lost=1.0 - float((~found.hostile[place]).sum() / max(1, honest.sum())),
    )


def _off_and_on(
    shares: Sequence[float],
    reviewed: tuple[float, ...],
    *,
    new: bool,
    unique: bool,
    seeds: int,
) -> Iterator[tuple[float, list[Outcome], list[list[Outcome]]]]:
    """Yield for each share of hostile users what comes out undefended, and by share reviewed."""
    for share in shares:
        worlds = [world(share, new=new, seed=seed, unique=unique) for seed in range(seeds)]
        off = [curate(w, enabled=False, reviewed=0.0, seed=s) for s, w in enumerate(worlds)]
        on = [
            [curate(w, enabled=True, reviewed=r, seed=s) for s, w in enumerate(worlds)]
            for r in reviewed
        ]
        yield share, off, on


def _mean(found: list[Outcome], name: str) -> float:
    return float(np.mean([getattr(one, name) for one in found]))


def tables(shares: Sequence[float] = SHARES, seeds: int = SEEDS) -> Iterator[str]:
    """Yield the lines of one table a kind of hostile user, and one for answers without repeats."""
    head = "| hostile users | poisoned rows, defence off |"
    for new, title in (
        (False, "Queues (answers repeat), hostile users from the first day"),
        (True, "Queues, hostile users of the last three days"),
    ):
        yield f"**{title}**\n"
        yield (
            f"{head} on | on, 5 % reviewed | wrong rows, off | on | rows, off | on | "
            "honest rows lost, on |"
        )
        yield "|---|---|---|---|---|---|---|---|---|"
        for share, off, (on, seen) in _off_and_on(
            shares, (0.0, 0.05), new=new, unique=False, seeds=seeds
        ):
            lost = _mean(on, "lost") - _mean(off, "lost")
            yield (
                f"| {share:.0%} | {_mean(off, 'planted'):.1%} | {_mean(on, 'planted'):.1%} | "
                f"{_mean(seen, 'planted'):.1%} | {_mean(off, 'wrong'):.1%} | "
                f"{_mean(on, 'wrong'):.1%} | {_mean(off, 'rows'):,.0f} | {_mean(on, 'rows'):,.0f} "
                f"| {lost:.1%} |"
            )
        yield ""
    yield "**Answers in words of their own, hostile users from the first day**\n"
    yield f"{head} on | on, 5 % reviewed | on, 20 % reviewed | honest rows lost, 20 % reviewed |"
    yield "|---|---|---|---|---|---|"
    for share, off, on in _off_and_on(
        shares, (0.0, 0.05, 0.2), new=False, unique=True, seeds=seeds
    ):
        planted = " | ".join(f"{_mean(found, 'planted'):.1%}" for found in on)
        lost = _mean(on[-1], "lost") - _mean(off, "lost")
        yield f"| {share:.0%} | {_mean(off, 'planted'):.1%} | {planted} | {lost:.1%} |"
    yield ""


def at_size(size: int, block: int) -> tuple[int, float, float, int, int, float]:
    """Look for 5 % hostile users among so many messages.

    Returns:
        Words for answers, shares of those of hostile and of honest users that are left out, hostile
        and honest users whom others contradict, and seconds.
    """
    found = world(FEW_HOSTILE, new=False, seed=0, size=size)
    outcomes = found.outcomes
    said = quality(outcomes, QualityWeights())
    config = PoisoningConfig(block=block)
    spoke = np.flatnonzero(
        ~np.isnan(outcomes.thumbs) | np.array([text is not None for text in outcomes.corrections])
    )
    began = time.perf_counter()
    traffic = traffic_of(outcomes, said, "kto", Context())
    seen = suspect(traffic, config, vectors_of=vectors_of(outcomes))
    seconds = time.perf_counter() - began
    left_out, hostile = seen.distrusted[spoke], found.hostile[spoke]
    doubted = np.unique(seen.users[spoke][seen.trust[seen.users[spoke]] < config.minimum_trust])
    bad = np.zeros(len(seen.trust), dtype=np.bool_)
    bad[seen.users] = found.hostile
    return (
        len(spoke), float(left_out[hostile].mean()), float(left_out[~hostile].mean()),
        int(bad[doubted].sum()), int((~bad[doubted]).sum()), seconds,
    )  # fmt: skip


def sizes_table(sizes: Sequence[int] = SIZES) -> Iterator[str]:
    """Yield the lines of a table of how users are compared in blocks, and all with all."""
    yield f"**Queues, {FEW_HOSTILE:.0%} hostile users from the first day, by size**\n"
    yield (
        "| messages | users | words for answers | compared | hostile users' words left out | "
        "honest users' | hostile users whom others contradict | honest users | seconds |"
    )
    yield "|---:|---:|---:|---|---:|---:|---:|---:|---:|"
    for size in sizes:
        ways = [("in blocks", PoisoningConfig().block)]
        if size <= AT_ONCE:
            ways.insert(0, ("all with all", size))
        for name, block in ways:
            words, hostile, honest, caught, accused, seconds = at_size(size, block)
            users = size * USERS // MESSAGES
            yield (
                f"| {size:,} | {users:,} | {words:,} | {name} | {hostile:.1%} | {honest:.2%} | "
                f"{caught:,} of {round(FEW_HOSTILE * users):,} | "
                f"{accused:,} of {users - round(FEW_HOSTILE * users):,} | {seconds:.1f} |"
            )
    yield ""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--shares", type=float, nargs="*", default=SHARES)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    options = parser.parse_args()
    for line in chain(tables(options.shares, options.seeds), sizes_table(options.sizes)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
