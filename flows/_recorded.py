"""Cycles of what users did: the store has their answers and feedback already."""

from __future__ import annotations

import os
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from ratchet.analyze.failures.traffic_sample import SampleRules
from ratchet.deploy.gate.decoding import answer_length
from ratchet.deploy.promotion import establish_champion
from ratchet.deploy.served import other_names
from ratchet.errors import WaitingError
from ratchet.evaluation.example_files import read_examples
from ratchet.flows._elsewhere import follow_champion, trains_nowhere
from ratchet.flows._golden import golden_examples, refresh_golden
from ratchet.flows._runtime import logger, now, register_base, workspace
from ratchet.flows._sampling import sampled_examples
from ratchet.golden.rules import GoldenRules
from ratchet.operate.base_model import why_not_champion
from ratchet.operate.readiness import NextCycle, lacks
from ratchet.operate.readiness import refuse_incomplete as refuse
from ratchet.records import Cycle, ExampleSet, Release, digest
from ratchet.store import EVER, EventStore, Window
from ratchet.store.cycles import (
    await_traffic,
    example_set,
    freeze_examples,
    open_cycle,
    unfinished_cycle,
)
from ratchet.tracking import ModelVersion


def gate_examples(
    path: Path | None, golden: GoldenRules | None, rules: SampleRules, max_new_tokens: int | None
) -> ExampleSet:
    """Return what both models answer at the gate: a file's examples, else what grew from traffic.

    That is the golden set, whose right answers people gave, and where there is no version of it a
    sample of open questions. Answers may be as long as those that users get, where no length is
    given.

    Raises:
        InvalidInputError: The file breaks a rule.
        WaitingError: There is no file, and too little traffic.
    """
    store = workspace().store
    if path is None:
        refresh_golden(golden)
        grown = golden_examples(golden)
        if grown is not None:
            return grown
    longest = max_new_tokens or _length(store)
    if path is None:
        return sampled_examples(rules, longest)
    return freeze_examples(store, "held-out", read_examples(path), now(), longest)


def recorded_cycle(
    path: Path | None,
    golden: GoldenRules | None,
    rules: SampleRules,
    max_new_tokens: int | None,
    seed: int,
) -> str:
    """Open a cycle of recorded traffic with its examples, or go on with the open one: its id.

    Raises:
        WaitingError: There is no champion, or too little traffic.
    """
    _await_champion()
    follow_champion()
    return open_recorded(_examples(path, golden, rules, max_new_tokens), seed).id


def _examples(
    path: Path | None, golden: GoldenRules | None, rules: SampleRules, max_new_tokens: int | None
) -> ExampleSet | None:
    """Return the gate's examples; None where there are none yet and nobody can train.

    Raises:
        InvalidInputError: The file breaks a rule.
        WaitingError: There is too little traffic.
    """
    try:
        return gate_examples(path, golden, rules, max_new_tokens)
    except WaitingError as error:
        if not trains_nowhere():
            raise
        logger.info("no examples for a gate, which has no weights to train from: %s", error)
        return None


def _await_champion() -> None:
    """Wait where something else answers users and nobody said what the champion is."""
    work = workspace()
    why = why_not_champion(work.settings, work.store, now())
    if why and work.store.latest(Release) is None and work.tracker.champion() is None:
        raise WaitingError(f"a cycle needs a champion, {why}", "setup")


def in_use() -> ModelVersion:
    """Return the champion, in a fresh home the base model; one moved by hand has to answer."""
    work = workspace()
    return establish_champion(
        work.store, work.tracker, register_base, now(), answering=work.answering
    )


@task(name="open-recorded-cycle", cache_policy=NO_CACHE)
def open_recorded(examples: ExampleSet | None, seed: int) -> Cycle:
    """Open a cycle of the traffic that no cycle had, or go on with the open one.

    Args:
        examples: Of its gate; None where there will be none.
        seed: Of everything that is drawn.

    Raises:
        WaitingError: Nothing was recorded that no cycle had.
    """
    work = workspace()
    await_traffic(work.store, now())
    champion, set_id = in_use(), examples.id if examples else ""
    return open_cycle(
        work.store,
        champion=champion.reference,
        options_digest=digest(["recorded", set_id, seed]),
        seed=seed,
        example_set_id=set_id,
        now=now(),
        also=other_names(work.store, champion.reference),
    )


def refuse_incomplete(wanted: NextCycle) -> None:
    """Refuse to begin a cycle of recorded traffic that lacks something, all of it at once.

    Raises:
        InsufficientDataError: It lacks something.
    """
    work = workspace()
    by_hand = None if work.store.latest(Release) else work.tracker.champion()
    champion = by_hand.reference if by_hand else None
    refuse(
        lacks(work.settings, work.store, wanted, environ=os.environ, now=now(), champion=champion)
    )


def _length(store: EventStore) -> int:
    """Return the longest answer of the open cycle, which goes on, or of the latest traffic."""
    open_now = unfinished_cycle(store)
    if open_now and open_now.arrived_until is not None and open_now.example_set_id:
        return example_set(store, open_now.example_set_id).max_new_tokens
    return answer_length(store, Window(EVER, now()))
