"""Rows for all three methods, real and made up, that the tests of training share."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from ratchet.improve.curation import TrainingRow
from ratchet.improve.rows import KtoRow, PreferenceRow, Row
from ratchet.records import Message

QUEUES = ("billing", "refunds")
INTENTS = ("card_arrival", "exchange_rate")  # two of banking77, one for each queue


def asked(text: str) -> tuple[Message, ...]:
    return (
        Message(role="system", content="Answer with the queue."),
        Message(role="user", content=text),
    )


def said(text: str) -> tuple[Message, ...]:
    return (Message(role="assistant", content=text),)


def rows_of(method: str, asks: list[tuple[str, int]]) -> list[Row]:
    """Each text with the number of its right queue; thumbs alternate between right and wrong."""
    if method == "sft":
        return [
            TrainingRow(f"i{place}", asked(text), QUEUES[queue], "correction")
            for place, (text, queue) in enumerate(asks)
        ]
    if method == "dpo":
        return [
            PreferenceRow(asked(text), said(QUEUES[queue]), said(QUEUES[1 - queue]))
            for text, queue in asks
        ]
    return [
        KtoRow(asked(text), said(QUEUES[queue if place % 2 else 1 - queue]), bool(place % 2))
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
