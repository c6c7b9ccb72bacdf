"""What every flow needs: the workspace, a loaded model, the clock and artifacts."""

from __future__ import annotations

import base64
import logging
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from prefect.artifacts import create_image_artifact, create_markdown_artifact
from prefect.context import FlowRunContext

from ratchet.deploy.answering import Answering
from ratchet.executors import Executor, executor_of
from ratchet.files.logs import harmless_logs
from ratchet.files.text import cell
from ratchet.models import HuggingFaceModel, prepare_base_model
from ratchet.operate import base_model
from ratchet.operate.answering import answering_of
from ratchet.operate.base_model import check_answers_here, check_stated
from ratchet.operate.opening import check_expected, open_store
from ratchet.records import Cycle
from ratchet.settings import Settings, load_settings
from ratchet.store import EventStore
from ratchet.tracking import EXPERIMENT as EXPERIMENT
from ratchet.tracking import FLOW_RUN, ModelVersion, Run, Tracker, stage_key

if TYPE_CHECKING:
    from matplotlib.figure import Figure

harmless_logs()
logging.getLogger("ratchet").setLevel(logging.INFO)
logger = logging.getLogger("ratchet.flows")


@dataclass(frozen=True, slots=True)
class Workspace:
    """The open home folder."""

    settings: Settings
    store: EventStore

    @property
    def tracker(self) -> Tracker:
        """MLflow, which takes seconds to import: opened when it is asked for first."""
        return _tracker()

    @property
    def answering(self) -> Answering:
        """What versions have to answer by before users are sent to them."""
        return answering_of(self.settings, self.store, _tracker, os.environ)


@lru_cache(maxsize=1)
def workspace() -> Workspace:
    """Open the home folder that the environment names, once a process."""
    settings = load_settings(os.environ, Path.cwd())
    check_expected(settings)
    settings.make_home()
    return Workspace(
        settings=settings,
        store=open_store(settings),
    )


@lru_cache(maxsize=1)
def _tracker() -> Tracker:
    settings = workspace().settings
    return Tracker(
        settings.tracking_uri, artifacts=settings.artifacts, model_name=settings.model_name
    )


def executor() -> Executor:
    """Return what runs the shards of long work, as the settings say."""
    return executor_of(workspace().settings.executor)


def now() -> datetime:
    """Return the time, aware and in UTC."""
    return datetime.now(UTC)


def base_folder() -> Path:
    """Return the folder of the base model, converted first where that is needed.

    Raises:
        InvalidInputError: The champion is a server's, and nobody said where its weights are.
    """
    settings = workspace().settings
    check_stated(settings, workspace().store)
    return prepare_base_model(settings.base_model, settings.cache, settings.chat_template)


@lru_cache(maxsize=1)
def load_model(reference: str, *, one_line: bool = True) -> HuggingFaceModel:
    """Load a registered version; the last one stays in memory."""
    check_answers_here(workspace().store, reference)
    tracker = workspace().tracker
    version = tracker.version(reference)
    adapter = tracker.adapter_folder(version)
    check_stated(workspace().settings, workspace().store)
    base = base_model.base_of(workspace().settings, version, adapter)
    logger.info("loading %s", reference)
    return HuggingFaceModel.load(base, adapter, one_line=one_line)


def register_base() -> ModelVersion:
    """Register the base model as the first version, once; see `base_model.register_base`."""
    work = workspace()
    return base_model.register_base(work.settings, work.store, work.tracker, now())


def publish_text(key: str, markdown: str, description: str) -> None:
    """Keep a text as a Prefect artifact of the run."""
    create_markdown_artifact(markdown, key=key, description=cell(description))


def publish_figure(run: Run, key: str, figure: Figure, description: str) -> None:
    """Keep a plot in MLflow and as a Prefect artifact."""
    run.figure(figure, f"plots/{key}.png")
    show_figure(key, figure, description)


def show_figure(key: str, figure: Figure, description: str) -> None:
    """Keep a plot as a Prefect artifact of the run."""
    from ratchet.views.plots import to_png

    picture = base64.b64encode(to_png(figure)).decode()
    create_image_artifact(
        f"data:image/png;base64,{picture}", key=key, description=cell(description)
    )


def cycle_run(cycle: Cycle, stage: str, *key: str) -> AbstractContextManager[Run]:
    """Open the MLflow run of a cycle's stage; `key` tells several of one stage apart."""
    return workspace().tracker.run(
        EXPERIMENT,
        key=stage_key(cycle.id, stage, *key),
        name=f"cycle {cycle.number} {stage}",
        tags=run_tags(cycle.number, stage),
    )


def run_tags(cycle_number: int, stage: str) -> dict[str, str]:
    """Return the tags that tie an MLflow run to its cycle and to the Prefect run."""
    context = FlowRunContext.get()
    flow_run = context.flow_run if context else None
    tags = {"ratchet.stage": stage, "ratchet.cycle": str(cycle_number)}
    return tags | ({FLOW_RUN: str(flow_run.id)} if flow_run else {})


def run_id() -> str:
    """Return the id of the flow run that this is, or of none."""
    context = FlowRunContext.get()
    return str(context.flow_run.id) if context and context.flow_run else "none"
