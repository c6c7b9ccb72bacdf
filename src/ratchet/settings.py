"""Settings of one home folder: defaults, what the home remembers, `ratchet.toml`, the environment.

The home remembers (`home.json`) what it stands in front of: `ratchet adopt` and `ratchet serve`
write it there, so that flows, commands and gateways of one home agree.

Read by the flows, the command line and the gateway only; everything else takes arguments.

Environment:
    RATCHET_HOME: Folder that holds the store, Prefect's and MLflow's databases (`./.ratchet`).
    RATCHET_CACHE: Folder for converted models (the user's cache folder, `ratchet` inside).
    RATCHET_STORE_URL: SQLAlchemy URL of the event store (SQLite in the home folder).
    RATCHET_STORE_ID: What the store is known by (`ratchet doctor` shows it): flows and commands
        refuse another one, and make none. `ratchet up` writes it into its deployments.
    RATCHET_HISTORY: Folder or address of object storage that history is written to (`history` in
        the home folder).
    RATCHET_BASE_MODEL: `smollm2` or the path of a model in Hugging Face format.
    RATCHET_CHAT_TEMPLATE: `hermes` or the path of a Jinja file, in the place of the base model's
        own chat template.
    RATCHET_MODEL_NAME: Name in the model registry (`support-router`).
    MLFLOW_TRACKING_URI: An MLflow server to use instead of the home folder's.
    PREFECT_API_URL: A Prefect server to use instead of the home folder's.
    RATCHET_JUDGES: YAML file with judges, which the flow `analyze` validates and asks.
    RATCHET_EMBEDDING: What turns texts into vectors: `minilm`, `words`, the folder of a
        sentence-transformers model, or the address of a server with `/v1/embeddings` (its model's
        name after `#`, its key in RATCHET_EMBEDDING_KEY).
    RATCHET_EXECUTOR: What runs long work: `inline`, `processes:N`, or `ray[:ADDRESS]` for a cluster
        that this machine is part of.
    RATCHET_TITLES: YAML file that says which language model gives failure clusters titles.
    RATCHET_SAFETY: YAML file with safety rules; the default rules without it.
    RATCHET_REVIEW: YAML file that says what people are asked, how many decide an item, and by
        which rules items are chosen; one person and no rules without it.
    RATCHET_RETENTION: YAML file that says how long things are kept; the defaults without it.
    RATCHET_PRICES: YAML file that says what a million tokens of a model cost.
    RATCHET_NOT_DERIVED: Signals that are not derived from the traffic, separated by spaces, or
        `all`.
    RATCHET_DEPLOYMENTS: YAML file that says what this home's deployments do differently from those
        that are shipped: options, schedules, where training runs.
    RATCHET_PAGES: YAML file that says how the pages for people are served and who signs in.
    RATCHET_ALERTS: YAML file that says who is told of what: channels, routes, reminders.
    RATCHET_APPROVERS: Who may approve a promotion, separated by spaces; anybody without it.
    RATCHET_NOTIFY: Where alerts go: Apprise URLs, separated by spaces. They hold secrets.
    RATCHET_BACKEND: URLs of the replicas of the server that answers users, separated by spaces;
        none where the gateway's own local model does. Its key is RATCHET_BACKEND_KEY.
    RATCHET_LOG_FORMAT: `text`, or `json` for one JSON object a line.
    RATCHET_LOG_LEVEL: From which severity on gateways log: `info` has each request.
    RATCHET_TRACES: Address of a collector (OTLP/HTTP) that gateways send a span of each request to;
        its key is RATCHET_TRACES_KEY.
    RATCHET_TRACES_CONTENT: `yes` where these spans hold what was said.
    RATCHET_ADAPTER_ROOT: Folder that adapters are put into for the backend, as this machine sees
        it (`adapters` in the home folder).
    RATCHET_BACKEND_ADAPTER_ROOT: The same folder as the backend sees it, where that is another
        path: in a container, in a pod, on another machine.

    RATCHET_RESULTS: Block of a Prefect server that results of its flows are kept in
        (`prefect:remote-file-system/NAME`); a folder of each machine without it.

Any of them may be given as the name of a file that holds it, in the variable with `_FILE` at its
end (RATCHET_STORE_URL_FILE); so may keys (RATCHET_BACKEND_KEY_FILE). Then no secret stands in any
process's environment. Or as the name of a block of a Prefect server (`prefect:secret/NAME`).

Child processes are given all of them (`Settings.environment`), with RATCHET_SETTINGS=environment,
which says that there is no `ratchet.toml` to read.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from ratchet.errors import SettingsError
from ratchet.files.hub_ids import is_hub_id
from ratchet.files.whole import write_whole
from ratchet.prefect_api import NAMED, block_name, read_block

_COMPLETE = "RATCHET_SETTINGS"
_HOME_FILE = "home.json"
_SQLITE_FILE = re.compile(r"(sqlite(?:\+\w+)?:///)(.+)")
_KEYWORDS = {
    "base_model": ("smollm2",),
    "chat_template": ("hermes",),
    "embedding": ("minilm", "words"),
}


class Settings(BaseModel):
    """Where everything lies.

    Attributes:
        home: Absolute folder that holds all state.
        cache: Absolute folder for converted models, shared by homes.
        store_url: SQLAlchemy URL of the event store.
        store_id: What the store is known by; another one is refused. None: whichever it is.
        history: Absolute folder of history, or an address such as `s3://bucket/history`.
        tracking_uri: MLflow tracking URI.
        prefect_api_url: An external Prefect API, or None for the home's own server.
        results: The block that results of flows are kept in; a folder of each machine without it.
        base_model: `smollm2`, a local path in Hugging Face format, or an id of the Hub, such as
            `owner/name`.
        chat_template: `hermes` or a Jinja file; empty for the base model's own, which for
            `smollm2` is `hermes`.
        model_name: Name in the model registry.
        judges: YAML file with judges; none are asked without it.
        safety: YAML file with safety rules; the default rules without it.
        embedding: `minilm`, `words`, the folder of a sentence-transformers model, or an address.
        executor: `inline`, `processes:N` or `ray[:ADDRESS][,gpus=G]`.
        titles: YAML file with a model that gives titles; keywords name clusters without it.
        review: YAML file about review: labels, guidelines, people an item, rules that choose.
        retention: YAML file that says how long things are kept; the defaults without it.
        prices: YAML file that says what tokens cost; without it an answer cost what is stated.
        not_derived: Signals that are not derived from the traffic; `all` for every one.
        deployments: YAML file about this home's deployments; those that are shipped without it.
        pages: YAML file about the pages for people; the defaults without it.
        alerts: YAML file about who is told of what; only the addresses of `notify` without it.
        approvers: Names of those who may approve a promotion; empty for anybody.
        notify: Apprise URLs that alerts are sent to.
        backend: URLs of the replicas of the server that answers users; empty for the local model.
        log_format: `text`, or `json` for one JSON object a line.
        log_level: From which severity on gateways and pages log.
        traces: Address of a collector of traces (OTLP/HTTP); none are sent without it.
        traces_content: Whether traces hold what was said.
        adapter_root: Folder that adapters are put into for the backend; None for the home's own.
        backend_adapter_root: The same folder as the backend sees it; None for the same path.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    home: Path
    cache: Path
    store_url: str
    history: str
    tracking_uri: str
    store_id: str | None = None
    prefect_api_url: str | None = None
    results: str | None = None
    base_model: str = "smollm2"
    chat_template: str = ""
    model_name: str = "support-router"
    judges: Path | None = None
    safety: Path | None = None
    review: Path | None = None
    embedding: str = "minilm"
    executor: str = "inline"
    titles: Path | None = None
    retention: Path | None = None
    prices: Path | None = None
    not_derived: tuple[str, ...] = ()
    deployments: Path | None = None
    pages: Path | None = None
    alerts: Path | None = None
    approvers: tuple[str, ...] = ()
    notify: tuple[str, ...] = Field(default=(), repr=False)
    backend: tuple[str, ...] = ()
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    traces: str | None = Field(default=None, pattern=r"^https?://[^\s?#]+$")
    traces_content: bool = False
    adapter_root: Path | None = None
    backend_adapter_root: str | None = Field(default=None, pattern="^/")

    def __repr_args__(self) -> Any:
        """Show no password that an address holds."""
        for name, value in super().__repr_args__():
            yield name, without_password(value) if isinstance(value, str) else value

    @property
    def states_base_model(self) -> bool:
        """Whether somebody said which base model it is, rather than left the default."""
        return "base_model" in self.model_fields_set

    @property
    def artifacts(self) -> Path:
        """Folder of MLflow's artifacts."""
        return self.home / "mlflow" / "artifacts"

    @property
    def prefect_home(self) -> Path:
        """Folder of Prefect's database, profiles and results."""
        return self.home / "prefect"

    @property
    def servers_file(self) -> Path:
        """Where `ratchet up` writes the addresses that it serves."""
        return self.home / "servers.json"

    def environment(self) -> dict[str, str]:
        """Return every setting under its variable, empty where unset, as `load_settings` reads it.

        A process that is given them reads no `ratchet.toml`, wherever it runs. What the home
        remembers is left to be read there, since it may change while a worker runs.
        """
        values = {name: getattr(self, name) for name in VARIABLES}
        values |= {name: json.dumps(values[name]) if values[name] else None for name in _LISTS}
        values["base_model"] = self.base_model if self.states_base_model else None
        remembered = read_remembered(self.home)
        for name in _REMEMBERED:
            default = Settings.model_fields[name].default
            if getattr(self, name) == _as_set(name, remembered.get(name, default)):
                values[name] = None
        variables = {VARIABLES[name]: str(value or "") for name, value in values.items()}
        if self.results:
            variables["PREFECT_DEFAULT_RESULT_STORAGE_BLOCK"] = self.results.removeprefix(NAMED)
        return variables | {_COMPLETE: "environment"}

    def make_home(self) -> None:
        """Create the home folder where it is missing, for its owner alone.

        One that an earlier version made is closed to others with all that it holds.

        Raises:
            SettingsError: It cannot be created, or nothing can be written there.
        """
        try:
            private_folder(self.home)
            if self.home.stat().st_mode & _OTHERS:
                tighten(self.home)  # made by an earlier version
        except OSError as error:
            raise _bad_path("home", self.home, error.strerror or str(error)) from error
        if not os.access(self.home, os.W_OK | os.X_OK):
            raise _bad_path("home", self.home, "no permission to write there")


def value_of(environ: Mapping[str, str], variable: str) -> str | None:
    """Return what a variable says, or the file that `VARIABLE_FILE` names, as secrets are mounted.

    What names a block of a Prefect server stands for what is in it.

    Raises:
        SettingsError: There is no such file or block, or it is not text.
    """
    said = _said(environ, variable)
    if said and said.startswith(NAMED) and variable != VARIABLES["results"]:
        return read_block(said, variable, environ)
    return said


def _said(environ: Mapping[str, str], variable: str) -> str | None:
    path = environ.get(f"{variable}_FILE")
    if environ.get(variable) or not path:
        return environ.get(variable)
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{variable}_FILE must be a file with the value in UTF-8, got {path!r}: "
            f"{getattr(error, 'strerror', None) or error}; correct the path"
        ) from error


def private_folder(path: Path) -> Path:
    """Make a folder, and those above it that are missing, for its owner alone; return it."""
    for folder in (*reversed(path.parents), path):
        if not folder.exists():
            folder.mkdir(mode=0o700, exist_ok=True)
    return path


def tighten(home: Path) -> list[Path]:
    """Close a home to others: folders 0700, files 0600; links are not followed.

    Returns:
        What could not be closed, because it belongs to another user.
    """
    left = []
    for path in loose(home):
        try:
            path.chmod(stat.S_IMODE(path.stat().st_mode) & ~_OTHERS)
        except FileNotFoundError:
            continue  # deleted meanwhile
        except OSError:
            left.append(path)
    return left


def loose(home: Path) -> Iterator[Path]:
    """Yield the home and what lies in it, as far as others than the owner may do something."""

    def is_loose(path: Path) -> bool:
        try:
            mode = path.lstat().st_mode
        except OSError:  # deleted meanwhile
            return False
        return not stat.S_ISLNK(mode) and bool(mode & _OTHERS)

    if is_loose(home):
        yield home
    for folder, folders, files in os.walk(home):
        yield from filter(is_loose, (Path(folder, name) for name in (*folders, *files)))


_OTHERS = 0o077
_LISTS = ("not_derived", "approvers", "notify", "backend")
_REMEMBERED = ("model_name", "backend", "adapter_root", "backend_adapter_root")
_FOREIGN = {"tracking_uri": "MLFLOW_TRACKING_URI", "prefect_api_url": "PREFECT_API_URL"}
VARIABLES = {name: _FOREIGN.get(name, f"RATCHET_{name.upper()}") for name in Settings.model_fields}
"""The environment variable of each setting."""
_PATHS = {
    name for name, field in Settings.model_fields.items() if field.annotation in (Path, Path | None)
}


def load_settings(environ: Mapping[str, str], folder: Path) -> Settings:
    """Resolve the settings for the working folder `folder`.

    Args:
        environ: The environment, usually `os.environ`.
        folder: Where `ratchet.toml` and the default home are looked for.

    Returns:
        Frozen settings with absolute paths. Nothing is created on disk.

    Raises:
        SettingsError: `ratchet.toml` is not TOML, or holds an unknown or wrong setting; home or
            cache cannot be a folder.
    """
    values: dict[str, Any] = {"home": ".ratchet", "cache": _default_cache(environ)}
    if environ.get(_COMPLETE) != "environment":
        values |= _read_toml(folder / "ratchet.toml")
    if isinstance(address := values.get("prefect_api_url"), str):
        environ = {_FOREIGN["prefect_api_url"]: address, **environ}
    said = {name: value_of(environ, key) for name, key in VARIABLES.items()}
    held = {name: _of_block(name, value, environ) for name, value in values.items()
            if not said.get(name)}  # fmt: skip
    values |= held | {name: value for name, value in said.items() if value}
    for name in _LISTS:
        if addresses := (said[name] or "").strip():
            values[name] = _addresses(addresses)
    values = {name: _anchored(name, value, folder) for name, value in values.items() if value != ""}
    if isinstance(values["home"], Path):
        values = read_remembered(values["home"]) | values
    values.setdefault("store_url", f"sqlite:///{values['home']}/store.db")
    values.setdefault("history", f"{values['home']}/history")
    values.setdefault("tracking_uri", f"sqlite:///{values['home']}/mlflow/mlflow.db")
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise _refused(error.errors()[0]) from None  # the cause would show what was received
    for name in ("home", "cache"):
        _check_folder(name, values[name])
    if settings.results:
        block_name(settings.results, VARIABLES["results"])
    return settings


def read_remembered(home: Path) -> dict[str, Any]:
    """Return what a home remembers of what it stands in front of, by setting.

    Raises:
        SettingsError: Its `home.json` cannot be read.
    """
    path = home / _HOME_FILE
    try:
        found = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, OSError) as error:
        raise SettingsError(
            f"{_HOME_FILE} of a home must be JSON that Ratchet wrote, got: {error}; run "
            "`ratchet adopt` again after you have moved it away"
        ) from error
    if not isinstance(found, dict):
        raise SettingsError(
            f"{_HOME_FILE} of a home must be a JSON object, got {type(found).__name__}; run "
            "`ratchet adopt` again after you have moved it away"
        )
    return {name: found[name] for name in _REMEMBERED if found.get(name)}


def remember(settings: Settings, **values: Any) -> Settings:
    """Have the home remember settings; what `ratchet.toml` or the environment says comes first.

    Args:
        settings: Of the home.
        values: Settings by name, of those in `home.json`; None forgets one.

    Returns:
        The settings with these values.
    """
    settings.make_home()
    path = settings.home / _HOME_FILE
    known = read_remembered(settings.home) | values
    kept = {n: str(v) if isinstance(v, Path) else v for n, v in known.items() if v}
    write_whole(path, (json.dumps(kept, indent=2) + "\n").encode())
    return settings.model_copy(update={n: _as_set(n, v) for n, v in values.items() if v})


def _as_set(name: str, value: Any) -> Any:
    if name in _LISTS:
        return tuple(value)
    return Path(value) if name in _PATHS and value is not None else value


def _read_toml(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingsError(
            f"ratchet.toml must be TOML in UTF-8, got: {error}; correct {path.name}"
        ) from error


def _of_block(name: str, value: Any, environ: Mapping[str, str]) -> Any:
    """Return what the block holds that `ratchet.toml` names; any other value as it is."""
    if not isinstance(value, str) or not value.startswith(NAMED) or name == "results":
        return value
    held = read_block(value, f"setting {name!r}", environ)
    return _addresses(held) if name in _LISTS else held


def _addresses(text: str) -> Any:
    """Read addresses that white space separates, or a JSON list of them as children are given."""
    return json.loads(text) if text.startswith("[") else text.split()


def _anchored(name: str, value: Any, folder: Path) -> Any:
    """Make paths absolute, so that child processes elsewhere mean the same ones."""
    if not isinstance(value, str) or value in _KEYWORDS.get(name, ()):
        return value
    if name == "embedding" and value.startswith(("http://", "https://")):
        return value
    if name == "base_model" and is_hub_id(value, folder):
        return value
    if name in _PATHS or name in _KEYWORDS:
        path = _absolute(name, value, folder)
        return path if name in _PATHS else str(path)
    if name == "history" and "://" not in value:
        return str(_absolute(name, value, folder))
    if name in ("store_url", "tracking_uri") and (file := re.match(_SQLITE_FILE, value)):
        return f"{file[1]}{_absolute(name, file[2], folder)}"
    return value


def _absolute(name: str, path: str, folder: Path) -> Path:
    try:
        return (folder / Path(path).expanduser()).resolve()
    except (RuntimeError, ValueError, OSError) as error:  # an unknown user, a null byte, a loop
        raise _bad_path(name, Path(path), str(error)) from error


def _check_folder(name: str, path: Path) -> None:
    """Refuse a path that is a file or lies below one, before something fails on it half-way."""
    try:
        there = next(part for part in (path, *path.parents) if part.exists())
    except OSError as error:
        raise _bad_path(name, path, error.strerror or str(error)) from error
    if not there.is_dir():
        raise _bad_path(name, path, f"a file at {there}")


def _bad_path(name: str, path: Path, why: str) -> SettingsError:
    return SettingsError(
        f"setting {name!r} must be a path that can be used, got {str(path)!r}: {why}; "
        f"set {VARIABLES[name]} to another one"
    )


def _refused(problem: ErrorDetails) -> SettingsError:
    name, known = str(problem["loc"][0]), list(VARIABLES)
    received = repr(problem["input"])
    near = get_close_matches(name, known, n=1)
    if "notify" in (name, *near) or "://" in received:
        received = "an address that is not shown"
    if name in known:
        text = f"{problem['msg']}, got {received}; correct it in ratchet.toml or {VARIABLES[name]}"
    else:
        text = f"there is no such setting, got {received}; "
        text += f"did you mean {near[0]!r}? " if near else "remove it from ratchet.toml; "
        text += f"known settings: {', '.join(known)}"
    return SettingsError(f"setting {name!r}: {text}")


def without_password(text: str) -> str:
    """Return an address without the password in it."""
    return re.sub(r"(://[^/@:]*):[^@]*@", r"\1:***@", text)


def _default_cache(environ: Mapping[str, str]) -> str:
    return str(Path(environ.get("XDG_CACHE_HOME") or "~/.cache") / "ratchet")
