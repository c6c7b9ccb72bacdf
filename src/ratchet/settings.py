"""Settings of one home folder: defaults, then `ratchet.toml`, then the environment.

Read by the flows, the command line and the gateway only; everything else takes arguments.

Environment:
    RATCHET_HOME: Folder that holds the store, Prefect's and MLflow's databases (`./.ratchet`).
    RATCHET_CACHE: Folder for converted models (the user's cache folder, `ratchet` inside).
    RATCHET_STORE_URL: SQLAlchemy URL of the event store (SQLite in the home folder).
    RATCHET_BASE_MODEL: `smollm2` or the path of a model in Hugging Face format.
    RATCHET_MODEL_NAME: Name in the model registry (`support-router`).
    MLFLOW_TRACKING_URI: An MLflow server to use instead of the home folder's.
    PREFECT_API_URL: A Prefect server to use instead of the home folder's.
    RATCHET_JUDGES: YAML file with judges, which the flow `analyze` validates and asks.
    RATCHET_EMBEDDING: What turns texts into vectors: `minilm`, `words` or the folder of a
        sentence-transformers model.
    RATCHET_TITLES: YAML file that says which language model gives failure clusters titles.
    RATCHET_SAFETY: YAML file with safety rules; the default rules without it.
    RATCHET_NOTIFY: Where alerts go: Apprise URLs, separated by spaces. They hold secrets.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ratchet.errors import SettingsError

_VARIABLES = {
    "RATCHET_STORE_URL": "store_url",
    "RATCHET_BASE_MODEL": "base_model",
    "RATCHET_MODEL_NAME": "model_name",
    "RATCHET_CACHE": "cache",
    "RATCHET_JUDGES": "judges",
    "RATCHET_SAFETY": "safety",
    "RATCHET_EMBEDDING": "embedding",
    "RATCHET_TITLES": "titles",
    "MLFLOW_TRACKING_URI": "tracking_uri",
    "PREFECT_API_URL": "prefect_api_url",
}


class Settings(BaseModel):
    """Where everything lies.

    Attributes:
        home: Absolute folder that holds all state.
        cache: Absolute folder for converted models, shared by homes.
        store_url: SQLAlchemy URL of the event store.
        tracking_uri: MLflow tracking URI.
        prefect_api_url: An external Prefect API, or None for the home's own server.
        base_model: `smollm2` or a local path in Hugging Face format.
        model_name: Name in the model registry.
        judges: YAML file with judges; none are asked without it.
        safety: YAML file with safety rules; the default rules without it.
        embedding: `minilm`, `words` or the folder of a sentence-transformers model.
        titles: YAML file with a model that gives titles; keywords name clusters without it.
        notify: Apprise URLs that alerts are sent to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path
    cache: Path
    store_url: str
    tracking_uri: str
    prefect_api_url: str | None = None
    base_model: str = "smollm2"
    model_name: str = "support-router"
    judges: Path | None = None
    safety: Path | None = None
    embedding: str = "minilm"
    titles: Path | None = None
    notify: tuple[str, ...] = ()

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


def load_settings(environ: Mapping[str, str], folder: Path) -> Settings:
    """Resolve the settings for the working folder `folder`.

    Args:
        environ: The environment, usually `os.environ`.
        folder: Where `ratchet.toml` and the default home are looked for.

    Returns:
        Frozen settings with absolute paths. Nothing is created on disk.

    Raises:
        SettingsError: `ratchet.toml` is not TOML, or holds an unknown or wrong setting.
    """
    values = _read_toml(folder / "ratchet.toml")
    home = _absolute(environ.get("RATCHET_HOME") or str(values.pop("home", ".ratchet")), folder)
    values.pop("home", None)
    for variable, name in _VARIABLES.items():
        if environ.get(variable):
            values[name] = environ[variable]
    if environ.get("RATCHET_NOTIFY"):
        values["notify"] = environ["RATCHET_NOTIFY"].split()
    values.setdefault("store_url", f"sqlite:///{home / 'store.db'}")
    values.setdefault("tracking_uri", f"sqlite:///{home / 'mlflow' / 'mlflow.db'}")
    cache = _absolute(str(values.pop("cache", _default_cache(environ))), folder)
    if values.get("base_model", "smollm2") != "smollm2":
        values["base_model"] = str(_absolute(str(values["base_model"]), folder))
    if values.get("embedding", "minilm") not in ("minilm", "words"):
        values["embedding"] = str(_absolute(str(values["embedding"]), folder))
    for name in ("judges", "safety", "titles"):
        named = values.get(name)
        if named == "":
            del values[name]
        elif isinstance(named, str):
            values[name] = _absolute(named, folder)
    for name in ("store_url", "tracking_uri"):
        values[name] = _absolute_sqlite(str(values[name]), folder)
    try:
        return Settings(home=home, cache=cache, **values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        known = ", ".join(Settings.model_fields)
        received = "" if name.startswith("notify") else f", got {first['input']!r}"  # a secret
        raise SettingsError(
            f"setting {name!r}: {first['msg']}{received}; known settings: {known}"
        ) from error


def _read_toml(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"ratchet.toml must be TOML in UTF-8, got: {error}; correct {path.name}"
        ) from error


def _absolute(path: str, folder: Path) -> Path:
    return (folder / Path(path).expanduser()).resolve()


def _absolute_sqlite(url: str, folder: Path) -> str:
    """Anchor a relative SQLite file, so that child processes elsewhere mean the same one."""
    prefix, file = "sqlite:///", url.removeprefix("sqlite:///")
    return url if not url.startswith(prefix) or not file else f"{prefix}{_absolute(file, folder)}"


def _default_cache(environ: Mapping[str, str]) -> str:
    return str(Path(environ.get("XDG_CACHE_HOME") or "~/.cache") / "ratchet")
