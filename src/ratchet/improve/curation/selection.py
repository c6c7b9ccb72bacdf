"""Training sets from what users showed to be good: corrections and well-rated answers.

A correction is trained on as the user gave it. An answer is trained on where somebody rated it
well and its quality is high. Nothing blank and nothing that the gate tests on gets in.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ratchet.errors import InsufficientDataError, LeakError
from ratchet.evaluation.metrics import Outcomes, Quality, normalise_answer
from ratchet.records import Interaction, Message, TrainingSet, derive_id, digest

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

Source = Literal["correction", "rated"]
ROWS_FILE = "train.parquet"


class CurationConfig(BaseModel):
    """Which interactions are trained on.

    Attributes:
        maximum_examples: Size of the set; the newest of each target stay.
        minimum_examples: Below this many there is nothing worth training on.
        minimum_quality: Quality in [0, 1] that a rated answer must reach.
        shuffle_targets: Permute the targets over the examples: a negative control that the gate
            has to reject. Never for use.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    maximum_examples: Annotated[int, Field(ge=1)] = 320
    minimum_examples: Annotated[int, Field(ge=1)] = 16
    minimum_quality: Annotated[float, Field(ge=0.0, le=1.0)] = 0.75
    shuffle_targets: bool = False


@dataclass(frozen=True, slots=True)
class Selected:
    """An interaction chosen for training, by its place in the outcomes."""

    interaction_id: str
    prompt: str
    target: str
    source: Source
    position: int


@dataclass(frozen=True, slots=True)
class Selection:
    """What was chosen, and how many were left after each step."""

    rows: tuple[Selected, ...]
    funnel: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """A prompt with the answer to learn."""

    interaction_id: str
    messages: tuple[Message, ...]
    target: str
    source: Source

    def canonical(self) -> dict[str, object]:
        """Return the row as JSON-able values."""
        return {
            "interaction_id": self.interaction_id,
            "messages": [message.canonical() for message in self.messages],
            "target": self.target,
            "source": self.source,
        }


def select(
    outcomes: Outcomes,
    quality: Quality,
    protected: Collection[str],
    config: CurationConfig,
    *,
    withheld: Collection[str] = (),
) -> Selection:
    """Choose interactions to train on.

    Args:
        outcomes: All interactions with their feedback, in order of time.
        quality: Their quality, same order.
        protected: Prompts that the gate tests on; none of them gets in, whatever its case, spacing
            or punctuation at the ends.
        config: What counts as good and how many to take.
        withheld: Ids of interactions that are flagged as unsafe and that nobody reviewed yet; those
            that were found unsafe are left out as well.

    Raises:
        InsufficientDataError: Fewer than `minimum_examples` are left.
    """
    chosen = list(_good(outcomes, quality, config.minimum_quality))
    safe = [
        row
        for row in chosen
        if row.interaction_id not in withheld and outcomes.unsafe[row.position] != 1.0
    ]
    unique = _one_per_prompt(safe)
    forbidden = {normalise_answer(prompt) for prompt in protected}
    clean = [row for row in unique if normalise_answer(row.prompt) not in forbidden]
    kept = _balance(clean, config.maximum_examples)
    funnel = (
        ("interactions", len(outcomes.interaction_ids)),
        ("corrected or well rated", len(chosen)),
        ("not flagged as unsafe", len(safe)),
        ("one per prompt", len(unique)),
        ("not in an evaluation set", len(clean)),
        ("balanced and capped", len(kept)),
    )
    if len(kept) < config.minimum_examples:
        raise InsufficientDataError(
            f"a training set needs at least {config.minimum_examples} examples, got {len(kept)} "
            f"({', '.join(f'{name}: {count}' for name, count in funnel)}); collect more feedback"
        )
    return Selection(rows=tuple(kept), funnel=funnel)


def _good(outcomes: Outcomes, quality: Quality, minimum: float) -> Iterable[Selected]:
    rated = (quality.value >= minimum) & (quality.explicit >= minimum)
    for position in range(len(outcomes.interaction_ids)):
        correction = outcomes.corrections[position]
        target = str(outcomes.responses[position] if correction is None else correction).strip()
        if not target or (correction is None and not rated[position]):
            continue
        yield Selected(
            interaction_id=str(outcomes.interaction_ids[position]),
            prompt=str(outcomes.prompts[position]),
            target=target,
            source="rated" if correction is None else "correction",
            position=position,
        )


def _one_per_prompt(rows: Sequence[Selected]) -> list[Selected]:
    """Keep the newest row of each prompt with its most frequent target; a tie drops the prompt."""
    groups: dict[str, list[Selected]] = defaultdict(list)
    for row in rows:
        groups[normalise_answer(row.prompt)].append(row)
    kept = []
    for group in groups.values():
        counts = Counter(normalise_answer(row.target) for row in group).most_common(2)
        if len(counts) == 2 and counts[0][1] == counts[1][1]:
            continue
        kept.append([row for row in group if normalise_answer(row.target) == counts[0][0]][-1])
    return sorted(kept, key=lambda row: row.position)


def _balance(rows: Sequence[Selected], most: int) -> list[Selected]:
    """Take from the targets in turn, corrections and then the newest first, until full."""
    queues: dict[str, list[Selected]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row.source == "correction", row.position)):
        queues[normalise_answer(row.target)].append(row)
    kept: list[Selected] = []
    while queues and len(kept) < most:
        for target in sorted(queues):
            kept.append(queues[target].pop())
            if not queues[target]:
                del queues[target]
            if len(kept) == most:
                break
    return sorted(kept, key=lambda row: row.position)


def build_rows(
    selection: Selection, interactions: dict[str, Interaction], config: CurationConfig, seed: int
) -> list[TrainingRow]:
    """Put the selection's full conversations and targets together, in order of time."""
    targets = [row.target for row in selection.rows]
    if config.shuffle_targets:
        order = np.random.default_rng(seed).permutation(len(targets))
        targets = [targets[place] for place in order]
    return [
        TrainingRow(
            row.interaction_id, interactions[row.interaction_id].messages, target, row.source
        )
        for row, target in zip(selection.rows, targets, strict=True)
    ]


def write_training_set(
    rows: Sequence[TrainingRow],
    selection: Selection,
    protected: Collection[str],
    *,
    home: Path,
    cycle_id: str,
    now: datetime,
) -> TrainingSet:
    """Write the rows as Parquet under the home folder and describe them.

    Raises:
        LeakError: A prompt that the gate tests on is among the rows.
    """
    forbidden = {normalise_answer(prompt) for prompt in protected}
    leaked = [row for row in rows if normalise_answer(_question(row)) in forbidden]
    if leaked:
        raise LeakError(
            f"no prompt of an evaluation set may be trained on, got {len(leaked)}, for example "
            f"{_question(leaked[0])[:80]!r}; this is a defect in the selection"
        )
    content = digest([row.canonical() for row in rows])
    path = Path("datasets") / content[:16]
    frame(rows).to_parquet(_folder(home / path) / ROWS_FILE, index=False)
    return TrainingSet(
        id=derive_id("training set", cycle_id, content),
        cycle_id=cycle_id,
        created_at=now,
        digest=content,
        path=str(path),
        size=len(rows),
        funnel=selection.funnel,
    )


def frame(rows: Sequence[TrainingRow]) -> pd.DataFrame:
    """Return the rows as a table."""
    import pandas as pd

    return pd.DataFrame([row.canonical() for row in rows])


def read_rows(folder: Path) -> list[TrainingRow]:
    """Read a training set back."""
    import pandas as pd

    table = pd.read_parquet(folder / ROWS_FILE)
    return [
        TrainingRow(
            row["interaction_id"],
            tuple(Message(**message) for message in row["messages"]),
            row["target"],
            row["source"],
        )
        for row in table.to_dict("records")
    ]


def _question(row: TrainingRow) -> str:
    return next((m.content for m in reversed(row.messages) if m.role == "user"), "")


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path
