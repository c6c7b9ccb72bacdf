"""Documentation is true: README's blocks run, and every deployment in prefect.yaml loads."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
import yaml
from prefect._internal.engine import resolve_custom_flow_run_name
from prefect.cli.deploy._models import ConcurrencyLimitSpec, DeploymentConfig, PrefectYamlModel
from prefect.cli.deploy._triggers import DeploymentTriggerAdapter
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
from prefect.events.schemas.automations import Posture
from prefect.events.schemas.deployment_triggers import DeploymentEventTrigger
from prefect.flows import Flow
from prefect.utilities.schema_tools import validate

from ratchet.cli import app
from ratchet.records import AlertKind

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
DETECTION = (ROOT / "docs" / "detection.md").read_text("utf-8")
PREFECT = yaml.safe_load((ROOT / "prefect.yaml").read_text("utf-8"))
DEPLOYMENTS = [
    "loop", "collect", "analyze", "improve", "deploy", "approve", "rollout", "rollback", "remind",
    "weekly", "prune",
]  # fmt: skip
DEPLOYMENT_KEYS = {
    "name", "description", "entrypoint", "tags", "work_pool", "concurrency_limit", "parameters",
}  # fmt: skip
SCHEDULE_KEYS = {"cron", "timezone", "slug", "active"}
WORK_POOL_KEYS = {"name", "work_queue_name", "job_variables"}
CONCURRENCY_KEYS = {"limit", "collision_strategy"}
TRIGGER_KEYS = {
    "type",
    "enabled",
    "match",
    "expect",
    "posture",
    "threshold",
    "within",
    "parameters",
}
TOP_KEYS = {"name", "prefect-version", "definitions", "deployments"}


PAGES = README + "".join(path.read_text("utf-8") for path in sorted((ROOT / "docs").glob("*.md")))
for _part in ("tutorial", "how-to"):
    PAGES += "".join(path.read_text("utf-8") for path in sorted((ROOT / "docs" / _part).glob("*")))


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)


def commands(pages: str = PAGES) -> list[str]:
    """The commands that README and docs show, each on one line and without its comment."""
    shown = "".join(blocks("bash", pages)).replace("\\\n", " ")
    lines = [line.split("  #")[0].strip() for line in shown.splitlines()]
    lines = [re.sub(r"^(?:RATCHET_[A-Z_]+=\S+ )+", "", line) for line in lines]
    return [line for line in lines if line and not line.startswith("#")]


OTHERS = (
    "mlflow server ",
    "docker run ",
    "docker build ",
    "docker compose -f containers/compose.yaml up ",
    "cp ",
    "kubectl create secret ",
    "helm install ",
    "kubectl exec ",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve ",
    "duckdb -readonly ",
    "ray start ",
    "python -c ",
    "curl ",
    "promtool check ",
    "prometheus --config.file=",
)
"""Commands of other programs; a command of Ratchet behind one of them is checked all the same."""


def test_readme_shows_at_least_the_two_commands() -> None:
    assert {"make demo", "make test"} <= set(commands())


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("make ")])
def test_every_make_command_names_a_target(command: str) -> None:
    done = subprocess.run(
        ["make", "--dry-run", *shlex.split(command)[1:]], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command",
    [c for c in commands() if "ratchet " in c and not c.startswith(("make ", "export ", *OTHERS))],
)
def test_every_ratchet_command_parses(command: str) -> None:
    words = shlex.split(command)
    words = words[next(i for i, word in enumerate(words) if word.endswith("ratchet")) + 1 :]
    group: Any = typer.main.get_command(app)
    with group.make_context("ratchet", list(words), resilient_parsing=False) as context:
        rest = (
            [*context.protected_args, *context.args] if hasattr(context, "protected_args") else []
        )
        name, subcommand, arguments = group.resolve_command(context, rest or words)
        subcommand.make_context(name, list(arguments), parent=context)


def test_every_other_command_is_one_that_is_known() -> None:
    known = ("make ", "python -m tests.", "python -m ratchet.simulation.", "export ")
    known += (".venv/bin/ratchet ", "ratchet ")
    known += ("docker compose -f containers/compose.yaml exec worker ratchet ",)
    assert [c for c in commands() if not c.startswith(known + OTHERS)] == []


@pytest.mark.parametrize("block", blocks("python") + blocks("python", DETECTION))
def test_every_python_block_of_readme_and_detection_runs(block: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_links_lead_somewhere() -> None:
    broken, count = [], 0
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        links = re.findall(r"\]\((?!http)([^)#\s]+)", page.read_text("utf-8"))
        broken += [f"{page.name}: {link}" for link in links if not (page.parent / link).exists()]
        count += len(links)
    assert count >= 30
    assert broken == []


def test_the_readme_is_short() -> None:
    assert len(README.split()) <= 1_200


def test_readme_and_detection_have_examples() -> None:
    assert blocks("python")
    assert len(commands(DETECTION)) == 4
    assert len(blocks("python", DETECTION)) == 1


def deployment(name: str) -> dict[str, Any]:
    return next(item for item in PREFECT["deployments"] if item["name"] == name)


def test_prefect_yaml_has_only_keys_that_prefect_reads() -> None:
    assert set(PREFECT) == TOP_KEYS
    assert [d["name"] for d in PREFECT["deployments"]] == DEPLOYMENTS
    for item in PREFECT["deployments"]:
        owned = {"rollback": {"triggers"}, "approve": set(), "loop": {"schedules", "triggers"}}
        own = owned.get(item["name"], {"schedules"})
        assert set(item) == DEPLOYMENT_KEYS | own, item["name"]
        assert set(item) <= set(DeploymentConfig.model_fields)
        assert set(item["work_pool"]) <= WORK_POOL_KEYS
        for schedule in item.get("schedules", ()):
            assert set(schedule) == SCHEDULE_KEYS
    PrefectYamlModel.model_validate(PREFECT)


def test_monitoring_runs_every_five_minutes_one_run_at_a_time_and_a_late_one_is_dropped() -> None:
    analyze = deployment("analyze")
    (schedule,) = analyze["schedules"]
    assert (schedule["cron"], schedule["active"]) == ("*/5 * * * *", True)
    assert analyze["parameters"] == {"options": {"cycle": False}}
    limit = analyze["concurrency_limit"]
    assert set(limit) == CONCURRENCY_KEYS <= set(ConcurrencyLimitSpec.model_fields)
    assert limit["limit"] == 1
    options = ConcurrencyOptions(collision_strategy=limit["collision_strategy"])
    assert options.collision_strategy is ConcurrencyLimitStrategy.CANCEL_NEW
    others = [d for d in PREFECT["deployments"] if d["name"] not in ("analyze", "rollout")]
    assert {item["concurrency_limit"] for item in others} == {1}


def test_a_rollout_is_looked_at_every_ten_minutes_and_a_late_look_is_dropped() -> None:
    rollout = deployment("rollout")
    (schedule,) = rollout["schedules"]
    assert (schedule["cron"], schedule["active"]) == ("*/10 * * * *", True)
    assert rollout["concurrency_limit"] == deployment("analyze")["concurrency_limit"]


def test_the_rollback_waits_for_an_alert_that_a_person_let_act() -> None:
    (written,) = deployment("rollback")["triggers"]
    assert set(written) == TRIGGER_KEYS <= set(DeploymentEventTrigger.model_fields)
    trigger = DeploymentTriggerAdapter.validate_python(written)
    assert isinstance(trigger, DeploymentEventTrigger)
    assert trigger.enabled is False
    assert trigger.match.model_dump() == {
        "prefect.resource.id": "ratchet.version.*",
        "ratchet.severity": "critical",
        "ratchet.fresh": "true",
        "ratchet.kind": "board",
    }
    assert trigger.expect == {"ratchet.alert.opened", "ratchet.alert.updated"}
    assert (trigger.posture, trigger.threshold) == (Posture.Reactive, 1)
    assert trigger.within == timedelta(0)
    flow = importlib.import_module("ratchet.flows.rollback").rollback
    flow.validate_parameters(trigger.parameters)


def test_an_alert_begins_a_cycle_where_a_person_let_it() -> None:
    (written,) = deployment("loop")["triggers"]
    assert set(written) == TRIGGER_KEYS
    trigger = DeploymentTriggerAdapter.validate_python(written)
    assert isinstance(trigger, DeploymentEventTrigger)
    assert trigger.enabled is False
    assert trigger.expect == {"ratchet.alert.opened"}
    kinds = trigger.match.model_dump()["ratchet.kind"]
    assert set(kinds) < set(get_args(AlertKind))
    flow = importlib.import_module("ratchet.flows.loop").loop
    flow.validate_parameters(trigger.parameters)


RUN_NAMES = {
    "loop": ({}, "one whole cycle"),
    "collect": ({}, "collect into a cycle"),
    "analyze": ({"cycle": False}, "analyze: every board"),
    "improve": ({}, "train a challenger by sft"),
    "deploy": ({}, "gate the latest candidate"),
    "rollout": ({}, "look at the running rollout"),
    "rollback": ({"model_version": "support/3"}, "roll back support/3"),
    "prune": ({"dry_run": True}, "prune: only show what would go"),
    "weekly": ({"week": "2026-W48"}, "report of 2026-W48"),
    "remind": (None, "remind people of what waits"),
}
"""Options of a run, and its name. Who starts `approve` names its run after what is approved."""


@pytest.mark.parametrize("name", sorted(RUN_NAMES))
def test_a_runs_name_says_what_it_does(name: str) -> None:
    flow = getattr(importlib.import_module(f"ratchet.flows.{name}"), name)
    options, called = RUN_NAMES[name]
    given = {} if options is None else {"options": options}
    parameters = flow.validate_parameters(given)
    assert resolve_custom_flow_run_name(flow, parameters) == called
    assert set(RUN_NAMES) == set(DEPLOYMENTS) - {"approve"}


@pytest.mark.parametrize("written", PREFECT["deployments"], ids=lambda item: str(item["name"]))
def test_every_deployment_loads_and_its_parameters_fit(written: dict[str, Any]) -> None:
    module, _, name = written["entrypoint"].rpartition(".")
    flow = getattr(importlib.import_module(module), name)
    assert isinstance(flow, Flow)
    assert flow.name == written["name"]
    schema = flow.parameters.model_dump()
    assert validate(written["parameters"], schema, raise_on_error=True) == []
    flow.validate_parameters(written["parameters"])


def test_published_methods_name_functions_that_exist() -> None:
    methods = (ROOT / "docs" / "methods.md").read_text("utf-8")
    names = set(re.findall(r"`(ratchet\.[a-z_.]+)\.([A-Za-z_]+)`", methods)) | {
        (f"ratchet.{module}", name)
        for module, name in re.findall(
            r"`((?:stats|evaluation|analyze|deploy|improve)\.[a-z_]+)\.([A-Za-z_]+)", methods
        )
    }
    for module, name in names:
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"
    assert names, "docs/methods.md names no functions"


def test_options_survive_json() -> None:
    from ratchet.flows.loop import LoopOptions

    options = LoopOptions()
    assert LoopOptions.model_validate(json.loads(options.model_dump_json())) == options


# Names and paths ----------------------------------------------------------------------------------

PROSE = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "tests").rglob("*.md")]
CODE = [*(ROOT / "src" / "ratchet").rglob("*.py"), *(ROOT / "flows").glob("*.py")]
ROOMS = {path.stem for path in (ROOT / "src" / "ratchet").iterdir()}


def exists(name: str) -> bool:
    """Tell whether a dotted name leads to a module, or to what a module holds."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:count]))
        except ImportError:
            continue
        for part in parts[count:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def test_every_name_of_ours_in_prose_and_docstrings_exists() -> None:
    named = {
        name
        for path in [*PROSE, *CODE]
        if path.name != "CHANGELOG.md"  # it tells of names as they were
        for name in re.findall(r"`(ratchet(?:\.\w+)+)`", path.read_text("utf-8"))
        if name.split(".")[1] in ROOMS  # events of Prefect begin with ratchet. too
    }
    assert len(named) > 100
    assert sorted(name for name in named if not exists(name)) == []
    assert not exists("ratchet.stats.intervals.no_such_interval")


def test_every_path_in_prose_leads_somewhere() -> None:
    found = {
        path
        for page in PROSE
        for path in re.findall(
            r"`((?:src|tests|docs|flows|notebooks)/[\w/.-]+)`", page.read_text("utf-8")
        )
    }
    assert len(found) > 30
    # `docs/decisions/0016` names a file by its number
    assert sorted(p for p in found if not (ROOT / p).exists() and not [*ROOT.glob(f"{p}-*")]) == []
