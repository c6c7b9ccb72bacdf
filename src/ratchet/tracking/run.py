"""A run of MLflow that is open for writing: what a stage logs there."""

from __future__ import annotations

import json
import posixpath
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.files.text import shown_line
from ratchet.tracking.models import link_evaluation, log_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LOGGED = "mlflow.loggedArtifacts"
_NOT_IN_A_NAME = re.compile(r"[^\w\-. :/]")
_NAME_CHARACTERS = 250


def named(name: str) -> str:
    r"""Return a name as MLflow takes it for a tag, a parameter or a metric.

    >>> named("exact_match"), named("<b>\x1b[2J")
    ('exact_match', '_b__x1b_2J')
    """
    found = _NOT_IN_A_NAME.sub("_", shown_line(name))[:_NAME_CHARACTERS] or "_"
    is_a_path = posixpath.normpath(found) == found and not found.startswith(("/", "."))
    return found if is_a_path else found.replace("/", "_").replace(".", "_")


class Run:
    """An MLflow run that is open for writing."""

    def __init__(self, client: Any, run_id: str, experiment_id: str) -> None:
        self._client = client
        self.run_id, self.experiment_id = run_id, experiment_id

    def params(self, values: Mapping[str, object]) -> None:
        """Log parameters; a parameter that is there already stands (MLflow refuses changes)."""
        from mlflow.entities import Param

        known = self._client.get_run(self.run_id).data.params
        said = {named(key): shown_line(str(value))[:6000] for key, value in values.items()}
        fresh = [Param(key, value) for key, value in said.items() if key not in known]
        if fresh:
            self._client.log_batch(self.run_id, params=fresh)

    def metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        """Log metrics at one step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        batch = [Metric(named(key), float(value), now, step) for key, value in values.items()]
        self._client.log_batch(self.run_id, metrics=batch)

    def series(self, name: str, values: Sequence[float]) -> None:
        """Log a metric once a step, from step 1 on."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        batch = [Metric(name, float(value), now, step) for step, value in enumerate(values, 1)]
        for start in range(0, len(batch), 1000):
            self._client.log_batch(self.run_id, metrics=batch[start : start + 1000])

    def steps(self, entries: Sequence[Mapping[str, float]]) -> None:
        """Log the numbers of steps; each entry has its `step`. What is logged already stays."""
        from mlflow.entities import Metric

        names = sorted({name for entry in entries for name in entry} - {"step"})
        known = {
            (name, metric.step)
            for name in names
            for metric in self._client.get_metric_history(self.run_id, name)
        }
        now = int(time.time() * 1000)
        batch = [
            Metric(name, float(value), now, int(entry["step"]))
            for entry in entries
            for name, value in entry.items()
            if name != "step" and (name, int(entry["step"])) not in known
        ]
        for start in range(0, len(batch), 1000):
            self._client.log_batch(self.run_id, metrics=batch[start : start + 1000])

    @contextmanager
    def live(self, *, every: float = 5.0) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
        """Log the numbers of steps while they come, and what the system does meanwhile.

        Args:
            every: Seconds between writes, so that short steps do not wait for MLflow.

        Yields:
            A function of step and numbers.
        """
        waiting: list[Mapping[str, float]] = []
        written = time.monotonic()

        def report(step: int, values: Mapping[str, float]) -> None:
            nonlocal written
            waiting.append({**values, "step": step})
            if time.monotonic() - written >= every:
                self.steps(waiting)
                waiting.clear()
                written = time.monotonic()

        with self.system_metrics():
            try:
                yield report
            finally:
                self.steps(waiting)

    @contextmanager
    def system_metrics(self, *, every: float = 10.0) -> Iterator[None]:
        """Log processor, memory, disk and network, and GPUs where nvidia-ml-py sees any.

        Args:
            every: Seconds between samples.
        """
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor = SystemMetricsMonitor(
            self.run_id,
            sampling_interval=every,
            resume_logging=True,
            tracking_uri=self._client.tracking_uri,
        )
        monitor.start()
        try:
            yield
        finally:
            monitor.finish()

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""
        from mlflow.entities import RunTag

        said = [RunTag(named(key), shown_line(value)[:8000]) for key, value in values.items()]
        self._client.log_batch(self.run_id, tags=said)

    def text(self, text: str, name: str) -> None:
        """Store a text as an artifact."""
        self._client.log_text(self.run_id, text, name)

    def table(self, columns: Mapping[str, Sequence[object]], name: str) -> None:
        """Store columns as a JSON table that the MLflow UI shows as one."""
        data = {key: list(values) for key, values in columns.items()}
        rows = [list(row) for row in zip(*data.values(), strict=True)]
        self._client.log_dict(self.run_id, {"columns": list(data), "data": rows}, name)
        tags = self._client.get_run(self.run_id).data.tags
        known = json.loads(tags.get(_LOGGED, "[]"))
        entry = {"path": name, "type": "table"}
        if entry not in known:
            self._client.set_tag(self.run_id, _LOGGED, json.dumps([*known, entry]))

    def figure(self, figure: Figure, name: str) -> None:
        """Store a plot as an artifact."""
        self._client.log_figure(self.run_id, figure, name)

    def folder(self, folder: Path, name: str) -> str:
        """Store a folder as an artifact and return its address."""
        self._client.log_artifacts(self.run_id, str(folder), name)
        uri: str = self._client.get_run(self.run_id).info.artifact_uri
        return f"{uri}/{name}"

    def model(self, adapter: Path | None, facts: Mapping[str, str]) -> tuple[str, str]:
        """Store a version so that MLflow can load it; see `ratchet.tracking.models`."""
        return log_model(self._client, self.experiment_id, self.run_id, adapter, facts)

    def evaluated(self, model_id: str | None, numbers: Mapping[str, float], data: str) -> None:
        """Say of a model what this run measured of it, and on which data; None is no model."""
        if model_id is not None:
            link_evaluation(self._client, self.run_id, model_id, numbers, data)

    def dataset(self, rows: Any, *, name: str, digest: str, source: str, context: str) -> None:
        """Log a table (pandas) as the dataset that the run used.

        Args:
            rows: The table.
            name: What people call it.
            digest: Content digest; MLflow keeps its first 36 characters.
            source: Where the rows lie.
            context: What they were used for, e.g. `training`.
        """
        import mlflow.data
        from mlflow.entities import DatasetInput, InputTag

        with warnings.catch_warnings(action="ignore"):
            dataset = mlflow.data.from_pandas(rows, source=source, name=name, digest=digest[:36])
        tag = InputTag("mlflow.data.context", context)
        entity = dataset._to_mlflow_entity()
        self._client.log_inputs(self.run_id, datasets=[DatasetInput(entity, [tag])])
