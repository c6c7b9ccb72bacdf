"""Cycles of what real users did: nothing is answered or simulated, the store has it already."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from ratchet.analyze.failures.traffic_sample import SampleRules
from ratchet.deploy.promotion import establish_champion
from ratchet.errors import InvalidInputError
from ratchet.evaluation.example_files import read_examples
from ratchet.flows._runtime import now, register_base, workspace
from ratchet.flows._sampling import sampled_examples
from ratchet.records import LABEL_TOKENS, Cycle, ExampleSet, digest
from ratchet.store.cycles import freeze_examples, open_cycle


def gate_examples(path: Path | None, rules: SampleRules, max_new_tokens: int | None) -> ExampleSet:
    """Return what both models answer at the gate: a file's examples, else drawn from traffic.

    Raises:
        InvalidInputError: The file breaks a rule.
        WaitingError: There is no file, and too little traffic.
    """
    if path is None:
        return sampled_examples(rules, max_new_tokens)
    return freeze_examples(
        workspace().store, "held-out", read_examples(path), now(), max_new_tokens or LABEL_TOKENS
    )


@task(name="open-recorded-cycle", cache_policy=NO_CACHE)
def open_recorded(examples: ExampleSet, seed: int) -> Cycle:
    """Open a cycle of the traffic that no cycle had, or go on with the open one.

    Raises:
        InsufficientDataError: Nothing was recorded that no cycle had.
    """
    work = workspace()
    champion = establish_champion(work.store, work.tracker, register_base(), now())
    return open_cycle(
        work.store,
        champion=champion.reference,
        options_digest=digest(["recorded", examples.id, seed]),
        seed=seed,
        example_set_id=examples.id,
        now=now(),
        recorded=True,
    )


def refuse_real_users() -> None:
    """Refuse to add simulated users to a home with real traffic.

    Raises:
        InvalidInputError: The gateway has run in this home.
    """
    if workspace().settings.home.joinpath("gateway").exists():
        raise InvalidInputError(
            "simulated users must not be added to a home with real traffic, got one in which "
            "`ratchet serve` has run; set collect.source to recorded, or set it to simulated to "
            "add them all the same"
        )
