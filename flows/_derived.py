"""What `collect` and `analyze` call to derive feedback from recorded requests."""

from __future__ import annotations

from ratchet.collect.derived import DerivedReport
from ratchet.collect.taking_in import take_in
from ratchet.flows._runtime import logger, now, workspace
from ratchet.flows._safety import review_policy
from ratchet.review.corrections import CORRECTION

MOST_A_PASS = 20_000
"""Interactions that one pass takes in; after a long pause the next ones go on."""


def derive_new(most: int | None = MOST_A_PASS) -> DerivedReport:
    """Derive what the requests since the last pass say about the answers before them.

    Corrections in words that were accepted go to people, who confirm them.
    """
    work = workspace()
    people, unanimous = review_policy().people_for(CORRECTION)
    taken = take_in(
        work.store,
        now=now(),
        off=work.settings.not_derived,
        most=most,
        people=people,
        unanimous=unanimous,
    )
    for line in taken.lines():
        logger.info("%s", line)
    return taken.derived
