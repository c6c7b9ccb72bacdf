"""Rollout: one look at what is being rolled out, on a schedule; what it decides is done."""

from __future__ import annotations

from prefect import flow
from pydantic import BaseModel, ConfigDict

from ratchet.deploy.routing import running_rollout
from ratchet.flows._alone import sole_pass
from ratchet.flows._canary import catch_up, look_once, publish
from ratchet.flows._runtime import logger, workspace
from ratchet.store.leases import LOOK


class RolloutOptions(BaseModel):
    """How a rollout is taken on; its rules are those it was started with.

    Attributes:
        pictures: Whether numbers, words and pictures go to MLflow and Prefect.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pictures: bool = True


DEFAULTS = RolloutOptions()


@flow(name="rollout", flow_run_name="look at the running rollout", validate_parameters=True)
def rollout(options: RolloutOptions = DEFAULTS) -> str:
    """Look once at the running rollout; return the decision, empty where nothing is rolled out.

    One that finds another look under way leaves it to that one.
    """
    with sole_pass(LOOK) as is_mine:
        return _look(options) if is_mine else ""


def _look(options: RolloutOptions) -> str:
    catch_up()
    look = look_once()
    if look is None:
        logger.info("nothing is being rolled out")
        return ""
    logger.info("look %d at %s: %s", look.number, look.model_version, look.decision)
    if options.pictures:
        publish(look)
    if running_rollout(workspace().store) is None:
        logger.info("the rollout has ended")
    return look.decision
