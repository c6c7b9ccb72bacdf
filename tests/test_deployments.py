"""A home's file of deployments: laid over what is shipped, and nothing else is changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratchet.deployments import STORE_ID, Deployments, give_command, read_deployments
from ratchet.errors import InvalidInputError
from ratchet.servers import shipped_deployments


def named(content: dict, name: str) -> dict:
    return next(item for item in content["deployments"] if item["name"] == name)


def test_without_a_file_nothing_differs_from_what_is_shipped() -> None:
    assert read_deployments(None).over(shipped_deployments()) == shipped_deployments()


def test_the_loop_gets_all_options_and_each_stage_its_own_over_those_that_are_shipped() -> None:
    ours = Deployments(options={"collect": {"seed": 3}, "analyze": {"traffic_sample": 5}})
    found = ours.over(shipped_deployments())
    assert named(found, "loop")["parameters"]["options"] == {
        "collect": {"seed": 3}, "analyze": {"traffic_sample": 5},
    }  # fmt: skip
    assert named(found, "collect")["parameters"]["options"] == {"seed": 3}
    # the shipped deployment of analyze only watches
    assert named(found, "analyze")["parameters"]["options"] == {"cycle": False, "traffic_sample": 5}
    assert named(found, "improve") == named(shipped_deployments(), "improve")


def test_schedules_are_switched_and_training_goes_to_the_named_pool() -> None:
    ours = Deployments(schedules={"loop": False, "collect": True}, training_pool="gpu")
    found = ours.over(shipped_deployments())
    assert [named(found, name)["schedules"][0]["active"] for name in ("loop", "collect")] == [
        False, True,
    ]  # fmt: skip
    pools = {item["name"]: item["work_pool"]["name"] for item in found["deployments"]}
    assert {name for name, pool in pools.items() if pool == "gpu"} == {"improve"}
    assert ours.trains_elsewhere
    assert not Deployments(training_pool="ratchet-training").trains_elsewhere


@pytest.mark.parametrize("text", [
    "option: {}\n", "options: {colect: {}}\n", "training_pool: a/b\n", "schedules: {loop: 3}\n",
])  # fmt: skip
def test_what_no_deployment_has_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "d.yaml").write_text(text, "utf-8")
    with pytest.raises(InvalidInputError, match=r"d\.yaml"):
        read_deployments(tmp_path / "d.yaml")


def test_a_schedule_that_no_deployment_has_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="got 'approve'"):
        Deployments(schedules={"approve": True}).over(shipped_deployments())


def test_every_deployment_states_the_store_beside_what_its_pool_was_given() -> None:
    shipped = shipped_deployments()
    shipped["deployments"][0]["work_pool"]["job_variables"] = {"env": {"OURS": "1"}, "image": "x"}
    changed = Deployments(training_pool="gpu").stating(shipped, "id-1")["deployments"]
    variables = [one["work_pool"]["job_variables"] for one in changed]
    assert len(variables) == len(shipped["deployments"])
    assert {one["env"][STORE_ID] for one in variables} == {"id-1"}
    assert variables[0] == {"env": {"OURS": "1", STORE_ID: "id-1"}, "image": "x"}
    assert "gpu" in {one["work_pool"]["name"] for one in changed}


@pytest.mark.parametrize(
    ("before", "is_new", "changed"),
    [
        (None, True, True),
        (None, False, False),
        ("python -m prefect.engine", False, False),
        ("/a/python -P -m ratchet.processes prefect.engine", False, True),
        ("nice python -P -m ratchet.processes prefect.engine # ours", False, False),
    ],
)
def test_a_pools_command_is_ours_where_nobody_else_has_set_it(
    before: str | None, is_new: bool, changed: bool
) -> None:
    template = {"variables": {"properties": {"command": {"default": before}}}}
    assert give_command(template, is_new=is_new) is changed
    command = template["variables"]["properties"]["command"]["default"]
    assert ("RATCHET_PYTHON" in str(command)) is changed
    assert changed or command == before
    assert not give_command(template, is_new=False)  # once


def test_a_pool_without_a_command_is_left_alone() -> None:
    assert not give_command({}, is_new=True)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    ours = Deployments(options={"deploy": {"approval": "always"}}, schedules={"loop": False})
    for given in (ours, Deployments()):
        (tmp_path / "d.yaml").write_text(given.written(), "utf-8")
        assert read_deployments(tmp_path / "d.yaml") == given
