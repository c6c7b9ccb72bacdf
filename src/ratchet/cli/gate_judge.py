"""The metric `win_rate` of `ratchet gate`: a judge of pairs, and people who label some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.cli.saying import say
from ratchet.errors import InvalidInputError
from ratchet.files.text import counted
from ratchet.settings import Settings

if TYPE_CHECKING:
    from ratchet.judges.judged_win_rate import JudgedWinRate
    from ratchet.judges.prompts import Item
    from ratchet.records import Example

ON_SHEET = 100


@dataclass(frozen=True, slots=True)
class Judging:
    """Who says which of two answers is better.

    Attributes:
        judges: YAML with a judge of pairs; the settings' where None.
        labels: A sheet that people filled in; None before there is one.
        to_label: Where a sheet for people is written.
    """

    judges: Path | None = None
    labels: Path | None = None
    to_label: Path | None = None


def hand_out(path: Path, pairs: Sequence[Item]) -> None:
    """Write pairs of answers for people to compare.

    Raises:
        InvalidInputError: The file is there already.
    """
    from ratchet.judges.judged_win_rate import hand_out as write_pairs

    differing = write_pairs(path, pairs, ON_SHEET)
    say(
        f"{counted(differing, 'pair')} to compare in {path.name}: write a, b or tie into the "
        "column "
        "winner, then give it as --labels"
    )


def judged(
    settings: Settings, judging: Judging, examples: Sequence[Example], pairs: Sequence[Item]
) -> JudgedWinRate:
    """Judge every pair of answers, and correct the judge by people's labels.

    Raises:
        InvalidInputError: There is no judge of pairs, or no sheet that people filled in.
    """
    from ratchet.files.rows import set_aside_lines
    from ratchet.judges.judged_win_rate import judge_win_rate, pair_judge
    from ratchet.judges.label_sheet import read_sheet
    from ratchet.judges.rubrics import load_judges
    from ratchet.judges.win_rate import users_of
    from ratchet.store import EventStore

    path = judging.judges or settings.judges
    if path is None:
        raise InvalidInputError("win_rate needs a judge of pairs, got no file; give --judges")
    spec = pair_judge(load_judges(path))
    if judging.labels is None:
        raise InvalidInputError(
            "win_rate needs pairs that people labelled, got none; write a sheet for them with "
            "--to-label FILE, have it filled in and give it as --labels"
        )
    sheet = read_sheet(judging.labels, pairs)
    for line in set_aside_lines(sheet.set_aside):
        say(line, err=True)
    return judge_win_rate(
        EventStore.open(settings.store_url, assistant=settings.model_name),
        spec,
        pairs,
        sheet,
        users=users_of(examples),
        cache=settings.cache,
        now=lambda: datetime.now(UTC),
    )
