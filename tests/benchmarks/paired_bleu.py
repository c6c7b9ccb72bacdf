"""How fast and how near sacrebleu's own the paired bootstrap of BLEU is; prints Markdown.

    python -m tests.benchmarks.paired_bleu [--resamples 1000] [--systems 15]

WMT17 English-German, 3,004 segments, each system against LIUM-NMT. Both sides extract the segments'
statistics with sacrebleu (the same work) and resample them; the time of the extraction is shown
apart, since it is done once for any number of comparisons.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.significance import PairedTest, _paired_bs_test

from ratchet.evaluation.overlap_metrics import bleu
from ratchet.evaluation.scored import bootstrap_scored
from tests.benchmarks.provenance import commit
from tests.conftest import SHARED_DATA

BASELINE = "LIUM-NMT.4900"
GOAL = 5.0


def read_systems(folder: Path) -> tuple[dict[str, list[str]], list[str]]:
    """Return the outputs by system and the reference."""
    file = folder / "wmt17_ende" / "systems.json.gz"
    with gzip.open(file, "rt", encoding="utf-8") as opened:
        found = json.load(opened)
    systems = {name.split(".", 1)[1].removesuffix(".en-de"): lines for name, lines in found[:-1]}
    return systems, dict(found)["reference"][0]


class Extracted(BLEU):
    """sacrebleu's metric with the statistics of given outputs already extracted."""

    def __init__(self, known: dict[int, list[list[int]]]) -> None:
        super().__init__(tokenize="none")
        self.known = known

    def _extract_corpus_statistics(self, hypotheses, references):  # type: ignore[no-untyped-def]
        return self.known[id(hypotheses)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--resamples", type=int, default=1_000)
    parser.add_argument("--systems", type=int, default=15)
    options = parser.parse_args()
    systems, reference = read_systems(SHARED_DATA)
    names = [name for name in systems if name != BASELINE][: options.systems]
    print(
        f"Measured on {datetime.now(UTC).date()} at commit {commit()}, {os.cpu_count()} cores, "
        f"{platform.machine()}, Python {platform.python_version()}; {len(reference)} segments, "
        f"{options.resamples} resamples, one process each. Goal: at least {GOAL:.0f} times "
        "faster.\n"
    )
    began = time.perf_counter()
    known = {
        id(lines): BLEU(tokenize="none")._extract_corpus_statistics(lines, [reference])
        for lines in (systems[BASELINE], *(systems[name] for name in names))
    }
    extraction = time.perf_counter() - began
    metric = Extracted(known)
    began = time.perf_counter()
    theirs = {}
    start = metric._aggregate_and_compute(known[id(systems[BASELINE])])
    for name in names:
        info = {"BLEU": (known[id(systems[BASELINE])], start)}
        _, found = _paired_bs_test(
            info, name, systems[name], [reference], {"BLEU": metric}, options.resamples, seed=1
        )
        theirs[name] = found["BLEU"]
    slow = time.perf_counter() - began
    began = time.perf_counter()
    scored = {name: bleu(systems[name], reference, tokenize="none") for name in (BASELINE, *names)}
    own_extraction = time.perf_counter() - began
    began = time.perf_counter()
    rng = np.random.default_rng(0)
    ours = {
        name: bootstrap_scored(scored[BASELINE], scored[name], rng=rng, resamples=options.resamples)
        for name in names
    }
    fast = time.perf_counter() - began
    print("| system | BLEU | sacrebleu's | p | sacrebleu's | difference, standard errors |")
    print("|---|---|---|---|---|---|")
    for name in names:
        one, two = ours[name], theirs[name]
        middle = (one.p_value_moses + two.p_value) / 2
        error = np.sqrt(2 * middle * (1 - middle) / options.resamples)
        apart = abs(one.p_value_moses - two.p_value) / error
        print(
            f"| {name} | {one.second:.2f} | {two.score:.2f} | {one.p_value_moses:.3f} "
            f"| {two.p_value:.3f} | {apart:.1f} |"
        )
    began = time.perf_counter()
    everything = [(name, systems[name]) for name in (BASELINE, *names)]
    PairedTest(everything, {"BLEU": BLEU(tokenize="none")}, [reference], "bs", options.resamples)()
    whole = time.perf_counter() - began
    print(
        f"\n| {len(names)} comparisons | sacrebleu | Ratchet | times faster |\n|---|---|---|---|\n"
        f"| resampling from extracted statistics | {slow:.2f} s | {fast:.2f} s "
        f"| {slow / fast:.1f} |\n"
        f"| extraction of {len(names) + 1} systems | {extraction:.2f} s "
        f"| {own_extraction:.2f} s | |\n"
        f"| all of it, as called | {whole:.2f} s | {own_extraction + fast:.2f} s "
        f"| {whole / (own_extraction + fast):.1f} |"
    )


if __name__ == "__main__":
    main()
