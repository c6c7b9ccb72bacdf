"""The Compose file, read strictly: what it names is there, and every command is one that parses.

No package that is installed carries the schema of Compose, and no Docker is here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import mlflow.cli
import prefect.cli
import pytest
import typer.main
import yaml

from ratchet.cli import app
from ratchet.servers import WORK_POOLS
from ratchet.settings import VARIABLES
from ratchet.web import serve
from tests.flows.prefect_home import ROOT

FOLDER = ROOT / "containers"
TEXT = (FOLDER / "compose.yaml").read_text("utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
# of the Compose specification; what it does not know it refuses
KEYS = {
    "image", "build", "environment", "command", "entrypoint", "restart", "read_only", "tmpfs",
    "cap_drop", "security_opt", "volumes", "configs", "ports", "healthcheck", "depends_on",
    "stop_grace_period",
}  # fmt: skip
HEALTH = {"test", "interval", "timeout", "retries", "start_period", "start_interval"}
OURS = {name: one for name, one in SERVICES.items() if one["image"] == "ratchet"}
OTHER_VARIABLES = (
    "RATCHET_GATEWAY_SECRET",
    "RATCHET_BACKEND_KEY",
    "AWS_",
    "PREFECT_",
    "MLFLOW_",
    "POSTGRES_",
)


def test_only_what_compose_knows_is_said() -> None:
    known = {"name", "services", "configs", "volumes"}
    assert {key for key in COMPOSE if not key.startswith("x-")} == known
    for name, service in SERVICES.items():
        assert service.keys() <= KEYS, name
        assert service.get("healthcheck", {}).keys() <= HEALTH, name
        assert service["restart"] in ("unless-stopped", "on-failure"), name


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_what_is_there_and_can_be_waited_for(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        if how["condition"] == "service_healthy":
            assert SERVICES[other]["healthcheck"]["test"], other
        else:
            assert how["condition"] == "service_completed_successfully"
            assert SERVICES[other]["restart"] == "on-failure", (
                other
            )  # it ends, and is not begun anew
    seen, next_ones = set[str](), {name}
    while next_ones:
        seen |= next_ones
        waits = {one for it in next_ones for one in SERVICES[it].get("depends_on", {})}
        assert name not in waits, "it waits for itself"
        next_ones = waits - seen


def test_volumes_configs_and_files_that_are_named_are_there_and_all_are_used() -> None:
    volumes, configs = set(), set()
    for service in SERVICES.values():
        for place in service.get("volumes", []):
            source = place.split(":")[0]
            if source.startswith("."):
                assert (FOLDER / source).is_file(), source
            else:
                volumes.add(source)
        configs |= {one["source"] for one in service.get("configs", [])}
    assert volumes == set(COMPOSE["volumes"])
    assert configs == set(COMPOSE["configs"])


def test_the_image_has_the_folders_of_its_volumes_for_their_owner() -> None:
    """A volume is its owner's where the image has the folder; else it is root's."""
    made = re.search(r"install -d -o ratchet (.*)$", (FOLDER / "Dockerfile").read_text(), re.M)
    assert made is not None
    mounted = {place.split(":")[1] for one in OURS.values() for place in one.get("volumes", [])}
    assert mounted <= set(made[1].split())


def test_every_variable_is_a_setting_or_stands_in_the_example() -> None:
    given = {line.split("=")[0] for line in (FOLDER / "example.env").read_text().splitlines()}
    names = {name.lstrip("# ") for name in given}
    for name, how in re.findall(r"\$\{(\w+)(:[?-])?", TEXT):
        assert name in names, name
        assert how or f"${{{name}:?" in TEXT, f"{name} may be missing without a word"
    for service in OURS.values():
        for name in service["environment"]:
            assert name in VARIABLES.values() or name.startswith(OTHER_VARIABLES), name


def test_addresses_name_services_and_databases_that_are_made() -> None:
    said = re.findall(r"(?:https?://|@)([a-z0-9]+)[:/](\d+)?", TEXT.partition("services:")[2])
    shared = COMPOSE["x-ratchet"]["environment"]
    said += re.findall(r"(?:https?://|@)([a-z0-9]+)[:/](\d+)?", "\n".join(shared.values()))
    assert {host for host, _ in said} == {"localhost", "postgres", "prefect", "mlflow", "s3"}
    databases = set(re.findall(r"@postgres/(\w+)", TEXT))
    made = re.findall(r"CREATE DATABASE (\w+)", (FOLDER / "compose/databases.sql").read_text())
    assert databases == {*made, SERVICES["postgres"]["environment"]["POSTGRES_DB"]}


def test_what_runs_our_image_has_no_rights() -> None:
    for name, service in OURS.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in ("postgres", "s3")])
def test_every_command_parses(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = SERVICES[name]
    program, given = service.get("entrypoint", ["ratchet"]), service["command"]
    if program == ["python", "-P", "-c"]:
        compile(given[0], name, "exec")
    elif program == ["python", "-P", "-m", "ratchet.web"]:
        options = tmp_path / "pages.yaml"
        options.write_text(COMPOSE["configs"]["pages"]["content"])
        monkeypatch.setenv("RATCHET_PAGES", str(options))
        asked: list[Any] = []
        monkeypatch.setattr(serve, "serve", lambda *told: asked.append(told))
        assert serve.main(given) == 0
        assert f"{asked[0][2]}:{asked[0][2]}" in service["ports"][0]
        assert asked[0][1].host == "0.0.0.0"
    elif program == ["mlflow", "server"]:
        parsed = _parsed(mlflow.cli.cli, ["server", *given])
        assert (parsed["serve_artifacts"], parsed["port"]) == (True, 5000)
    elif name == "prefect":
        version = re.match(r"prefecthq/prefect:([0-9.]+)-", service["image"])
        assert version is not None
        assert version[1] == prefect.__version__
    else:
        assert program == ["ratchet"]
        parsed = _parsed(typer.main.get_command(app), given)
        assert set(parsed.get("pool") or ()) <= set(WORK_POOLS)
        if "port" in parsed:
            assert service["ports"] == [f"127.0.0.1:{parsed['port']}:{parsed['port']}"]


def _parsed(command: click.Command, words: list[str]) -> dict[str, Any]:
    """Return what a command would be told; nothing of it is run."""
    context = click.Context(command)
    while isinstance(command, click.Group):
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command, context = found, found.make_context(name, list(words), parent=context)
        words = [*context._protected_args, *context.args]
    return dict(context.params)
