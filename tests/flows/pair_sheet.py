"""What a person does with a sheet of pairs."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path


def compare_pairs(sheet: Path, worth: Callable[[str], int]) -> None:
    """Write on a sheet which answer of each pair is worth more, or that it is a tie."""
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        one, two = worth(row["answer_a"]), worth(row["answer_b"])
        row["winner"] = "tie" if one == two else "a" if one > two else "b"
    with sheet.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
