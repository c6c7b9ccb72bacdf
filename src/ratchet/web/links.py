"""Addresses of what MLflow and Prefect show of the same thing, where their pages are served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from ratchet.servers import mlflow_page, running_pages, served_addresses
from ratchet.settings import Settings
from ratchet.tracking import FoundRun
from ratchet.web.options import read_options


@dataclass(frozen=True, slots=True)
class RunLinks:
    """Where the runs of one thing are shown.

    Attributes:
        run_id: Of the run in MLflow.
        mlflow: Its page; None where no page is served.
        prefect: The page of the flow run that wrote it; None where that is not known or served.
    """

    run_id: str
    mlflow: str | None
    prefect: str | None


def run_links(settings: Settings, run: FoundRun) -> RunLinks:
    """Return where a run is shown."""
    runs = prefect_runs(settings)
    prefect = f"{runs}/flow-run/{run.flow_run_id}" if runs and run.flow_run_id else None
    return RunLinks(run.run_id, mlflow_page(settings, run.experiment_id, run.run_id), prefect)


def mlflow_run(settings: Settings, run_id: str) -> str | None:
    """Return the page of an MLflow run; None where no page is served."""
    address = _mlflow(settings)
    return f"{address}/#/runs/{quote(run_id, safe='')}" if address and run_id else None


def mlflow_version(settings: Settings, version: str) -> str | None:
    """Return the page of a model version in the registry, e.g. of `support-router/3`."""
    address, (name, _, number) = _mlflow(settings), version.rpartition("/")
    if not address or not name or not number.isdigit():
        return None
    return f"{address}/#/models/{quote(name, safe='')}/versions/{number}"


def prefect_runs(settings: Settings) -> str | None:
    """Return the page of flow runs in Prefect; None where none is served."""
    address = settings.prefect_api_url or str(served_addresses(settings).get("prefect_api", ""))
    return f"{address.rstrip('/').removesuffix('/api')}/runs" if address else None


def pages_address(settings: Settings, environ: Mapping[str, str]) -> str | None:
    """Return where people reach the pages: the `address` of RATCHET_PAGES, else what is served."""
    stated = read_options(settings.pages, environ).address
    return stated or str(running_pages(settings).get("address", "")).rstrip("/") or None


def _mlflow(settings: Settings) -> str | None:
    uri = settings.tracking_uri
    address = uri if uri.startswith("http") else str(served_addresses(settings).get("mlflow", ""))
    return address.rstrip("/") or None
