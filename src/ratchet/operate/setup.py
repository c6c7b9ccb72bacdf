"""Five answers about a home, and the two files that they become: what `ratchet init` asks.

answers = present_answers(folder)            # of the files that are there, else the defaults
for path, text in files_of(answers, folder).items(): ...
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ratchet.deployments import Deployments, read_deployments
from ratchet.errors import SettingsError

SETTINGS, DEPLOYMENTS = "ratchet.toml", "deployments.yaml"
_Line = Annotated[str, Field(max_length=2_000, pattern=r"^[^\x00-\x1f\x7f]*$")]
_OURS = ("backend", "base_model", "model_name", "judges", "approvers", "deployments")
"""Settings that the answers say; what else `ratchet.toml` holds stays."""
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:")
"""How an address begins: a scheme, or the name of a server such as `mlflow:` and `langfuse:`."""
_HARVEST_ALONE = {"loop": False, "collect": True}


class Answers(BaseModel):
    """What is asked.

    Attributes:
        answers_from: Where answers come from: `server`, in front of which the gateway stands (the
            local model, where no address is given), `logs` that are imported, or `elsewhere`:
            somebody else's model, of which there are logs and no weights.
        address: Of the server, or of the logs: a file, a folder, a pattern or an address.
        feedback: What people say about answers: `feedback` through Ratchet's page and API,
            `scores` that the logs hold, or `judge`, a language model, where people say nothing.
        scores: YAML file that says what scores in the logs mean; empty where the format says it.
        judges: YAML file with the judges.
        base_model: `smollm2` or the folder of the model's weights; empty where nobody has them.
        model_name: Its name in the registry.
        train: Where: `here`, on this machine, in a `pool` of Prefect, or `nowhere`.
        pool: The pool's name.
        approval: Which promotions wait for a person: `always`, `borderline` ones and those that
            touch safety, or `never` more than the gate's policy says.
        approvers: Who may approve, by name; anybody where there are none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    answers_from: Literal["server", "logs", "elsewhere"] = "server"
    address: _Line = ""
    feedback: Literal["feedback", "scores", "judge"] = "feedback"
    scores: _Line = ""
    judges: _Line = ""
    base_model: _Line = "smollm2"
    model_name: Annotated[str, Field(pattern=r"^[\w.-]{1,200}$")] = "support-router"
    train: Literal["here", "pool", "nowhere"] = "here"
    pool: Annotated[str, Field(pattern=r"^[\w.-]{0,200}$")] = ""
    approval: Literal["always", "borderline", "never"] = "always"
    approvers: tuple[_Line, ...] = ()

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.answers_from != "server" and not self.address:
            raise ValueError(
                "logs are imported from an address, got none; give a file, a folder or a URL"
            )
        if self.feedback == "judge" and not self.judges:
            raise ValueError("a judge is described by a file, got none; name it as judges")
        if self.feedback == "scores" and self.answers_from == "server":
            raise ValueError(
                "scores are in logs, got answers from a server; its users give feedback"
            )
        if self.train == "pool" and not self.pool:
            raise ValueError("a pool has a name, got none; name it as pool")
        if self.train != "nowhere" and not self.base_model:
            raise ValueError(
                "training needs the model's weights, got none; name their folder as base_model, or "
                "train nowhere"
            )
        return self

    @property
    def next_command(self) -> str:
        """What to do first."""
        if self.answers_from != "server":
            return "ratchet collect --dry-run"
        return "ratchet adopt --dry-run" if self.address else "ratchet serve"


def present_answers(folder: Path) -> dict[str, Any]:
    """Return the answers to the five questions that a folder's files imply, defaults for the rest.

    Raises:
        RatchetError: A file is there and cannot be used.
    """
    said = _read_settings(folder)
    if not said:
        return Answers().model_dump()
    named = said.get("deployments")
    ours = read_deployments(folder / named if isinstance(named, str) else None)
    sources = ours.options_of("collect").get("sources") or [{}]
    source, scored = sources[0].get("source", ""), sources[0].get("map", "")
    backend = said.get("backend") or [""]
    logs = "logs" if said.get("base_model") else "elsewhere"
    answers = {
        "answers_from": logs if source else "server",
        "address": source or backend[0],
        "feedback": "judge" if said.get("judges") else "scores" if source else "feedback",
        "scores": scored,
        "judges": said.get("judges", ""),
        "base_model": said.get("base_model", "")
        if source or backend[0]
        else said.get("base_model", "smollm2"),
        "model_name": said.get("model_name", "support-router"),
        "train": "nowhere" if ours.schedules.get("loop") is False else "here",
        "pool": ours.training_pool or "",
        "approval": ours.options_of("deploy").get("approval", "never"),
        "approvers": tuple(said.get("approvers", ())),
    }
    if ours.training_pool and answers["train"] == "here":
        answers["train"] = "pool"
    return answers


def files_of(answers: Answers, folder: Path) -> dict[Path, str]:
    """Return the files' texts; what the present ones say of other things stays.

    Raises:
        RatchetError: A present file cannot be used.
    """
    said = _read_settings(folder)
    named = said.get("deployments")
    path = folder / (named if isinstance(named, str) else DEPLOYMENTS)
    before = read_deployments(path if path.exists() else None)
    kept = {name: value for name, value in said.items() if name not in _OURS}
    values = _settings_of(answers) | {"deployments": str(named or DEPLOYMENTS)} | kept
    lines = [f"{name} = {_toml(value)}" for name, value in values.items()]
    return {
        folder / SETTINGS: "\n".join(["# Written by `ratchet init`.", *lines]) + "\n",
        path: _deployments_of(answers, before, folder).written(),
    }


def _settings_of(answers: Answers) -> dict[str, Any]:
    server = answers.answers_from == "server"
    values = {
        "model_name": answers.model_name,
        "backend": [answers.address] if server and answers.address else [],
        "base_model": answers.base_model,
        "judges": answers.judges if answers.feedback == "judge" else "",
        "approvers": list(answers.approvers),
    }
    return {name: value for name, value in values.items() if value}


def _deployments_of(answers: Answers, before: Deployments, folder: Path) -> Deployments:
    options: dict[Any, dict[str, Any]] = {name: dict(of) for name, of in before.options.items()}
    options.setdefault("collect", {}).pop("sources", None)
    options.setdefault("deploy", {}).pop("approval", None)
    if answers.answers_from != "server":
        # other sources that somebody added to the file stay
        more = before.options_of("collect").get("sources") or []
        options["collect"]["sources"] = [_source_of(answers, folder), *more[1:]]
    if answers.approval != "never":
        options["deploy"]["approval"] = answers.approval
    schedules = {n: is_on for n, is_on in before.schedules.items() if n not in _HARVEST_ALONE}
    if answers.train == "nowhere":
        schedules |= _HARVEST_ALONE
    return Deployments(
        options={name: of for name, of in options.items() if of},
        schedules=schedules,
        training_pool=answers.pool if answers.train == "pool" else None,
    )


def _source_of(answers: Answers, folder: Path) -> dict[str, str]:
    source = {"source": _absolute(answers.address, folder)}
    if answers.feedback == "scores" and answers.scores:
        source["map"] = _absolute(answers.scores, folder)
    return source


def _absolute(path: str, folder: Path) -> str:
    """Return a path that means the same wherever a flow runs; an address stays."""
    return path if _ADDRESS.match(path) else str(folder / Path(path).expanduser())


def _read_settings(folder: Path) -> dict[str, Any]:
    path = folder / SETTINGS
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{SETTINGS} must be TOML in UTF-8, got: {error}; correct it"
        ) from error


def _toml(value: Any) -> str:
    """Write a text, a number, a truth value or a list of them, which JSON and TOML share."""
    return json.dumps(value, ensure_ascii=False)
