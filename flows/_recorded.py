"""Cycles of what real users did: nothing is answered or simulated, the store has it already."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from ratchet.deploy.promotion import establish_champion
from ratchet.errors import InvalidInputError
from ratchet.evaluation.example_files import read_examples
from ratchet.flows._runtime import now, register_base, workspace
from ratchet.records import Cycle, digest
from ratchet.store.cycles import freeze_examples, open_cycle


@task(name="open-recorded-cycle", cache_policy=NO_CACHE)
def open_recorded(examples: Path | None, max_new_tokens: int, seed: int) -> Cycle:
    """Open a cycle of the traffic that no cycle had, or go on with the open one.

    Raises:
        InvalidInputError: There are no examples for the gate, or the file breaks a rule.
        InsufficientDataError: Nothing was recorded that no cycle had.
    """
    if examples is None:
        raise InvalidInputError(
            "a cycle of recorded traffic needs examples that both models answer at the gate, got "
            "none; set collect.examples to a file with id, prompt and target"
        )
    work = workspace()
    champion = establish_champion(
        work.store, work.tracker, register_base(), now(), answering=work.answering
    )
    frozen = freeze_examples(work.store, "held-out", read_examples(examples), now(), max_new_tokens)
    return open_cycle(
        work.store,
        champion=champion.reference,
        options_digest=digest(["recorded", frozen.id, seed]),
        seed=seed,
        example_set_id=frozen.id,
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
            "`ratchet serve` has run; set collect.source to recorded and collect.examples to a "
            "file of examples, or set collect.source to simulated to add them all the same"
        )
