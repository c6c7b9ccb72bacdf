"""Rows for all three methods, real and made up, that the tests of training share."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from ratchet.improve.curation.rows import LabelledRow, PreferenceRow, Row, TrainingRow
from ratchet.records import Message

QUEUES = ("billing", "refunds")
INTENTS = ("card_arrival", "exchange_rate")  # two of banking77, one for each queue


def asked(text: str) -> tuple[Message, ...]:
    return (
        Message(role="system", content="Answer with the queue."),
        Message(role="user", content=text),
    )


def thumb(text: str, answer: str, wanted: bool, key: str = "i") -> LabelledRow:
    return LabelledRow(key, asked(text), answer, wanted, "thumbs")


def pair(text: str, chosen: str, rejected: str, key: str = "i") -> PreferenceRow:
    return PreferenceRow(key, key, asked(text), chosen, rejected, "correction")


def rows_of(method: str, asks: list[tuple[str, int]]) -> list[Row]:
    """Each text with the number of its right queue; thumbs alternate between right and wrong."""
    if method == "sft":
        return [
            TrainingRow(f"i{place}", asked(text), QUEUES[queue], "correction")
            for place, (text, queue) in enumerate(asks)
        ]
    if method == "dpo":
        return [
            pair(text, QUEUES[queue], QUEUES[1 - queue], f"i{place}")
            for place, (text, queue) in enumerate(asks)
        ]
    return [
        thumb(text, QUEUES[queue if place % 2 else 1 - queue], bool(place % 2), f"i{place}")
        for place, (text, queue) in enumerate(asks)
    ]


def made_up(method: str, count: int) -> list[Row]:
    """Short and long messages; which queue is right and which thumb it got vary apart."""
    asks = [(f"message {n} " + "please " * (n % 4), (n // 2) % 2) for n in range(count)]
    return rows_of(method, asks)


def banking(shared_data: Path, count: int) -> list[tuple[str, int]]:
    """Real messages of two intents, mixed."""
    with (shared_data / "banking77" / "train.csv").open(newline="", encoding="utf-8") as file:
        found = [
            (row["text"], INTENTS.index(row["category"]))
            for row in csv.DictReader(file)
            if row["category"] in INTENTS
        ]
    order = np.random.default_rng(0).permutation(len(found))
    return [found[place] for place in order[:count]]
