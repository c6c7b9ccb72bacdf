"""What one process at a time does over a store: a pass leaves it to another one that is at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext
from prefect.states import Crashed

from ratchet.errors import BusyError
from ratchet.flows._runtime import logger, workspace
from ratchet.store.leases import hold


@contextmanager
def sole_pass(work: str, *, wait: float | None = 0.0) -> Iterator[bool]:
    """Be the only one over the store that does a work; False where another process is at it.

    Args:
        work: Of `ratchet.store.leases`.
        wait: Seconds to wait for the other one; None for as long as it takes.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(hold(workspace().store, work, wait=wait))
        except BusyError as error:
            logger.info("nothing is done in this run: %s", error)
            yield False
            return
        yield True


def end_orphans(flow_name: str) -> None:
    """Mark runs of a flow as crashed whose process was killed, and the stages they were in.

    A stage that was handed over to a deployment has a process of its own, which goes on. Call it
    as the only loop over the store, which says that no other run of the flow is alive.
    """
    context = FlowRunContext.get()
    current = context.flow_run.id if context and context.flow_run else None
    running = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING]))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[flow_name])),
            flow_run_filter=FlowRunFilter(state=running),
        )
        orphans = [run.id for run in runs if run.id != current]
        if not orphans:
            return
        stages = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                state=running,
                parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=orphans),
                deployment_id=FlowRunFilterDeploymentId(is_null_=True),
            )
        )
        for key in [*[run.id for run in stages], *orphans]:
            client.set_flow_run_state(key, Crashed(message="its process was killed"), force=True)
    logger.info(
        "%d earlier runs of %s were interrupted; going on from there", len(orphans), flow_name
    )
