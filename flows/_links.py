"""Links between what Prefect and MLflow hold of one thing, where their pages are served."""

from __future__ import annotations

from prefect.context import FlowRunContext
from prefect.utilities.urls import url_for

from ratchet.flows._runtime import workspace
from ratchet.servers import mlflow_page
from ratchet.tracking import Run


def link_run(run: Run) -> str:
    """Tag an MLflow run with the page of this flow run, and return Markdown that points back."""
    context = FlowRunContext.get()
    flow_run = context.flow_run if context else None
    page = url_for("flow-run", obj_id=flow_run.id) if flow_run else None
    if page:
        run.tags({"prefect.flow_run_url": page})
    address = mlflow_page(workspace().settings, run.experiment_id, run.run_id)
    if address:
        return f"[MLflow run {run.run_id}]({address})"
    return f"MLflow run `{run.run_id}`; `ratchet up` serves its page"
