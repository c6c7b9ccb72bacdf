"""Take texts out of what MLflow holds, over its API: artifacts, tags, notes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

_TEXT = {".md", ".json", ".html", ".csv", ".txt", ".jsonl", ".svg", ".yaml", ".yml", ".tsv", ".log"}
_RUNS = 1_000


@dataclass(slots=True)
class ErasedTexts:
    """What was done.

    Attributes:
        changed: Artifacts and tags in which texts were replaced.
        left: What MLflow does not let change, by name.
    """

    changed: int = 0
    left: list[str] = field(default_factory=list)


def erase_texts(
    client: Any, are_in: Callable[[str], bool], erased_in: Callable[[str], str]
) -> ErasedTexts:
    """Replace texts in all runs of all experiments.

    Args:
        client: MLflow's.
        are_in: Tells whether a text holds what is to go.
        erased_in: Returns it without.
    """
    erased = ErasedTexts()
    for run in _runs(client):
        run_id = run.info.run_id
        for name, value in run.data.tags.items():
            if are_in(value):
                client.set_tag(run_id, name, erased_in(value))
                erased.changed += 1
        for name, value in run.data.params.items():
            if are_in(value):
                erased.left.append(f"parameter {name} of run {run_id}: delete the run")
        for path in _artifacts(client, run_id, None):
            _erase_artifact(client, run_id, path, are_in, erased_in, erased)
    return erased


def _runs(client: Any) -> Iterator[Any]:
    from mlflow.entities import ViewType

    ids = [item.experiment_id for item in client.search_experiments(view_type=ViewType.ALL)]
    token = None
    while ids:
        page = client.search_runs(ids, "", ViewType.ALL, max_results=_RUNS, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _artifacts(client: Any, run_id: str, folder: str | None) -> Iterator[str]:
    for item in client.list_artifacts(run_id, folder):
        if item.is_dir:
            yield from _artifacts(client, run_id, item.path)
        elif PurePosixPath(item.path).suffix in _TEXT:
            yield item.path


def _erase_artifact(
    client: Any,
    run_id: str,
    path: str,
    are_in: Callable[[str], bool],
    erased_in: Callable[[str], str],
    erased: ErasedTexts,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        fetched = Path(client.download_artifacts(run_id, path, folder))
        said = fetched.read_bytes().decode("utf-8", "surrogateescape")
        if not are_in(said):
            return
        left = erased_in(said).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        client.log_text(run_id, left, path)
        erased.changed += 1
