"""A sheet on which people compare two systems' answers without seeing whose is whose.

    write_sheet(path, pairs, [pair.id for pair in pairs])
    read = read_sheet(path, pairs)
    read.winners  # by pair: "1" the first answer, "2" the second, "tie"

CSV with `example_id, prompt, answer_a, answer_b, winner, pair`. Which answer stands at A is chosen
by a digest of the pair, so that a sheet needs no key beside it, and rows come in a random order:
who stops half way has labelled a random part. `pair` names both texts: a word about other
answers, of an earlier model say, does not count. Where both texts are the same, `tie` is filled in.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ratchet.errors import InvalidInputError
from ratchet.files.rows import SetAsideRow, read_rows
from ratchet.files.text import printable
from ratchet.judges.label_sets import TIE
from ratchet.judges.prompts import Item
from ratchet.records import digest

FIRST, SECOND = "1", "2"
WORTH = {FIRST: 1.0, SECOND: 0.0, TIE: 0.5}
COLUMNS = ("example_id", "prompt", "answer_a", "answer_b", "winner", "pair")
NEEDED = ("winner", "pair")
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class SheetRead:
    """What people wrote on a sheet.

    Attributes:
        winners: By pair: "1" the first answer, "2" the second, "tie".
        compared: Pairs among them whose answers differ.
        open: Rows that nobody has filled in, and ties filled in beforehand after the last that a
            person filled in: those say nothing of how far people got.
        set_aside: The rows that broke a rule.
    """

    winners: Mapping[str, str]
    compared: int
    open: int
    set_aside: tuple[SetAsideRow, ...]

    @property
    def worth(self) -> dict[str, float]:
        """Worth of the first answer, in [0, 1], by pair."""
        return {key: WORTH[winner] for key, winner in self.winners.items()}


def write_sheet(path: Path, pairs: Sequence[Item], ids: Sequence[str]) -> None:
    """Write the pairs of these ids for people; a sheet that is there is not written over.

    Raises:
        InvalidInputError: The file is there, or an id is that of no pair.
    """
    by_id = {pair.id: pair for pair in pairs}
    strangers = [key for key in ids if key not in by_id]
    if strangers:
        raise InvalidInputError(f"a sheet must be about the pairs, got {strangers[0]!r}")
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for pair in sorted((by_id[key] for key in ids), key=lambda pair: digest(["row", _name(pair)])):
        shown = (pair.answer, pair.other or "")
        a, b = shown[::-1] if _swapped(pair) else shown
        asked = "\n".join(f"{said.role}: {said.content}" for said in pair.conversation)
        winner = TIE if a == b else ""
        writer.writerow([*map(_plain, (pair.id, asked, a, b)), winner, _name(pair)])
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            file.write(text.getvalue())
    except FileExistsError as error:
        raise InvalidInputError(
            f"a sheet is written once, got {path.name}, which is there; name another file, or "
            "fill in its column winner (a, b or tie) and read it"
        ) from error


def read_sheet(path: Path, pairs: Sequence[Item]) -> SheetRead:
    """Read what people wrote: a, b or tie in the column winner, nothing where it is still open.

    Raises:
        InvalidInputError: The file cannot be read, or lacks a column.
    """
    by_name = {_name(pair): pair for pair in pairs}
    winners: dict[str, str] = {}
    aside: list[SetAsideRow] = []
    still_open = 0
    beforehand: list[str] = []  # filled in for people since the last one that they filled in
    with read_rows(path, needs=[(name,) for name in NEEDED], names=COLUMNS) as rows:
        for row in rows:
            try:
                word, name = (str(row.read()[name] or "").strip() for name in NEEDED)
                word = word.casefold()
                pair = by_name.get(name)
                if not word:
                    still_open += 1
                    continue
                if word not in ("a", "b", TIE):
                    raise InvalidInputError(
                        f"winner must be a, b or tie, got {printable(word, 20)!r}; write one of "
                        "the three"
                    )
                if pair is None:
                    raise InvalidInputError(
                        "it is about other answers than these; label a new sheet"
                    )
                if pair.id in winners:
                    raise InvalidInputError(
                        f"{printable(pair.id)!r} is there before; each pair is labelled once"
                    )
            except InvalidInputError as error:
                aside.append(row.set_aside(str(error)))
                continue
            winners[pair.id] = _winner(pair, word)
            beforehand = [*beforehand, pair.id] if pair.answer == pair.other else []
    if still_open:
        winners = {key: winner for key, winner in winners.items() if key not in beforehand}
        still_open += len(beforehand)
    compared = sum(pair.id in winners and pair.answer != pair.other for pair in pairs)
    return SheetRead(winners, compared, still_open, tuple(aside))


def _winner(pair: Item, said: str) -> str:
    if said == TIE:
        return TIE
    return SECOND if (said == "a") == _swapped(pair) else FIRST


def _name(pair: Item) -> str:
    return digest(["pair", pair.id, pair.answer, pair.other])[:16]


def _swapped(pair: Item) -> bool:
    return int(digest(["order", pair.id, pair.answer, pair.other])[:8], 16) % 2 == 1


def _plain(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text
