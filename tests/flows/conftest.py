"""What every test of whole flows begins with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import made_once
from tests.flows.prefect_home import new_home


@pytest.fixture(scope="session")
def served_once(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Path:
    """A home as Prefect's first start leaves it, with MLflow's tables: copied for each test."""

    def make(folder: Path) -> None:
        (folder / "empty" / "mlflow").mkdir(parents=True)
        shutil.copyfile(mlflow_database, folder / "empty" / "mlflow" / "mlflow.db")
        with new_home(folder, folder / "empty").serving():
            pass
        shutil.rmtree(folder / "home" / "logs")

    return made_once(tmp_path_factory, "served-once", make) / "home"
