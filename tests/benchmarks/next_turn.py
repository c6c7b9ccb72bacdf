"""How well does what users write next tell that they were dissatisfied? On conversations of people.

    python -m tests.benchmarks.next_turn               # some minutes on two cores
    python -m tests.benchmarks.next_turn --page docs/derived.md

Reads `uss` (user turns that several people rated from 1 to 5) and `convai2` (thumbs on a bot's
messages, with what the person wrote next). A turn counts as dissatisfied where most of its raters
say so. Half of the dialogues train the classifiers, the other half is what all
methods and people are measured on. Intervals: 95 %, bootstrap over dialogues.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ratchet.analyze.failures.analysis import load_encoder
from ratchet.collect.next_turn import read_next_turn, similarity
from ratchet.records.signals import BY_NAME
from tests.benchmarks.provenance import commit

DATA = Path(__file__).parents[2].parent / "shared" / "data"
BEGIN, END = "<!-- next-turn:begin -->", "<!-- next-turn:end -->"
RESAMPLES = 2_000
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class RatedTurn:
    """A turn that follows an answer, with what people say of it.

    Attributes:
        dialogue: Number of its dialogue.
        dissatisfied: What each rater says, in the order of the file.
    """

    dialogue: int
    question: str
    answer: str
    words: str
    dissatisfied: tuple[bool, ...]

    @property
    def by_most(self) -> bool:
        """Whether most of the raters hold it to be dissatisfied."""
        return sum(self.dissatisfied) * 2 > len(self.dissatisfied)


def read_uss(path: Path) -> list[RatedTurn]:
    """Read rated turns that follow an answer; OVERALL rates the whole dialogue and is left out."""
    found: list[RatedTurn] = []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for number, dialogue in enumerate(file.read().split("\n\n")):
            question = answer = ""
            for line in dialogue.strip().splitlines():
                speaker, text, *_, ratings = line.split("\t")
                if speaker == "SYSTEM":
                    answer = text
                    continue
                given = tuple(int(rating) <= 2 for rating in ratings.split(",") if rating)
                if answer and given and text != "OVERALL":
                    found.append(RatedTurn(number, question, answer, text, given))
                question, answer = text, ""
    return found


def read_convai(path: Path) -> list[RatedTurn]:
    """Read what people wrote after a message of a bot that got a thumb."""
    found: list[RatedTurn] = []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file):
            messages = json.loads(line)["dialog"]
            before = ""
            for message, following in pairwise(messages):
                score = message.get("evaluation_score")
                if message["sender"] == following["sender"]:
                    continue
                if score in (0, 1) and message.get("sender_class") == "Bot":
                    found.append(
                        RatedTurn(number, before, message["text"], following["text"], (score == 0,))
                    )
                before = message["text"]
    return found


# Methods ------------------------------------------------------------------------------------------


def by_rules(turns: Sequence[RatedTurn]) -> BoolArray:
    """Return what the product's rules say; what they do not read is not dissatisfied."""
    readings = [read_next_turn(turn.question, turn.words) for turn in turns]
    bad = BY_NAME["next_turn"].is_bad
    return np.array([reading is not None and bad(float(reading.place)) for reading in readings])


def vectors(texts: Sequence[str], encoder: str) -> FloatArray:
    """Return vectors of length one: of a sentence encoder, or counts of words and word pairs."""
    known = load_encoder(encoder)
    if known is not None:
        every = sorted(set(texts), key=lambda text: (len(text), text))  # so that little is padded
        found = dict(zip(every, known.encode(every), strict=True))
        return np.array([found[text] for text in texts], dtype=np.float64)
    from sklearn.feature_extraction.text import HashingVectorizer

    counted = HashingVectorizer(n_features=1_024, ngram_range=(1, 2)).transform(texts)
    return np.asarray(counted.toarray(), dtype=np.float64)


def features(turns: Sequence[RatedTurn], encoder: str) -> FloatArray:
    """Return vectors of turn and answer, how alike turn and question are, and the reading."""
    said = [[turn.words or " ", turn.answer or " ", turn.question or " "] for turn in turns]
    every = vectors([text for texts in said for text in texts], encoder)
    words, answers, questions = every[0::3], every[1::3], every[2::3]
    rows = []
    for turn in turns:
        reading = read_next_turn(turn.question, turn.words)
        place = np.zeros(6)
        place[reading.place if reading else 0] = 1.0
        rows.append([similarity(turn.question, turn.words), float(len(turn.words)), *place])
    alike = (words * questions).sum(axis=1, keepdims=True)
    return np.hstack([words, answers, alike, np.array(rows) / [1.0, 100.0, *[1.0] * 6]])


def by_classifier(
    train: Sequence[RatedTurn], test: Sequence[RatedTurn], encoder: str
) -> tuple[BoolArray, BoolArray]:
    """Train on some turns and return the verdicts on both; the cut-off is the best one in training.

    The cut-off is chosen on predictions of models that did not see the dialogue.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def model() -> object:
        return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))

    inputs, outputs = features([*train, *test], encoder), truth(train)
    groups = [turn.dialogue for turn in train]
    seen, unseen = inputs[: len(train)], inputs[len(train) :]
    held_out = cross_val_predict(
        model(), seen, outputs, groups=groups, cv=GroupKFold(5), method="predict_proba"
    )[:, 1]
    cuts = np.quantile(held_out, np.linspace(0.5, 0.995, 100))
    cut = max(cuts, key=lambda at: kappa_of(table(outputs, held_out >= at)))
    fitted = model().fit(seen, outputs)  # type: ignore[attr-defined]
    return held_out >= cut, fitted.predict_proba(unseen)[:, 1] >= cut


# Agreement ----------------------------------------------------------------------------------------


def truth(turns: Sequence[RatedTurn]) -> BoolArray:
    """Return what most raters say."""
    return np.array([turn.by_most for turn in turns])


def table(first: BoolArray, second: BoolArray) -> FloatArray:
    """Return counts, the first in rows: no, yes."""
    return np.array(
        [[np.sum(~first & ~second), np.sum(~first & second)],
         [np.sum(first & ~second), np.sum(first & second)]], dtype=np.float64,
    )  # fmt: skip


def kappa_of(counts: FloatArray) -> float:
    """Return Cohen's kappa of a table; 0 where chance alone agrees on everything."""
    total = counts.sum()
    expected = (counts.sum(axis=0) * counts.sum(axis=1)).sum() / total**2
    return float((np.trace(counts) / total - expected) / (1.0 - expected)) if expected < 1 else 0.0


def kappa_with_interval(
    turns: Sequence[RatedTurn], first: BoolArray, second: BoolArray, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Return kappa with its 95 % interval, by resampling dialogues."""
    dialogues = np.array([turn.dialogue for turn in turns])
    names = np.unique(dialogues)
    tables = np.stack(
        [table(first[dialogues == name], second[dialogues == name]) for name in names]
    )
    weights = rng.multinomial(names.size, np.full(names.size, 1.0 / names.size), RESAMPLES)
    drawn = [kappa_of(np.tensordot(each, tables, axes=1)) for each in weights]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return kappa_of(tables.sum(axis=0)), float(low), float(high)


def by_people(turns: Sequence[RatedTurn]) -> tuple[BoolArray, BoolArray, list[RatedTurn]]:
    """Return one rater's word and that of most of the others, where these agree on one."""
    several = [turn for turn in turns if len(turn.dissatisfied) > 2]
    rest = [turn.dissatisfied[1:] for turn in several]
    clear = [sum(others) * 2 != len(others) for others in rest]
    kept = [turn for turn, is_clear in zip(several, clear, strict=True) if is_clear]
    one = np.array([turn.dissatisfied[0] for turn in kept])
    others = np.array([sum(t.dissatisfied[1:]) * 2 > len(t.dissatisfied) - 1 for t in kept])
    return one, others, kept


# Report -------------------------------------------------------------------------------------------


def rows_of(
    name: str, turns: Sequence[RatedTurn], encoders: Sequence[str], rng: np.random.Generator
) -> Iterator[str]:
    """Yield the lines of the table about one set of dialogues."""
    names = np.array(sorted({turn.dialogue for turn in turns}))
    drawn = set(rng.permutation(names)[: names.size // 2].tolist())
    train = [turn for turn in turns if turn.dialogue in drawn]
    test = [turn for turn in turns if turn.dialogue not in drawn]
    share = float(np.mean(truth(test)))
    about = f"{name}: {len(test):,} turns of {names.size - len(drawn):,} dialogues, {share:.1%}"

    def line(method: str, verdicts: BoolArray, people: BoolArray, on: Sequence[RatedTurn]) -> str:
        kappa, low, high = kappa_with_interval(on, people, verdicts, rng)
        counts = table(people, verdicts)
        precision = counts[1, 1] / max(counts[:, 1].sum(), 1.0)
        recall = counts[1, 1] / max(counts[1].sum(), 1.0)
        return (
            f"| {about} | {method} | {kappa:.2f} ({low:.2f} to {high:.2f}) | {precision:.0%} "
            f"| {recall:.0%} |"
        )

    one, others, kept = by_people(test)
    if kept:
        yield line("one person against most of the others", one, others, kept)
    yield line("rules", by_rules(test), truth(test), test)
    for encoder in encoders:
        verdicts = by_classifier(train, test, encoder)[1]
        yield line(f"classifier on {encoder} and rules", verdicts, truth(test), test)
        sys.stderr.write(f"{name}: {encoder}\n")


def report(data: Path, most: int | None, encoders: Sequence[str]) -> list[str]:
    """Return the table, with when and where it was measured."""
    rng = np.random.default_rng(0)
    sets = {
        "USS, SGD": read_uss(data / "uss" / "SGD.txt.gz"),
        "USS, MultiWOZ": read_uss(data / "uss" / "MWOZ.txt.gz"),
        "ConvAI2, thumbs": read_convai(data / "convai2" / "dialogs.jsonl.gz"),
    }
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    lines = [
        f"Measured on {datetime.now(UTC).date()} at commit {commit()}, {machine}, by",
        f"`python -m tests.benchmarks.next_turn --encoders {' '.join(encoders)}"
        + (f" --most {most}`." if most else "`."),
        "",
        "| conversations, dissatisfied | method | kappa (95 %) | of those flagged, right | found |",
        "|---|---|---|---|---|",
    ]
    for name, turns in sets.items():
        lines += rows_of(name, turns[:most], encoders, rng)
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark; print the table, or write it into a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--most", type=int, help="turns of each set, for a look")
    parser.add_argument("--encoders", nargs="*", default=["words", "minilm"])
    parser.add_argument("--page", type=Path, help="a page with the marks of this table")
    options = parser.parse_args(arguments)
    if not (options.data / "uss").is_dir():
        sys.exit(f"reads the folder uss in {options.data}, which is not there; give --data")
    lines = report(options.data, options.most, options.encoders)
    sys.stdout.write("\n".join(lines) + "\n")
    if options.page is not None:
        page = options.page.read_text("utf-8")
        head, _, rest = page.partition(BEGIN)
        text = "\n".join([f"{head}{BEGIN}", *lines, f"{END}{rest.partition(END)[2]}"])
        options.page.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
