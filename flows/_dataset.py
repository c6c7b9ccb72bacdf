"""Training on a data set that others made: its cycle, what its gate asks, and its rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict, Field

from ratchet.deploy.gate.decoding import length_for
from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.evaluation.example_files import read_examples
from ratchet.flows._recorded import in_use
from ratchet.flows._runtime import logger, now, workspace
from ratchet.improve.curation.config import CurationConfig
from ratchet.improve.curation.dataset import write_prepared
from ratchet.improve.curation.given import Given, hold_out, prepared_of, read_given
from ratchet.improve.training.config import FinetuneConfig
from ratchet.records import Cycle, Example, ExampleSet, TrainingSet, digest
from ratchet.store import EventStore
from ratchet.store.cycles import (
    example_set,
    freeze_examples,
    latest_cycle,
    open_dataset_cycle,
)

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


@task(name="read-dataset", cache_policy=NO_CACHE)
def dataset_cycle(
    options: DatasetOptions, finetune: FinetuneConfig, curation: CurationConfig
) -> tuple[Cycle, TrainingSet, FinetuneConfig]:
    """Open the cycle of a data set, or go on with it, and write its training set.

    Raises:
        InvalidInputError: The data set or the examples cannot be used.
        ConflictError: A cycle of users' traffic is open.
    """
    work = workspace()
    store = work.store
    given, examples, longest = read_for_gate(options, work.settings.cache, store)
    config = config_for(given, finetune)
    for reason, count in given.reasons:
        logger.warning("set aside %d of %d rows: %s", count, given.read, reason)
    frozen = freeze_examples(store, "held-out", examples, now(), longest)
    protected = [one.prompt for found in store.records(ExampleSet) for one in found.examples]
    prepared = prepared_of(given, protected, curation)
    cycle = open_dataset_cycle(
        store,
        champion=in_use().reference,
        options_digest=digest(["dataset", prepared.digest, frozen.id]),
        example_set_id=frozen.id,
        now=now(),
    )
    written = write_prepared(
        prepared, home=work.settings.home, cycle_id=cycle.id, now=now(), origin=given.origin
    )
    stored = store.get(TrainingSet, written.id)
    if stored is None:
        store.append(written)
    return cycle, stored or written, config
