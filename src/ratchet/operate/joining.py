"""Whether a worker on this machine would work over what the deployments are about.

Its flow runs would else fail one by one, or worse: work on an empty store, train into an MLflow of
their own, and end well. Nothing is made before all of it is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.deployments import STORE_ID
from ratchet.errors import SettingsError, TrackingError
from ratchet.operate.opening import check_expected
from ratchet.prefect_api import ask
from ratchet.servers import answering_prefect
from ratchet.settings import Settings
from ratchet.store.checking import read_schema
from ratchet.tracking import Tracker

_TRACKER_SECONDS = 20.0
_PROCESSES = "process"


@dataclass(frozen=True, slots=True)
class Joined:
    """What a worker works over.

    Attributes:
        prefect: Prefect's API.
        store: What the store is known by.
        tracking: Address of MLflow.
    """

    prefect: str
    store: str
    tracking: str


def check_joining(
    settings: Settings, pools: Collection[str], tracker: Callable[[], Tracker]
) -> Joined:
    """See that a worker here may serve pools of a Prefect server.

    Args:
        settings: Of this machine.
        pools: Names of Prefect's work pools.
        tracker: Opens MLflow.

    Raises:
        SettingsError: Prefect does not answer or has no such pool of processes, or the store is
            another one than the deployments state, or there is none.
        TrackingError: MLflow does not answer, or its artifacts lie in a folder of another machine.
    """
    api = answering_prefect(settings)
    if api is None:
        raise SettingsError(
            "a worker needs a Prefect server that answers, got none at "
            f"{settings.prefect_api_url or 'this home'}; set PREFECT_API_URL to the server that "
            "has the deployments, as `ratchet up` says where it runs"
        )
    for pool in pools:
        _check_pool(api, pool)
    store = _check_store(settings, api, pools)
    _check_tracking(settings, tracker)
    return Joined(api, store, settings.tracking_uri)


def _check_pool(api: str, name: str) -> None:
    answer = ask(api, "GET", f"work_pools/{name}")
    kind = None if answer.status_code == 404 else answer.raise_for_status().json()["type"]
    if kind == _PROCESSES:
        return
    known = _ask(api, "work_pools/filter", {})
    ours = sorted(pool["name"] for pool in known if pool["type"] == _PROCESSES)
    raise SettingsError(
        f"a worker serves a pool whose runs are processes, got {name!r} at {api}, "
        f"{'which is not there' if kind is None else f'whose type is {kind}'}; name one of "
        f"{', '.join(ours) or 'those that `ratchet up` makes there'}"
    )


def _check_store(settings: Settings, api: str, pools: Collection[str]) -> str:
    """See that the store is the one that the pools' deployments state; return its identity."""
    about = {"work_pools": {"name": {"any_": list(pools)}}}
    stated = {
        one["job_variables"]["env"][STORE_ID]
        for one in _ask(api, "deployments/filter", about)
        if (one.get("job_variables") or {}).get("env", {}).get(STORE_ID)
    }
    for identity in sorted(stated):
        check_expected(settings.model_copy(update={"store_id": identity}))
    check_expected(settings)
    schema = read_schema(settings.store_url)
    if schema is None:
        raise SettingsError(
            "a worker needs the store of its deployments, got none at RATCHET_STORE_URL; set it to "
            "the address where that store is (on several machines a PostgreSQL database)"
        )
    return schema.identity


def _check_tracking(settings: Settings, tracker: Callable[[], Tracker]) -> None:
    file = settings.tracking_uri.removeprefix("sqlite:///")
    if settings.tracking_uri.startswith("sqlite:///") and not Path(file).exists():
        raise TrackingError(
            f"a worker needs the MLflow of its deployments, got {file}, which is not there; set "
            "MLFLOW_TRACKING_URI to the address of that server"
        )
    opened = tracker()
    if not opened.answers(within_seconds=_TRACKER_SECONDS):
        raise TrackingError(
            f"a worker needs an MLflow that answers, got none within {_TRACKER_SECONDS:.0f} s; "
            "start it, or correct MLFLOW_TRACKING_URI"
        )
    opened.check_place()


def _ask(api: str, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    return list(ask(api, "POST", path, body).raise_for_status().json())
