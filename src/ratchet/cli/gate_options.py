"""The options of `ratchet gate` that say how scores are made and read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ScoresFile = Annotated[
    Path | None,
    typer.Option(
        help="CSV or JSON Lines with example_id, metric, champion, challenger and, where there "
        "are, user_id, group, cluster."
    ),
]
ExamplesFile = Annotated[
    Path | None,
    typer.Option(
        help="CSV or JSON Lines with id, prompt or messages, target or tests and, where there "
        "are, entry_point, user_id, group, cluster."
    ),
]
HigherIsBetter = Annotated[
    list[str] | None,
    typer.Option(help="A metric of which more is better, where its name does not say so."),
]
LowerIsBetter = Annotated[
    list[str] | None, typer.Option(help="A metric of which less is better; both repeatable.")
]
Samples = Annotated[
    int | None,
    typer.Option(
        min=1, help="Answers of each model to each example, sampled where more than 1; for pass@k."
    ),
]
Temperature = Annotated[
    float | None, typer.Option(help="Of sampling; 0.8 where there are several samples.")
]
Seed = Annotated[int | None, typer.Option(min=0, help="Of sampling; 0 where left out.")]
