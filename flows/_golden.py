"""The golden set in the loop: a version is made when the rules say that one is due."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from ratchet.deploy.gate.decoding import answer_length
from ratchet.flows._runtime import logger, now, publish_text, workspace
from ratchet.golden.building import refresh
from ratchet.golden.rules import GoldenRules
from ratchet.golden.versions import frozen_examples, golden_of, golden_version, golden_versions
from ratchet.records import ExampleSet
from ratchet.store import EVER, Window
from ratchet.store.cycles import example_set, unfinished_cycle
from ratchet.store.history import History
from ratchet.store.leases import GOLDEN, hold
from ratchet.views.text.golden import version_markdown


def refresh_golden(rules: GoldenRules | None) -> None:
    """Make the next version where one is due; not while a cycle is open, which keeps its own."""
    if rules is not None and rules.automatic and unfinished_cycle(workspace().store) is None:
        refresh_version(rules)


@task(name="refresh-golden", cache_policy=NO_CACHE)
def refresh_version(rules: GoldenRules) -> None:
    """Freeze what people said to be right since the version before, where that is enough."""
    work = workspace()
    with hold(work.store, GOLDEN, wait=None):
        made = refresh(
            work.store,
            work.settings.home,
            History.open(work.settings.history, of=work.store),
            rules,
            now=now(),
            open_tokens=answer_length(work.store, Window(EVER, now())),
        )
    if made is not None:
        logger.info("golden set: version %d, %d examples: %s", made.number, made.examples, made.why)
        publish_text("golden", version_markdown(made), f"Golden set, version {made.number}")


def golden_examples(rules: GoldenRules | None) -> ExampleSet | None:
    """Return the examples of the version that the gate asks; None where there is none.

    An open cycle keeps the version that it began with.
    """
    store = workspace().store
    if rules is None or not golden_versions(store):
        return None
    cycle = unfinished_cycle(store)
    if rules.version is None and cycle is not None and golden_of(store, cycle.example_set_id):
        return example_set(store, cycle.example_set_id)
    return frozen_examples(store, golden_version(store, rules.version))
