"""Rollback: make the previous version the champion again, by hand or by an automation."""

from __future__ import annotations

from prefect import flow
from pydantic import BaseModel, ConfigDict

from flows._runtime import logger, now, workspace
from ratchet.deploy.promotion import rollback as roll_back


class RollbackOptions(BaseModel):
    """What is rolled back.

    Attributes:
        model_version: Only where this version is the champion; an event that comes late, or twice,
            then does nothing. Empty for whichever it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_version: str = ""


DEFAULTS = RollbackOptions()


@flow(name="rollback", validate_parameters=True)
def rollback(options: RollbackOptions = DEFAULTS) -> str:
    """Roll back and return the champion's name. Not retried: a rollback is one move."""
    work = workspace()
    champion = work.tracker.champion()
    if options.model_version and (champion is None or champion.reference != options.model_version):
        logger.info("%s is not the champion; nothing to roll back", options.model_version)
        return champion.reference if champion else ""
    release = roll_back(work.store, work.tracker, now())
    logger.warning("champion is now %s", release.champion)
    return release.champion
