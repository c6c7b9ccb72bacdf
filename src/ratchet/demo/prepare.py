"""Before the demonstration's users come: a champion, examples for the gate, and a reference.

python -m ratchet.demo.prepare OPTIONS EXAMPLES    # JSON of `DemoOptions`, a file of examples

The reference is the untrained model restricted to the queues' names: of a challenger's gain over
the untrained champion it shows how much is merely the form of the answer.
"""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from ratchet.demo.plan import DemoOptions, Task, read_task
from ratchet.deploy.promotion import establish_champion
from ratchet.errors import RatchetError
from ratchet.evaluation.example_files import read_examples
from ratchet.evaluation.matching import exact_match
from ratchet.files.logs import harmless_logs
from ratchet.files.rows import set_aside_lines
from ratchet.models import HuggingFaceModel, model_digest, prepare_base_model
from ratchet.operate.base_model import register_base
from ratchet.operate.opening import open_store
from ratchet.records import ExampleSet, ReferenceScore, derive_id
from ratchet.settings import Settings, load_settings
from ratchet.store import EventStore
from ratchet.store.cycles import freeze_examples
from ratchet.tracking import Tracker

logger = logging.getLogger("ratchet.demo")  # also where it is run as a program


def prepare(settings: Settings, options: DemoOptions, path: Path) -> None:
    """Make the base model the champion of a fresh home, and score the reference once.

    Raises:
        RatchetError: Something else is the champion, or a file breaks a rule.
    """
    store, now = open_store(settings), datetime.now(UTC)
    task, read = read_task(options, now)
    if read is not None:
        store.set_aside(read.set_aside)
        logger.info("read %d messages, set aside %d rows", len(read.messages), len(read.set_aside))
        for line in set_aside_lines(read.set_aside):
            logger.warning("%s", line)
    tracker = Tracker(
        settings.tracking_uri, artifacts=settings.artifacts, model_name=settings.model_name
    )
    champion = establish_champion(
        store, tracker, lambda: register_base(settings, store, tracker, now), now
    )
    logger.info("%s answers", champion.reference)
    # the same set as the loop's, which reads the same file
    examples = freeze_examples(store, "held-out", read_examples(path), now, options.max_new_tokens)
    if options.instruction is None:
        _score_reference(settings, store, task, examples)


def _score_reference(
    settings: Settings, store: EventStore, task: Task, examples: ExampleSet
) -> None:
    """Store what the untrained model reaches when it may name queues only, once for a set."""
    folder = prepare_base_model(settings.base_model, settings.cache, settings.chat_template)
    key = derive_id("reference", examples.id, model_digest(folder), *task.labels)
    if store.get(ReferenceScore, key) is not None:
        return
    logger.info("asking the untrained model for the likeliest of %d queues", len(task.labels))
    places = HuggingFaceModel.load(folder).likeliest(
        [one.messages for one in examples.examples], task.labels
    )
    right = [
        exact_match(task.labels[place], one.target or "")
        for place, one in zip(places, examples.examples, strict=True)
    ]
    store.append(
        ReferenceScore(
            id=key,
            created_at=datetime.now(UTC),
            example_set_id=examples.id,
            name=f"likeliest of {len(task.labels)} names",
            says="the untrained model where it may say nothing but the queues' names; what the "
            "challenger reaches beyond it is not merely the form of the answer",
            metric="exact_match",
            value=sum(right) / len(right),
        )
    )


def main(arguments: list[str]) -> int:
    """Prepare the home that the environment names."""
    harmless_logs()
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("ratchet").setLevel(logging.INFO)
    given, path = arguments
    try:
        prepare(
            load_settings(os.environ, Path.cwd()),
            DemoOptions.model_validate_json(given),
            Path(path),
        )
    except RatchetError as error:
        logger.error("ratchet: %s", error)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
