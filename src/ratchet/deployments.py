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
