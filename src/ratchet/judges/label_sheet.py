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
from typing import Any

from ratchet.errors import InvalidInputError
from ratchet.files.rows import SetAsideRow, read_rows
from ratchet.files.text import SPREADSHEET_MARK, harmless_cell, printable, restored_cell
from ratchet.judges.label_sets import TIE
from ratchet.judges.prompts import Item, second_first
from ratchet.records import digest, transcript
from ratchet.records.tool_calls import spoken_answer

FIRST, SECOND = "1", "2"
WORTH = {FIRST: 1.0, SECOND: 0.0, TIE: 0.5}
COLUMNS = ("example_id", "prompt", "answer_a", "answer_b", "winner", "pair")
NEEDED = ("winner", "pair")
ANSWERS = ("answer_a", "answer_b")


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


def sheet_text(
    pairs: Sequence[Item], ids: Sequence[str], *, shown: Mapping[str, Item] | None = None
) -> str:
    """Return the pairs of these ids as a sheet for people, ready for a spreadsheet.

    Args:
        pairs: The pairs, by which rows are named, ordered and placed.
        ids: Those of them that are put on the sheet.
        shown: What is shown of them instead, by id, such as without personal data.

    Raises:
        InvalidInputError: An id is that of no pair.
    """
    by_id = {pair.id: pair for pair in pairs}
    strangers = [key for key in ids if key not in by_id]
    if strangers:
        raise InvalidInputError(f"a sheet must be about the pairs, got {strangers[0]!r}")
    text = io.StringIO()
    text.write(SPREADSHEET_MARK)
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for pair in sorted((by_id[key] for key in ids), key=lambda one: digest(["row", _bare(one)])):
        seen = pair if shown is None else shown[pair.id]
        both = (seen.answer, seen.other or "")
        a, b = both[::-1] if second_first(pair) else both
        winner = TIE if pair.answer == (pair.other or "") else ""
        said = (transcript(seen.conversation), spoken_answer(a), spoken_answer(b))
        cells = map(harmless_cell, (pair.id, *said))
        writer.writerow([*cells, winner, pair_name(pair)])
    return text.getvalue()


def write_sheet(path: Path, pairs: Sequence[Item], ids: Sequence[str]) -> None:
    """Write the pairs of these ids for people; a sheet that is there is not written over.

    Raises:
        InvalidInputError: The file is there, or an id is that of no pair.
    """
    text = sheet_text(pairs, ids)
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
    except FileExistsError as error:
        raise written_before(path.name) from error


def written_before(name: str) -> InvalidInputError:
    """Return the error for a sheet that is there, which people may have filled in."""
    return InvalidInputError(
        f"a sheet is written once, got {name}, which is there; name another file, or fill in its "
        "empty column and read it"
    )


def read_sheet(path: Path, pairs: Sequence[Item]) -> SheetRead:
    """Read what people wrote: a, b or tie in the column winner, nothing where it is still open.

    Raises:
        InvalidInputError: The file cannot be read, or lacks a column.
    """
    by_name = {name: pair for pair in pairs for name in (_bare(pair), pair_name(pair))}
    by_id = {pair.id: pair for pair in pairs}
    winners: dict[str, str] = {}
    aside: list[SetAsideRow] = []
    still_open = 0
    beforehand: list[str] = []  # filled in for people since the last one that they filled in
    with read_rows(path, needs=[(name,) for name in NEEDED], names=COLUMNS) as rows:
        for row in rows:
            try:
                cells = row.read()
                word, name = (str(cells[column] or "").strip() for column in NEEDED)
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
                _refuse_shifted(pair, cells, by_id)
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


def _refuse_shifted(pair: Item, cells: Mapping[str, Any], by_id: Mapping[str, Item]) -> None:
    """Refuse a row whose cells are those of another one, as after one column alone was sorted.

    Other changes of what is shown do no harm: spreadsheets write numbers, dates and long texts in
    their own way.
    """
    key = restored_cell(str(cells.get("example_id") or ""))
    if key != pair.id and key in by_id:
        raise InvalidInputError(
            f"example_id and pair must be of one row, got {printable(key, 40)!r} beside the pair "
            f"of {printable(pair.id, 40)!r}; sort whole rows, not one column"
        )
    a, b = (_squeezed(restored_cell(str(cells.get(name) or ""))) for name in ANSWERS)
    shown = [_squeezed(spoken_answer(text or "")) for text in (pair.answer, pair.other)]
    if shown[0] != shown[1] and [b, a] == (shown[::-1] if second_first(pair) else shown):
        raise InvalidInputError(
            "answer_a and answer_b must stand as they were written, got them exchanged; put them "
            "back, or label a new sheet"
        )


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def _winner(pair: Item, said: str) -> str:
    if said == TIE:
        return TIE
    return SECOND if (said == "a") == second_first(pair) else FIRST


def pair_name(pair: Item) -> str:
    """Return what names the example and both answers.

    It begins with a letter that no number has: spreadsheets write 12e4567890123456 anew.
    """
    return f"p{_bare(pair)}"


def _bare(pair: Item) -> str:
    """The name as sheets had it before, which may look like a number."""
    return digest(["pair", pair.id, pair.answer, pair.other])[:16]
