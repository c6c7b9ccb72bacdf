"""Real messages to a bank, two intents of them, for flows that route between two queues."""

from __future__ import annotations

import csv
from pathlib import Path

INTENTS = {"card_arrival": "cards", "exchange_rate": "money"}
QUEUES = ("cards", "money")


def bank_messages(folder: Path) -> list[tuple[str, str]]:
    """Return the messages of both intents with their queues, sorted."""
    with (folder / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return sorted(
        (row["text"], INTENTS[row["category"]]) for row in rows if row["category"] in INTENTS
    )
