"""MLflow: runs, datasets and the model registry. The only importer of mlflow.

A run is found again by its key, so that a stage that was interrupted goes on in the same run.
The registry's alias `champion` names the version in use, `previous` the one before it and
`challenger` the latest candidate; promotion and rollback move aliases and copy nothing.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ratchet.errors import TrackingError
from ratchet.files.text import first_line, shown_line
from ratchet.processes import python, safe_path
from ratchet.records import digest as digest_of
from ratchet.records.asking import WRITTEN_BY
from ratchet.tracking.erasing import ErasedTexts, erase_texts
from ratchet.tracking.found import EndedRun as EndedRun
from ratchet.tracking.found import FoundRun as FoundRun
from ratchet.tracking.found import ModelVersion as ModelVersion
from ratchet.tracking.places import check_place, folder_of, keep_place
from ratchet.tracking.run import Run as Run

logger = logging.getLogger(__name__)

EXPERIMENT = "ratchet"
"""The experiment that the runs of all flows belong to."""
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
FLOW_RUN = "prefect.flow_run_id"
"""Tag of a run that names the flow run in Prefect."""
_KEY = "ratchet.key"
_ADAPTER_DIGEST = "ratchet.adapter_digest"
_BASE, _TEMPLATE = "ratchet.base", "ratchet.chat_template"
_REFERENCE = "ratchet.reference"
"""Tag of a version that is called otherwise than name and number."""
_DELETED_AT_ONCE = 100
_NAMED = 8
"""So many versions are named to who asked for one that is not there."""


def stage_key(cycle_id: str, stage: str, *key: str) -> str:
    """Return the key of the run of a cycle's stage; `key` tells several of one stage apart."""
    return ":".join((cycle_id, stage, *key))


class Tracker:
    """An MLflow tracking store and one registered model in it."""

    def __init__(self, uri: str, *, artifacts: Path, model_name: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow
        from mlflow import MlflowClient

        for chatty in ("alembic", "mlflow.store.db.utils", "mlflow.system_metrics"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        self.model_name = model_name
        try:
            if uri.startswith("sqlite:///"):
                Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
            mlflow.set_tracking_uri(uri)
            self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        except Exception as error:  # MLflow's own, SQLAlchemy's, a driver's that is missing
            cause = first_line(error)
            message = (
                "MLflow must be a server (http://host:5000) or a database (sqlite:///mlflow.db), "
                f"got {uri!r}: {cause}; set MLFLOW_TRACKING_URI, or leave it out for the home's"
            )
            raise TrackingError(
                re.sub(r"(://[^/@:]*):[^@\s]*@", r"\1:***@", message)  # no password
            ) from error
        self._local = uri.startswith("sqlite:///")
        self._served = uri.startswith("http")
        self._artifacts = artifacts

    def erase_texts(
        self, are_in: Callable[[str], bool], erased_in: Callable[[str], str]
    ) -> ErasedTexts:
        """Replace texts in the tags and artifacts of all runs; see `ratchet.tracking.erasing`."""
        return erase_texts(self._client, are_in, erased_in)

    def drop_folder(self, run_id: str, name: str) -> bool:
        """Delete a folder among a run's artifacts; False where the run is not there."""
        from mlflow.exceptions import MlflowException
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        try:
            uri = self._client.get_run(run_id).info.artifact_uri
        except MlflowException:
            return False
        get_artifact_repository(uri).delete_artifacts(name)
        return True

    def fetch_folder(self, run_id: str, name: str, to: Path) -> Path | None:
        """Fetch a folder among a run's artifacts into a local one; None where it is not there."""
        from mlflow.exceptions import MlflowException

        try:
            fetched = Path(self._client.download_artifacts(run_id, name, str(to)))
        except (MlflowException, OSError) as error:
            logger.debug("run %s has no %s: %s", run_id, name, error)
            return None
        return fetched if fetched.is_dir() else None

    # Runs -------------------------------------------------------------------------------------

    @contextmanager
    def run(
        self, experiment: str, *, key: str, name: str, tags: Mapping[str, str]
    ) -> Iterator[Run]:
        """Open the run with this key, or begin it; it ends FINISHED, or FAILED on an error."""
        experiment_id = self._experiment(experiment)
        key, said = shown_line(key).replace("'", "’"), {n: shown_line(v) for n, v in tags.items()}
        runs = self._client.search_runs(
            [experiment_id], filter_string=f"tags.`{_KEY}` = '{key}'", max_results=1
        )
        if runs:
            run_id = runs[0].info.run_id
            self._client.update_run(run_id, status="RUNNING")
        else:
            begun = self._client.create_run(
                experiment_id,
                run_name=shown_line(name),
                tags={**said, _KEY: key, "mlflow.source.name": "ratchet"},
            )
            run_id = begun.info.run_id
        status = "FAILED"
        try:
            yield Run(self._client, run_id, experiment_id)
            status = "FINISHED"
        finally:
            self._client.set_terminated(run_id, status=status)

    def find_run(self, key: str) -> FoundRun | None:
        """Return the run with this key, whatever stage wrote it; None where there is none.

        Raises:
            TrackingError: MLflow does not answer.
        """
        from mlflow.exceptions import MlflowException

        wanted = shown_line(key).replace("'", "’")
        try:
            known = [
                self._client.get_experiment_by_name(name)
                for name in (EXPERIMENT, f"{EXPERIMENT} (served)")
            ]
            ids = [one.experiment_id for one in known if one is not None]
            runs = ids and self._client.search_runs(
                ids, filter_string=f"tags.`{_KEY}` = '{wanted}'", max_results=1
            )
        except MlflowException as error:
            raise TrackingError(f"MLflow must answer to find a run, got: {error}") from error
        if not runs:
            return None
        info = runs[0].info
        return FoundRun(info.run_id, info.experiment_id, runs[0].data.tags.get(FLOW_RUN))

    def read_text(self, run_id: str, name: str) -> str | None:
        """Return a text among a run's artifacts; None where it is not there."""
        from mlflow.exceptions import MlflowException

        with tempfile.TemporaryDirectory(prefix="ratchet-mlflow-") as folder:
            try:
                path = self._client.download_artifacts(run_id, name, folder)
                return Path(path).read_text("utf-8")
            except (MlflowException, OSError) as error:
                logger.debug("run %s has no %s: %s", run_id, name, error)
                return None

    def write_text(self, run_id: str, text: str, name: str) -> None:
        """Write a text among the artifacts of a run that has ended.

        Raises:
            TrackingError: The run is not there, or MLflow does not answer.
        """
        from mlflow.exceptions import MlflowException

        try:
            self._client.log_text(run_id, text, name)
        except MlflowException as error:
            raise TrackingError(f"run {run_id} must be there to write {name}: {error}") from error

    def old_runs(self, stages: Sequence[str], *, before: datetime) -> tuple[EndedRun, ...]:
        """Return the runs of stages that ended before a time; none that a version came from.

        Args:
            stages: Values of the tag `ratchet.stage`.
            before: The time.
        """
        from mlflow.entities import ViewType

        ids = [item.experiment_id for item in self._client.search_experiments()]
        versions = self._client.search_model_versions(f"name = '{self.model_name}'")
        registered = {version.run_id for version in versions}
        ended = int(before.timestamp() * 1000)
        found: list[EndedRun] = []
        for stage in stages:
            asked = f"tags.`ratchet.stage` = '{stage}' and attributes.end_time < {ended}"
            token = None
            while True:
                runs = self._client.search_runs(
                    ids, asked, ViewType.ACTIVE_ONLY, max_results=1_000, page_token=token
                )
                found += [_ended(run.info) for run in runs if run.info.run_id not in registered]
                token = runs.token
                if not token:
                    break
        return tuple(found)

    def delete_runs(self, run_ids: Sequence[str]) -> None:
        """Delete runs; in a database of one's own with their artifacts, for good.

        On a server of others they are marked as deleted, and go when `mlflow gc` runs there.

        Raises:
            TrackingError: `mlflow gc` fails; the runs are marked as deleted then.
        """
        for run_id in run_ids:
            self._client.delete_run(run_id)
        uri = self._client.tracking_uri
        gc = python("-m", "mlflow", "gc")
        gc += ["--backend-store-uri", uri, "--tracking-uri", uri]
        for start in range(0, len(run_ids) if self._local else 0, _DELETED_AT_ONCE):
            some = ",".join(run_ids[start : start + _DELETED_AT_ONCE])
            done = subprocess.run(
                [*gc, "--run-ids", some],
                env=safe_path(os.environ),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise TrackingError(
                    f"`mlflow gc` must delete {run_ids[start]} and others, got: "
                    f"{done.stderr.strip()[-500:]}; run it again by hand"
                )

    def _experiment(self, name: str) -> str:
        """Return the experiment of this name, made where it is missing.

        Over a server an experiment whose artifacts lie in a folder of the server's machine is left
        alone: MLflow's client would write that folder on the disk of this one. Where they lie in a
        folder, it must be the one that they are kept in (`ratchet.tracking.places`).

        Raises:
            TrackingError: The server sends no artifacts on to where they are kept, or this machine
                does not have the folder.
        """
        place = None if self._served else (self._artifacts / name).as_uri()
        location = ""
        for called in (name, _served_name(name)):
            known = self._client.get_experiment_by_name(called)
            is_new = known is None
            if known is None:
                made = self._client.create_experiment(called, artifact_location=place)
                known = self._client.get_experiment(made)
            location = str(known.artifact_location)
            if not self._served or not _lies_elsewhere(location, self._client.tracking_uri):
                keep_place(self._client, known, is_new=is_new)
                return str(known.experiment_id)
        raise TrackingError(
            f"artifacts must go through the MLflow server, got an experiment that has them at "
            f"{location}, which would be this machine's own disk; start the server with: mlflow "
            "server --serve-artifacts --artifacts-destination FOLDER"
        )

    def check_place(self) -> None:
        """See that this machine has the folder of the flows' artifacts; nothing is made.

        Raises:
            TrackingError: They lie in a folder of another machine.
        """
        for called in (_served_name(EXPERIMENT), EXPERIMENT):
            known = self._client.get_experiment_by_name(called)
            if known is not None:
                check_place(known)
                return

    # Assessments ------------------------------------------------------------------------------

    def assess(
        self,
        trace_id: str,
        name: str,
        value: float | str | bool,
        *,
        by: str,
        human: bool,
        why: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> bool:
        """Write a judge's or a person's word on a trace as an MLflow assessment, once.

        Where the same source said something else of it before, this word replaces that one.

        Args:
            trace_id: The trace that the interaction came from.
            name: The dimension.
            value: The verdict or the score.
            by: The judge's version or the person.
            human: Whether the source is HUMAN; otherwise LLM_JUDGE.
            why: The judge's reply.
            metadata: What else is to be kept with it.

        Returns:
            Whether it is new; False too where MLflow has no such trace.
        """
        import mlflow
        from mlflow.entities import AssessmentSource, AssessmentSourceType
        from mlflow.exceptions import MlflowException

        kind = AssessmentSourceType.HUMAN if human else AssessmentSourceType.LLM_JUDGE
        feedback: dict[str, Any] = {
            "trace_id": trace_id,
            "value": value,
            "source": AssessmentSource(source_type=kind, source_id=by),
            "rationale": why,
            "metadata": {**(metadata or {}), WRITTEN_BY: "ratchet"},
        }
        mlflow.set_tracking_uri(self._client.tracking_uri)  # another tracker may have set its own
        try:
            known = self._client.get_trace(trace_id, display=False).info.assessments
            stands = [
                assessment
                for assessment in known
                if (assessment.name, assessment.source.source_id) == (name, by)
                and assessment.valid is not False
            ]
            if not stands:
                mlflow.log_feedback(name=name, **feedback)
            elif stands[-1].value == value:
                return False
            else:
                mlflow.override_feedback(assessment_id=stands[-1].assessment_id, **feedback)
        except MlflowException as error:
            logger.warning("trace %s has no assessment: %s", trace_id, error)
            return False
        return True

    # Registry ---------------------------------------------------------------------------------

    def answers(self, *, within_seconds: float) -> bool:
        """Tell whether MLflow answers in time; the client itself would try again for minutes."""
        answered: list[bool] = []

        def ask() -> None:
            try:
                self._client.search_registered_models(max_results=1)
                answered.append(True)
            except Exception as error:  # whatever it is, there is no answer
                logger.debug("MLflow does not answer: %s", error)

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(within_seconds)
        return bool(answered)

    def champion(self) -> ModelVersion | None:
        """Return the version that the alias `champion` names, or None."""
        return self._by_alias(CHAMPION)

    def previous(self) -> ModelVersion | None:
        """Return the version that the alias `previous` names, or None."""
        return self._by_alias(PREVIOUS)

    def version(self, reference: str) -> ModelVersion:
        """Return the version named `model/number`.

        Raises:
            TrackingError: There is no such version.
        """
        from mlflow.exceptions import MlflowException

        number = reference.removeprefix(f"{self.model_name}/")
        if not number.isdigit():
            for known in self._versions():
                if known.tags.get(_REFERENCE) == reference:
                    return self._describe(known)
        try:
            return self._describe(self._client.get_model_version(self.model_name, number))
        except MlflowException as error:
            known = self._references()
            raise TrackingError(
                f"a model version must be one of {self.model_name!r} in the registry, "
                f"got {reference!r}; there are: {', '.join(known) or 'none'}"
            ) from error

    def register_base(self, name: str, digest: str, chat_template: str = "") -> ModelVersion:
        """Register the base model by its name, without copying its weights, once."""
        source, tags = f"ratchet-base:/{name}", _of_base(name, chat_template)
        return self._register(digest, source=source, run_id=None, kind="base", tags=tags)

    def register_served(self, name: str) -> ModelVersion:
        """Register a model that a server has under a name, once; no weights are known.

        The version is called what the server calls it: what users were answered by before belongs
        to it.
        """
        return self._register(
            digest_of(["served", name]),
            source=f"ratchet-served:/{name}",
            run_id=None,
            kind="served",
            reference=name,
        )

    def register_adapter(
        self,
        run_id: str,
        source: str,
        digest: str,
        *,
        adapter_digest: str | None = None,
        base: str = "",
        chat_template: str = "",
    ) -> ModelVersion:
        """Register an adapter that lies in a run's artifacts and alias it `challenger`.

        An adapter whose digest is registered already keeps its version.

        Args:
            run_id: The run.
            source: Address of the adapter among its artifacts.
            digest: Of base model and adapter together.
            adapter_digest: Of the adapter alone, by which whoever fetches it knows it again.
            base: What its base model is called.
            chat_template: The template that the base model was given.
        """
        tags = {_ADAPTER_DIGEST: adapter_digest} if adapter_digest else {}
        tags |= _of_base(base, chat_template)
        version = self._register(digest, source=source, run_id=run_id, kind="adapter", tags=tags)
        self._client.set_registered_model_alias(self.model_name, CHALLENGER, version.version)
        return version

    def move_champion(self, champion: str, previous: str | None) -> None:
        """Point the aliases `champion` and `previous`; doing it twice is harmless.

        Raises:
            TrackingError: There is no such version; then neither alias moves.
        """
        names = {CHAMPION: champion, **({} if previous is None else {PREVIOUS: previous})}
        numbers = {alias: self.version(reference).version for alias, reference in names.items()}
        for alias, number in numbers.items():
            self._client.set_registered_model_alias(self.model_name, alias, number)
        if previous is None:
            self._drop_alias(PREVIOUS)

    def tag_version(self, reference: str, tags: Mapping[str, str]) -> None:
        """Set tags on a version, such as the gate's verdict."""
        number = self.version(reference).version
        for key, value in tags.items():
            self._client.set_model_version_tag(self.model_name, number, key, shown_line(value))

    def adapter_folder(self, version: ModelVersion) -> Path | None:
        """Return a local folder with the version's adapter, fetched where it lies elsewhere.

        Raises:
            TrackingError: MLflow has no such adapter any more.
        """
        if version.adapter is None:
            return None
        if version.adapter.exists():
            return version.adapter
        return self.fetch_adapter(version, Path(tempfile.mkdtemp(prefix="ratchet-adapter-")))

    def fetch_adapter(self, version: ModelVersion, folder: Path) -> Path:
        """Copy a version's adapter out of MLflow's artifacts into a folder, and return where to.

        Raises:
            TrackingError: MLflow has no such adapter, or does not give it.
        """
        from mlflow.exceptions import MlflowException
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        try:
            uri = self._client.get_model_version_download_uri(self.model_name, version.version)
            repository = get_artifact_repository(uri, tracking_uri=self._client.tracking_uri)
            found = Path(repository.download_artifacts("", dst_path=str(folder)))
            if not any(found.iterdir()):  # MLflow finds nothing, and that is no error to it
                raise FileNotFoundError(f"nothing at {uri}")
            return found
        except (MlflowException, OSError) as error:  # requests' errors are OSErrors
            raise TrackingError(
                f"the adapter of {version.reference} must be in MLflow's artifacts, got: {error}; "
                "restore it, or roll back to another version"
            ) from error

    def _drop_alias(self, alias: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.delete_registered_model_alias(self.model_name, alias)
        except MlflowException as error:
            logger.debug("alias %s was not set: %s", alias, error)

    def _by_alias(self, alias: str) -> ModelVersion | None:
        from mlflow.exceptions import MlflowException

        try:
            version = self._client.get_model_version_by_alias(self.model_name, alias)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise TrackingError(f"MLflow does not answer: {error}; is the server up?") from error
        return self._describe(version)

    def _register(
        self,
        digest: str,
        *,
        source: str,
        run_id: str | None,
        kind: str,
        reference: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ModelVersion:
        self._ensure_model()
        key, value = (_REFERENCE, reference) if reference else ("ratchet.digest", digest)
        for version in self._versions():
            if version.tags.get(key) == value:
                return self._describe(version)
        stamped = {"ratchet.digest": digest, "ratchet.kind": kind, **(tags or {})}
        stamped |= {_REFERENCE: reference} if reference else {}
        return self._describe(
            self._client.create_model_version(self.model_name, source, run_id=run_id, tags=stamped)
        )

    def _references(self) -> list[str]:
        """Return what the latest versions are called, the newest first."""
        latest = sorted(self._versions(), key=lambda version: -int(version.version))
        return [self._describe(version).reference for version in latest[:_NAMED]]

    def _versions(self) -> list[Any]:
        return list(self._client.search_model_versions(f"name = '{self.model_name}'"))

    def _ensure_model(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.get_registered_model(self.model_name)
        except MlflowException:
            self._client.create_registered_model(self.model_name)

    def _describe(self, version: Any) -> ModelVersion:
        adapter = None
        if version.tags.get("ratchet.kind") == "adapter":
            source = str(version.source)
            adapter = Path(unquote(urlsplit(source).path) if source[:5] == "file:" else source)
        return ModelVersion(
            reference=version.tags.get(_REFERENCE) or f"{self.model_name}/{version.version}",
            version=str(version.version),
            adapter=adapter,
            digest=version.tags.get("ratchet.digest", ""),
            run_id=version.run_id or None,
            adapter_digest=version.tags.get(_ADAPTER_DIGEST),
            base=version.tags.get(_BASE),
            chat_template=version.tags.get(_TEMPLATE, ""),
        )


def _of_base(name: str, chat_template: str) -> dict[str, str]:
    """Return the tags by which the base model of a version is found again."""
    return {_BASE: name, _TEMPLATE: chat_template} if name else {}


def _served_name(experiment: str) -> str:
    return f"{experiment} (served)"


def _lies_elsewhere(location: str, server: str) -> bool:
    """Tell whether artifacts lie in a folder of another machine, that of a server."""
    folder = folder_of(location)
    if folder is None:
        return False
    near = urlsplit(server).hostname in ("localhost", "127.0.0.1", "::1")
    return not (near and (folder.exists() or folder.parent.exists()))


def _ended(info: Any) -> EndedRun:
    folder = folder_of(str(info.artifact_uri))
    files = folder.rglob("*") if folder is not None and folder.is_dir() else ()
    size = sum(path.stat().st_size for path in files if path.is_file())
    return EndedRun(info.run_id, datetime.fromtimestamp(info.end_time / 1000, UTC), size)
