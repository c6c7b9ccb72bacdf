"""The deployments of one home: what its file says differently from those that are shipped.

    options:                       # of the loop; each stage's deployment and command gets its part
      collect: {sources: [{source: /exports/langfuse.jsonl}]}
      deploy: {approval: always}
    schedules: {loop: false}       # which schedules run
    training_pool: gpu             # Prefect's work pool that trains

`ratchet init` writes it, `RATCHET_DEPLOYMENTS` names it. `ratchet up` lays it over `prefect.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ratchet.errors import InvalidInputError
from ratchet.files.text import finding, printable
from ratchet.files.yaml import read_yaml

TRAINING_POOL = "ratchet-training"
"""The pool that trains where the file names none."""
STORE_ID = "RATCHET_STORE_ID"
"""The variable by which a flow run is told which store it must find."""
PYTHON = "RATCHET_PYTHON"
"""The variable by which a worker says which Python runs its flows."""
_RUN = "-P -m ratchet.processes prefect.engine"
_HINT = (
    f"this worker has no Ratchet: start it by ratchet worker, or set {PYTHON} to a Python that has"
)
_CHECK = f'[ -n "${PYTHON}" ] || python3 -P -c "import ratchet"'
_COMMAND = (
    f'sh -c \'{_CHECK} || {{ echo "{_HINT}" >&2; exit 1; }}; exec "${{{PYTHON}:-python3}}" {_RUN}\''
)
Stage = Literal["collect", "analyze", "improve", "deploy"]


class Deployments(BaseModel):
    """What a home's file says.

    Attributes:
        options: Of the loop, by stage.
        schedules: Whether a deployment's schedule runs, by its name.
        training_pool: Prefect's work pool that trains; None for the one that `ratchet up` serves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    options: dict[Stage, dict[str, Any]] = {}
    schedules: dict[str, bool] = {}
    training_pool: Annotated[str, Field(pattern=r"^[\w.-]{1,200}$")] | None = None

    @property
    def trains_elsewhere(self) -> bool:
        """Whether a pool trains that `ratchet up` starts no worker for."""
        return self.training_pool not in (None, TRAINING_POOL)

    def options_of(self, stage: Stage) -> dict[str, Any]:
        """Return the options of a stage."""
        return self.options.get(stage, {})

    def over(self, shipped: Mapping[str, Any]) -> dict[str, Any]:
        """Return the content of `prefect.yaml` with what this file says.

        Raises:
            InvalidInputError: A schedule is named that no deployment has.
        """
        with_schedule = [item["name"] for item in shipped["deployments"] if item.get("schedules")]
        unknown = sorted(set(self.schedules).difference(with_schedule))
        if unknown:
            raise InvalidInputError(
                f"schedules are of deployments that have one, got {printable(unknown[0])!r}; name "
                f"some of {', '.join(with_schedule)}"
            )
        return {**shipped, "deployments": [self._changed(one) for one in shipped["deployments"]]}

    def stating(self, shipped: Mapping[str, Any], store_id: str) -> dict[str, Any]:
        """Return the same, with the store that flow runs must find, wherever their worker is.

        Args:
            shipped: The content of `prefect.yaml`.
            store_id: What the store is known by.
        """
        content = self.over(shipped)
        for one in content["deployments"]:
            variables = one["work_pool"].get("job_variables", {})
            env = {**variables.get("env", {}), STORE_ID: store_id}
            one["work_pool"] = {**one["work_pool"], "job_variables": {**variables, "env": env}}
        return content

    def _changed(self, shipped: Mapping[str, Any]) -> dict[str, Any]:
        changed, name = dict(shipped), shipped["name"]
        given = self.options if name == "loop" else self.options.get(name)
        if given:
            before = shipped["parameters"]
            changed["parameters"] = {**before, "options": {**before["options"], **given}}
        if name in self.schedules:
            active = self.schedules[name]
            changed["schedules"] = [{**item, "active": active} for item in shipped["schedules"]]
        if self.training_pool and shipped["work_pool"]["name"] == TRAINING_POOL:
            changed["work_pool"] = {**shipped["work_pool"], "name": self.training_pool}
        return changed

    def written(self) -> str:
        """Return the deployments as YAML, in the form that `read_deployments` reads."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True) if content else "{}\n"


def give_command(template: dict[str, Any], *, is_new: bool) -> bool:
    """Have the workers of a pool of processes start a flow run with the command that runs it.

    Without a command of its own a worker first starts another Python, which imports Prefect and
    prepares a folder with the code: a second or two for each run, and ours is installed. Secrets
    are in no environment of a run: it reads them from the file that it is told of. Which Python
    that is each worker says, so that the command fits every machine.

    Args:
        template: The pool's base job template, which is changed.
        is_new: Whether nobody can have edited it yet. Of another one only a command of an earlier
            version is replaced, which named the Python of one machine.

    Returns:
        Whether it was changed.
    """
    command = template.get("variables", {}).get("properties", {}).get("command")
    before = str(command.get("default") or "") if command else ""
    if command is None or not (is_new or before.endswith(_RUN)):
        return False
    command["default"] = _COMMAND
    return True


def read_deployments(path: Path | None) -> Deployments:
    """Read a home's file; without one nothing differs from what is shipped.

    Raises:
        InvalidInputError: It is not there, no YAML, or says what no deployment has.
    """
    if path is None:
        return Deployments()
    content = read_yaml(path, what="deployments", holds="options, schedules and training_pool")
    try:
        return Deployments.model_validate(content)
    except ValidationError as error:
        raise InvalidInputError(
            f"{printable(path.name)}, {finding(error, 200)}; correct it"
        ) from error
