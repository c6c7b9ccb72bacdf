"""The options of `ratchet gate` that say how scores are made and read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ratchet.cli.shared import finite

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
        help="CSV or JSON Lines with id, prompt or messages and, where there are, target, tests, "
        "entry_point, user_id, group, cluster."
    ),
]
PolicyFile = Annotated[
    Path | None,
    typer.Option(
        help="YAML, or open-ended; default: promote if the first metric is significantly better "
        "(5 % level), of examples without targets open-ended."
    ),
]
HigherIsBetter = Annotated[
    list[str] | None,
    typer.Option(
        help="A metric of which more is better, where its name is not a known one; repeatable."
    ),
]
LowerIsBetter = Annotated[
    list[str] | None, typer.Option(help="A metric of which less is better; repeatable.")
]
Samples = Annotated[
    int | None,
    typer.Option(min=1, help="How many answers each model gives to each example, for pass@k."),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        help="Of sampling; default: 0.8 where there are several samples.", callback=finite
    ),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of sampling; default: 0.")]
Candidate = Annotated[
    bool,
    typer.Option(
        "--candidate",
        help="Gate the latest candidate as the flow deploy does, and do what is decided.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="With --candidate, say what would be compared; change nothing."),
]
Options = Annotated[
    Path | None,
    typer.Option(
        "--options",
        help="With --candidate, YAML or JSON with options of the flow deploy, over the home's.",
    ),
]
ToLabel = Annotated[
    Path | None,
    typer.Option(help="Write 100 pairs of answers for people to compare blindly."),
]
Labels = Annotated[
    Path | None, typer.Option(help="A sheet of --to-label with its column winner filled in.")
]
