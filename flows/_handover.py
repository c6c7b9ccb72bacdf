"""The loop hands training to the deployment `improve`, whose pool may be another machine's.

A loop that Prefect started as a deployment starts a run of `improve` and waits for it. The run is
known by cycle and options: a loop that was killed and is started again finds the run, under way or
finished, and never trains twice. A loop that runs directly (`ratchet demo`) trains in its process.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any, cast

from prefect import Flow, State
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterIdempotencyKey,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType, WorkerStatus
from prefect.client.schemas.responses import DeploymentResponse
from prefect.context import FlowRunContext
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Crashed

from ratchet.errors import InsufficientDataError, RatchetError
from ratchet.flows._runtime import logger, workspace
from ratchet.flows._waiting import raise_if_waiting, result_of
from ratchet.flows.improve import ImproveOptions, improve
from ratchet.records import Candidate, Cycle, derive_id, digest
from ratchet.store.cycles import training_died

DEPLOYMENT = "improve/improve"
TAG = "handed-over"
POLL_SECONDS = 3.0
_ATTEMPTS = 100
_LOST = 3  # trainings in a row whose process or machine is lost; then a person has to look
_UNANSWERED = 100  # polls in a row, five minutes: a server may be started anew meanwhile
_UNDER_WAY = [
    StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED,
    StateType.CANCELLING,
]  # fmt: skip


def improve_for(cycle: Cycle, options: ImproveOptions, patience: timedelta) -> str:
    """Train on a cycle, here or where the deployment `improve` runs; return the candidate's id.

    Args:
        cycle: The loop's.
        options: What is trained on, and how.
        patience: How long a training may wait for a worker while none is there.

    Raises:
        WaitingError: There is too little to train on.
        RatchetError: The training failed, or no worker took it.
    """
    deployment = training_deployment()
    if deployment is None:
        return str(result_of(improve(options, return_state=True)))
    with get_client(sync_client=True) as client:
        for _ in range(_LOST):
            run = _handed_over(client, cycle, options)
            logger.info("training is run %s, on the pool %s", run.name, deployment.work_pool_name)
            state = _ended(client, run, deployment.work_pool_name or "", patience)
            if not state.is_crashed():
                break
            logger.warning("training %s was lost: %s", run.name, state.message)
    raise_if_waiting(state)
    if not state.is_completed():
        raise RatchetError(
            f"training was handed over to {DEPLOYMENT} and must end well, got "
            f"{state.name}: {state.message}; its run {run.name} has the log, and the next run of "
            "the loop trains again"
        )
    return _candidate(cycle).id


def training_deployment() -> DeploymentResponse | None:
    """Return where training is handed to; None where it is done in this process."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.deployment_id is None:
        return None
    with get_client(sync_client=True) as client:
        try:
            return client.read_deployment_by_name(DEPLOYMENT)
        except ObjectNotFound:
            return None


def cancel_handed_over(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Cancel the training of a loop that is cancelled, also one that an earlier run handed over."""
    under_way = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_UNDER_WAY)),
        tags=FlowRunFilterTags(all_=[TAG]),
    )
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=under_way):
            _cancel(client, run, f"{flow.name} {flow_run.name} was cancelled ({state.name})")


def _cancel(client: SyncPrefectClient, run: FlowRun, why: str) -> None:
    client.set_flow_run_state(run.id, Cancelling(message=why))


def _handed_over(client: SyncPrefectClient, cycle: Cycle, options: ImproveOptions) -> FlowRun:
    """Return the run that trains on the cycle with these options, a new one where none does."""
    given = options.model_dump(mode="json")
    name = derive_id("hand-over", cycle.id, digest(given))
    for attempt in range(_ATTEMPTS):
        key = f"{name}:{attempt}"
        known = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=[key]))
        )
        if not known:
            parameters = {"options": given, "handed_over": cycle.id}
            made = run_deployment(
                DEPLOYMENT, parameters=parameters, idempotency_key=key, tags=[TAG], timeout=0
            )
            return cast(FlowRun, made)  # within a flow that is not a coroutine
        _end_if_dead(client, known[0])
        run = client.read_flow_run(known[0].id)
        if run.state and (run.state.is_completed() or not run.state.is_final()):
            logger.info("going on with a training that an earlier run handed over")
            return run
    raise RatchetError(
        f"a training is tried at most {_ATTEMPTS} times, got as many runs of cycle {cycle.number} "
        "that failed; correct what their logs say and start the loop with other options"
    )


def _ended(client: SyncPrefectClient, run: FlowRun, pool: str, patience: timedelta) -> State[Any]:
    """Wait until a run has ended and return its state."""
    unanswered: list[Exception] = []
    told = ""
    while True:
        try:
            run = client.read_flow_run(run.id)
            unanswered.clear()
        except Exception as error:  # the server is gone, or busy
            unanswered.append(error)
            if len(unanswered) > _UNANSWERED:
                raise
            time.sleep(POLL_SECONDS)
            continue
        if run.state and run.state.is_final():
            return run.state
        if run.state_name and run.state_name != told:
            told = run.state_name
            logger.info("training %s: %s", run.name, told)
        _give_up_without_worker(client, run, pool, patience)
        _end_if_dead(client, run)
        time.sleep(POLL_SECONDS)


def _give_up_without_worker(
    client: SyncPrefectClient, run: FlowRun, pool: str, patience: timedelta
) -> None:
    """Cancel a run that nobody is there to take.

    Raises:
        RatchetError: It has waited for longer than `patience`, and no worker of the pool answers.
    """
    waits = run.state_type in (StateType.SCHEDULED, StateType.PENDING)
    if not waits or run.estimated_start_time_delta < patience:
        return
    workers = client.read_workers_for_work_pool(pool)
    if any(worker.status == WorkerStatus.ONLINE for worker in workers):
        return  # it has other things to do first
    _cancel(client, run, "no worker took it")
    raise RatchetError(
        f"training needs a worker of the pool {pool!r}, got none that answers for {patience}; "
        f"start one (`ratchet up`, or elsewhere `ratchet worker --pool {pool}`) and then "
        "the loop, which goes on from here"
    )


def _end_if_dead(client: SyncPrefectClient, run: FlowRun) -> None:
    """Mark a run as crashed whose process is gone."""
    running = run.state_type == StateType.RUNNING
    if running and training_died(workspace().store, str(run.id)):
        client.set_flow_run_state(run.id, Crashed(message="its process was killed"), force=True)


def _candidate(cycle: Cycle) -> Candidate:
    candidate = workspace().store.latest(Candidate)
    if candidate is None or candidate.cycle_id != cycle.id:
        raise InsufficientDataError(
            f"a training that has ended leaves a candidate of cycle {cycle.number}, got none in "
            "this store; the worker that trains needs the same RATCHET_STORE_URL"
        )
    return candidate
