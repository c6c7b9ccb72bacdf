"""`ratchet register` in front of a real Prefect server, with the training jobs of the chart."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from ratchet.cli import app
from ratchet.deployments import STORE_ID, TRAINING_POOL
from ratchet.errors import InvalidInputError
from tests.containers.test_chart import BIG, rendered, training_job
from tests.flows.conftest import served_once
from tests.flows.prefect_home import ROOT, new_home

__all__ = ["served_once"]  # a fixture


MAIN = "from ratchet.cli import main; main()"


def register(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", MAIN, "register", *arguments],
        cwd=ROOT, env=environ, capture_output=True, text=True, timeout=240,
    )  # fmt: skip


@pytest.mark.slow
def test_deployments_train_by_the_charts_jobs_and_an_edited_pool_stays(
    tmp_path: Path,
    served_once: Path,
) -> None:
    server = new_home(tmp_path / "server", served_once)
    template = training_job(rendered(BIG))
    file = tmp_path / "job.json"
    file.write_text(json.dumps(template))
    with server.serving():
        api = server.servers.prefect_api
        (tmp_path / "nothing").mkdir()
        ours = new_home(tmp_path / "job", tmp_path / "nothing", PREFECT_API_URL=api)
        done = register(ours.environ, "--training-jobs", str(file))
        assert done.returncode == 0, done.stderr
        pool = httpx.get(f"{api}/work_pools/{TRAINING_POOL}").json()
        assert (pool["type"], pool["base_job_template"]) == ("kubernetes", template)
        improve = httpx.get(f"{api}/deployments/name/improve/improve").json()
        assert improve["work_pool_name"] == TRAINING_POOL
        assert improve["job_variables"]["env"][STORE_ID] == ours.store.identity
        assert httpx.get(f"{api}/work_pools/ratchet").json()["type"] == "process"

        template["variables"]["properties"]["image"]["default"] = "edited:1"
        change = {"base_job_template": template}
        httpx.patch(f"{api}/work_pools/{TRAINING_POOL}", json=change).raise_for_status()
        again = register(ours.environ, "--training-jobs", str(file))
        assert again.returncode == 0, again.stderr
        pool = httpx.get(f"{api}/work_pools/{TRAINING_POOL}").json()
        assert pool["base_job_template"] == template


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "must be a JSON file"),
        (b"{", "must be a JSON file"),
        (b"\xff", "must be a JSON file"),
        (b"[]", "must hold variables and job_configuration"),
        (b'{"variables": {}}', "must hold variables and job_configuration"),
    ],
)
def test_a_file_that_is_no_template_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, says: str
) -> None:
    file = tmp_path / "job.json"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    with pytest.raises(InvalidInputError, match=says):
        CliRunner().invoke(app, ["register", "--training-jobs", str(file)], catch_exceptions=False)
    assert not (tmp_path / "home").exists()
