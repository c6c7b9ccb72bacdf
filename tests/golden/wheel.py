"""The files of the wheel that are no Python: what the installed package reads beside its code."""

from __future__ import annotations

import importlib.util
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

from tests.golden.digests import digest_of

ROOT = Path(__file__).parents[2]
CHANGING = ("METADATA", "RECORD", "WHEEL")  # hold the README, paths of modules, hatchling's version
DEPLOYMENTS = "prefect.yaml"  # names modules, so that its text moves with them
BUILT = "built"
PACKAGES = "packages"


def can_build() -> bool:
    """Whether the backend that builds the wheel is installed here."""
    return importlib.util.find_spec("hatchling") is not None


def golden_wheel() -> dict[str, Any]:
    """Return the data files of the packages and, where hatchling is installed, of a built wheel.

    Each is a name without its folder, since modules move, and a digest.
    """
    found: dict[str, Any] = {PACKAGES: data_files_of_packages()}
    return found | ({BUILT: data_files_of_wheel()} if can_build() else {})


def data_files_of_packages() -> list[list[str]]:
    """Return what the settings of the build put into the wheel, read from the folders."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wheel = settings["tool"]["hatch"]["build"]["targets"]["wheel"]
    paths = [
        path
        for package in wheel["packages"]
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    ]
    named = [(path.name, path) for path in paths]
    named += [
        (Path(target).name, ROOT / source)
        for source, target in wheel["force-include"].items()
        if (ROOT / source).is_file()  # the folder of flows holds code alone
    ]
    return sorted(_named(name, digest_of(path.read_bytes())) for name, path in named)


def data_files_of_wheel() -> dict[str, Any]:
    """Build the wheel and return its data files, apart from what describes it."""
    from hatchling.builders.wheel import WheelBuilder

    with tempfile.TemporaryDirectory() as name:
        builder = WheelBuilder(str(ROOT))
        (path,) = builder.build(directory=name, versions=["standard"])
        with zipfile.ZipFile(path) as wheel:
            files = {
                file: digest_of(wheel.read(file))
                for file in wheel.namelist()
                if not file.endswith((".py", "/"))
            }
    about = {Path(name).name: d for name, d in files.items() if ".dist-info/" in name}
    return {
        PACKAGES: sorted(
            _named(Path(n).name, d) for n, d in files.items() if ".dist-info/" not in n
        ),
        "dist-info": {n: None if n in CHANGING else d for n, d in sorted(about.items())},
    }


def _named(name: str, digest: str) -> list[str]:
    return [name, "" if name == DEPLOYMENTS else digest]
