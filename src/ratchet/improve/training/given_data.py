"""Reading a data set that others made: its rows to train on, and the examples of its gate.

`ratchet train --dataset` and the flow `improve` read it by what stands here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.evaluation.example_files import read_examples
from ratchet.improve.curation.given import Given, hold_out, read_given
from ratchet.improve.training.config import FinetuneConfig
from ratchet.records import Example
from ratchet.store import EventStore
from ratchet.store.cycles import example_set, latest_cycle

_SHORTEST, _LONGEST = 16, 8_192
_CHARACTERS_A_TOKEN = 2.0
LATEST = Path("latest")


class DatasetOptions(BaseModel):
    """A data set in one of TRL's formats, trained on in the place of users' feedback.

    Attributes:
        source: A file, a folder, or an id of the Hub: `owner/name` or `owner/name@revision`.
        examples: What both models answer at the gate; `latest` for what the latest cycle's gate
            asked. Left out, the data set's split `test` or `validation`, else a share of its rows,
            which are not trained on.
        held_out: That share.
        most_examples: So many examples at most.
        max_new_tokens: The longest answer at the gate; left out, room for the longest right answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Annotated[str, Field(min_length=1)]
    examples: Path | None = None
    held_out: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    most_examples: Annotated[int, Field(ge=1)] = 200
    max_new_tokens: Annotated[int, Field(ge=1, le=8_192)] | None = None


def read_for_gate(
    options: DatasetOptions, cache: Path, store: EventStore | None
) -> tuple[Given, tuple[Example, ...], int]:
    """Return the data set without what is held out, the gate's examples, and their length.

    Raises:
        InvalidInputError: A file breaks a rule, or too little is left.
        InsufficientDataError: The latest cycle's examples are wanted, and there is none.
    """
    given = read_given(options.source, cache)
    if options.examples == LATEST:
        if store is None:
            raise InsufficientDataError("--examples latest needs a cycle, got none; name a file")
        asked = example_set(store, latest_cycle(store).example_set_id)
        return given, asked.examples, options.max_new_tokens or asked.max_new_tokens
    examples = (
        hold_out(given, options.held_out, options.most_examples)
        if options.examples is None
        else read_examples(options.examples)
    )
    longest = options.max_new_tokens or length_for([one.target or "" for one in examples])
    return given, examples, longest


def config_for(given: Given, config: FinetuneConfig) -> FinetuneConfig:
    """Return the configuration with the method that the data set's columns are for.

    Raises:
        InvalidInputError: Another method was asked for.
    """
    if config.method == given.kind:
        return config
    if "method" in config.model_fields_set:
        raise InvalidInputError(
            f"the columns of {given.origin} are those of {given.kind}, got method "
            f"{config.method!r}; leave --method out, or take another data set"
        )
    return config.model_copy(update={"method": given.kind})


def length_for(answers: Sequence[str]) -> int:
    """Return how many tokens leave room for all of these answers, as a power of two.

    Two characters are taken for a token, so that it is enough for any tokenizer of today's.
    """
    longest = max((len(answer) for answer in answers), default=0) / _CHARACTERS_A_TOKEN
    wanted = _SHORTEST
    while wanted < min(_LONGEST, longest):
        wanted *= 2
    return wanted
