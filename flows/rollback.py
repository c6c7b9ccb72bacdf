"""Rollback: away from what is new in front of users, by hand or by an automation."""

from __future__ import annotations

from prefect import flow
from pydantic import BaseModel, ConfigDict

from ratchet.deploy.rollout.rollback import roll_back
from ratchet.flows._canary import announce
from ratchet.flows._runtime import logger, now, workspace
from ratchet.store.leases import LOOK, hold


class RollbackOptions(BaseModel):
    """What is rolled back.

    Attributes:
        model_version: Only where this version is in front of users as challenger or champion; an
            event that comes late, or twice, then does nothing. Empty for what is newest: a
            rollout, else a test of variants, else the champion.
        by: Who rolls back; empty for an automation.
        note: Why.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_version: str = ""
    by: str = ""
    note: str = ""

    @property
    def does(self) -> str:
        """What a run takes away, for its name."""
        return self.model_version or "what is newest"


DEFAULTS = RollbackOptions()


@flow(name="rollback", flow_run_name="roll back {options.does}", validate_parameters=True)
def rollback(options: RollbackOptions = DEFAULTS) -> str:
    """Roll back and return the champion's name. Not retried: a rollback is one move."""
    work = workspace()
    done = roll_back(
        work.store,
        work.tracker,
        now=now(),
        by=options.by or "an automation",
        person=bool(options.by),
        version=options.model_version,
        note=options.note,
        answering=work.answering,
    )
    if done.did == "nothing":
        logger.info("%s is in front of nobody; nothing to roll back", options.model_version)
    else:
        logger.warning("%s: %s; champion is now %s", done.did, done.version, done.champion)
    with hold(work.store, LOOK, wait=None):  # a look announces as well
        announce()
    return done.champion or ""
