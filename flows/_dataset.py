"""Training on a data set that others made: its cycle and its training set."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from ratchet.flows._recorded import in_use
from ratchet.flows._runtime import logger, now, workspace
from ratchet.improve.curation.config import CurationConfig
from ratchet.improve.curation.dataset import write_prepared
from ratchet.improve.curation.given import prepared_of
from ratchet.improve.training.config import FinetuneConfig
from ratchet.improve.training.given_data import DatasetOptions, config_for, read_for_gate
from ratchet.records import Cycle, ExampleSet, TrainingSet, digest
from ratchet.store.cycles import freeze_examples, open_dataset_cycle


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
