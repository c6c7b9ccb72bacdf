"""Where the settings come from and which source wins."""

from __future__ import annotations

import json
import os
import traceback
from pathlib import Path

import pytest
from pydantic import ValidationError

from ratchet.errors import SettingsError
from ratchet.settings import VARIABLES, Settings, load_settings, remember


def toml(folder: Path, *lines: str) -> Path:
    (folder / "ratchet.toml").write_text("\n".join(lines), "utf-8")
    return folder


def everything(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_without_file_and_environment_everything_lies_in_the_home_folder(tmp_path: Path) -> None:
    settings = load_settings({"XDG_CACHE_HOME": "/caches"}, tmp_path)
    home = tmp_path / ".ratchet"
    assert settings.home == home
    assert settings.store_url == f"sqlite:///{home}/store.db"
    assert settings.history == str(home / "history")
    assert settings.tracking_uri == f"sqlite:///{home}/mlflow/mlflow.db"
    assert settings.artifacts == home / "mlflow" / "artifacts"
    assert settings.prefect_home == home / "prefect"
    assert settings.servers_file == home / "servers.json"
    assert settings.cache == Path("/caches/ratchet")
    assert settings.prefect_api_url is None
    assert settings.base_model == "smollm2"
    assert settings.model_name == "support-router"


def test_without_an_xdg_folder_the_cache_lies_in_the_users_own(tmp_path: Path) -> None:
    expected = (Path.home() / ".cache" / "ratchet").resolve()
    assert load_settings({}, tmp_path).cache == expected
    assert load_settings({"XDG_CACHE_HOME": ""}, tmp_path).cache == expected


def test_the_file_replaces_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "models" / "tiny").mkdir(parents=True)  # else it would be an id of the Hub
    toml(
        tmp_path,
        'home = "state"',
        'cache = "models"',
        'store_url = "postgresql+psycopg://ada@db/ratchet"',
        'tracking_uri = "http://mlflow:5000"',
        'prefect_api_url = "http://prefect:4200/api"',
        'base_model = "models/tiny"',
        'model_name = "router"',
    )
    settings = load_settings({}, tmp_path)
    assert settings.home == tmp_path / "state"
    assert settings.cache == tmp_path / "models"
    assert settings.store_url == "postgresql+psycopg://ada@db/ratchet"
    assert settings.tracking_uri == "http://mlflow:5000"
    assert settings.prefect_api_url == "http://prefect:4200/api"
    assert settings.base_model == str(tmp_path / "models" / "tiny")
    assert settings.model_name == "router"


@pytest.mark.parametrize(
    ("variable", "name", "value"),
    [
        ("RATCHET_HOME", "home", "/from/environment"),
        ("RATCHET_CACHE", "cache", "/from/environment"),
        ("RATCHET_STORE_URL", "store_url", "postgresql://environment/ratchet"),
        ("RATCHET_BASE_MODEL", "base_model", "/from/environment"),
        ("RATCHET_MODEL_NAME", "model_name", "environment"),
        ("MLFLOW_TRACKING_URI", "tracking_uri", "http://environment"),
        ("PREFECT_API_URL", "prefect_api_url", "http://environment"),
        ("RATCHET_JUDGES", "judges", "/from/environment"),
    ],
)
def test_the_environment_wins_over_the_file(
    tmp_path: Path, variable: str, name: str, value: str
) -> None:
    toml(tmp_path, f'{name} = "/from/file"')
    assert str(getattr(load_settings({variable: value}, tmp_path), name)) == value
    assert str(getattr(load_settings({variable: ""}, tmp_path), name)) == "/from/file"


def test_addresses_for_alerts_come_from_the_environment_separated_by_spaces(tmp_path: Path) -> None:
    assert load_settings({}, tmp_path).notify == ()
    environ = {"RATCHET_NOTIFY": " json://127.0.0.1/a  slack://b/c/d\nmailtos://e@f "}
    assert load_settings(environ, tmp_path).notify == (
        "json://127.0.0.1/a", "slack://b/c/d", "mailtos://e@f"
    )  # fmt: skip


def test_addresses_for_alerts_are_a_list_in_the_file_and_the_environment_wins(
    tmp_path: Path,
) -> None:
    toml(tmp_path, 'notify = ["json://127.0.0.1/a b", "slack://b/c/d"]')
    assert load_settings({}, tmp_path).notify == ("json://127.0.0.1/a b", "slack://b/c/d")
    assert load_settings({"RATCHET_NOTIFY": ""}, tmp_path).notify[1] == "slack://b/c/d"
    assert load_settings({"RATCHET_NOTIFY": "json://c"}, tmp_path).notify == ("json://c",)


@pytest.mark.parametrize("line", ["notify = 5", "notify = [5]", "notify = {a = 1}"])
def test_addresses_for_alerts_that_are_no_list_of_texts_are_refused(
    tmp_path: Path, line: str
) -> None:
    with pytest.raises(SettingsError, match="setting 'notify"):
        load_settings({}, toml(tmp_path, line))


def test_an_address_for_alerts_that_is_refused_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="setting 'notify'") as refused:
        load_settings({}, toml(tmp_path, 'notify = "slack://secret"'))
    assert "secret" not in str(refused.value)


def test_the_databases_follow_the_home_folder(tmp_path: Path) -> None:
    settings = load_settings({"RATCHET_HOME": "elsewhere"}, toml(tmp_path, 'home = "state"'))
    assert settings.store_url == f"sqlite:///{tmp_path}/elsewhere/store.db"
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/elsewhere/mlflow/mlflow.db"


def test_relative_paths_are_anchored_in_the_working_folder(tmp_path: Path) -> None:
    environ = {
        "RATCHET_HOME": "../state",
        "RATCHET_CACHE": "cache",
        "RATCHET_STORE_URL": "sqlite:///data/events.db",
        "MLFLOW_TRACKING_URI": "sqlite:///./runs.db",
        "RATCHET_BASE_MODEL": "./models/tiny",
    }
    settings = load_settings(environ, tmp_path / "work")
    assert settings.home == tmp_path / "state"
    assert settings.cache == tmp_path / "work" / "cache"
    assert settings.store_url == f"sqlite:///{tmp_path}/work/data/events.db"
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/work/runs.db"
    assert settings.base_model == str(tmp_path / "work" / "models" / "tiny")


def test_a_relative_database_file_is_anchored_whatever_its_driver(tmp_path: Path) -> None:
    settings = load_settings({"RATCHET_STORE_URL": "sqlite+pysqlite:///data/x.db"}, tmp_path)
    assert settings.store_url == f"sqlite+pysqlite:///{tmp_path}/data/x.db"
    assert load_settings({"RATCHET_STORE_URL": "sqlite://"}, tmp_path).store_url == "sqlite://"


def test_absolute_paths_and_addresses_stay_as_they_are(tmp_path: Path) -> None:
    environ = {
        "RATCHET_STORE_URL": "sqlite:////data/events.db",
        "MLFLOW_TRACKING_URI": "https://mlflow.example/x",
    }
    settings = load_settings(environ, tmp_path)
    assert settings.store_url == "sqlite:////data/events.db"
    assert settings.tracking_uri == "https://mlflow.example/x"


def test_a_tilde_is_the_users_folder(tmp_path: Path) -> None:
    settings = load_settings({"RATCHET_HOME": "~/loops"}, tmp_path)
    assert settings.home == (Path.home() / "loops").resolve()


def test_a_relative_working_folder_still_gives_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings({}, Path())
    assert settings.home == tmp_path / ".ratchet"
    assert settings.store_url == f"sqlite:///{tmp_path}/.ratchet/store.db"


def test_an_unknown_setting_is_named_with_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"'colour'.*got 'blue'.*home, cache, store_url"):
        load_settings({}, toml(tmp_path, 'colour = "blue"'))
    with pytest.raises(SettingsError, match="'ratchet'"):
        load_settings({}, toml(tmp_path, "[ratchet]", 'home = "x"'))


def test_a_setting_of_the_wrong_type_is_named_with_its_value(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"'model_name'.*valid string, got 5"):
        load_settings({}, toml(tmp_path, "model_name = 5"))


@pytest.mark.parametrize("content", [b"home = ", b"home = 'a'\nhome = 'b'", b"home = '\xff'"])
def test_a_file_that_is_not_toml_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ratchet.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=r"ratchet\.toml must be TOML in UTF-8, got: "):
        load_settings({}, tmp_path)


def test_an_empty_file_is_the_same_as_none(tmp_path: Path) -> None:
    without = load_settings({}, tmp_path)
    assert load_settings({}, toml(tmp_path)) == without


def test_nothing_is_created_on_disk(tmp_path: Path) -> None:
    load_settings({"RATCHET_HOME": "state", "RATCHET_CACHE": "cache"}, tmp_path)
    assert everything(tmp_path) == []
    load_settings({}, toml(tmp_path, 'store_url = "sqlite:///deep/down/x.db"'))
    assert everything(tmp_path) == [tmp_path / "ratchet.toml"]


def test_neither_the_environment_nor_the_settings_are_changed(tmp_path: Path) -> None:
    environ = {"RATCHET_HOME": "state"}
    settings = load_settings(environ, tmp_path)
    assert environ == {"RATCHET_HOME": "state"}
    with pytest.raises(ValidationError, match="frozen"):
        settings.model_name = "another"  # type: ignore[misc]


def test_without_a_file_of_judges_there_are_none(tmp_path: Path) -> None:
    assert load_settings({}, tmp_path).judges is None
    assert load_settings({"RATCHET_JUDGES": ""}, tmp_path).judges is None


def test_the_file_of_judges_lies_in_the_working_folder_unless_its_path_is_absolute(
    tmp_path: Path,
) -> None:
    assert load_settings({"RATCHET_JUDGES": "judges.yaml"}, tmp_path).judges == (
        tmp_path / "judges.yaml"
    )
    toml(tmp_path, 'judges = "config/judges.yaml"')
    assert load_settings({}, tmp_path).judges == tmp_path / "config" / "judges.yaml"
    assert load_settings({"RATCHET_JUDGES": "/etc/judges.yaml"}, tmp_path).judges == Path(
        "/etc/judges.yaml"
    )
    assert not (tmp_path / "config").exists()


@pytest.mark.parametrize("value", ["5", "true", '["a.yaml"]'])
def test_a_file_of_judges_that_is_no_path_is_refused(tmp_path: Path, value: str) -> None:
    toml(tmp_path, f"judges = {value}")
    with pytest.raises(SettingsError, match="judges"):
        load_settings({}, tmp_path)


def test_an_empty_file_name_of_judges_is_none(tmp_path: Path) -> None:
    toml(tmp_path, 'judges = ""')
    assert load_settings({}, tmp_path).judges is None


@pytest.mark.parametrize("address", ["s3://bucket/history", "gs://b", "memory://history"])
def test_an_address_of_history_stays_as_it_is(tmp_path: Path, address: str) -> None:
    assert load_settings({"RATCHET_HISTORY": address}, tmp_path).history == address


def test_a_folder_of_history_is_taken_from_where_the_settings_are(tmp_path: Path) -> None:
    toml(tmp_path, 'history = "../kept"')
    assert load_settings({}, tmp_path).history == str((tmp_path / ".." / "kept").resolve())


# Every setting ------------------------------------------------------------------------------------

GIVEN = {
    "home": "/a/home",
    "cache": "/a/cache",
    "store_url": "postgresql+psycopg://ada:open-sesame@db/ratchet",
    "store_id": "0123456789abcdef",
    "history": "s3://bucket/history",
    "tracking_uri": "https://grace:open-sesame@mlflow.example",
    "prefect_api_url": "https://prefect.example/api",
    "base_model": "/models/tiny",
    "chat_template": "hermes",
    "model_name": "router",
    "judges": "/etc/judges.yaml",
    "safety": "/etc/safety.yaml",
    "review": "/etc/review.yaml",
    "embedding": "words",
    "executor": "processes:2",
    "results": "prefect:remote-file-system/results",
    "titles": "/etc/titles.yaml",
    "retention": "/etc/retention.yaml",
    "prices": "/etc/prices.yaml",
    "not_derived": ["left", "visit_seconds"],
    "deployments": "/etc/deployments.yaml",
    "pages": "/etc/pages.yaml",
    "alerts": "/etc/alerts.yaml",
    "approvers": ["Ana Lima", "bob"],
    "notify": ["json://127.0.0.1/a b", "slack://open-sesame"],
    "backend": ["http://127.0.0.1:8001", "http://127.0.0.1:8002"],
    "log_format": "json",
    "log_level": "info",
    "traces": "https://collector.example:4318",
    "traces_content": True,
    "adapter_root": "/srv/adapters",
    "backend_adapter_root": "/models/adapters",
}
"""A value for each setting that is not its default."""


def written(folder: Path, values: dict[str, object]) -> Path:
    return toml(folder, *(f"{name} = {json.dumps(value)}" for name, value in values.items()))


def test_a_value_is_at_hand_here_for_every_setting(tmp_path: Path) -> None:
    assert set(GIVEN) == set(Settings.model_fields) == set(VARIABLES)
    given, default = load_settings({}, written(tmp_path, GIVEN)), load_settings({}, Path("/"))
    for name in Settings.model_fields:
        assert getattr(given, name) != getattr(default, name), name


@pytest.mark.parametrize("name", sorted(VARIABLES))
def test_every_setting_can_be_given_by_file_or_by_environment(tmp_path: Path, name: str) -> None:
    by_file = load_settings({}, written(tmp_path, {name: GIVEN[name]}))
    text = GIVEN[name] if isinstance(GIVEN[name], str) else json.dumps(GIVEN[name])
    (tmp_path / "ratchet.toml").unlink()
    assert getattr(load_settings({VARIABLES[name]: text}, tmp_path), name) == getattr(by_file, name)


def test_the_environment_of_settings_reads_back_as_the_same_settings_anywhere(
    tmp_path: Path,
) -> None:
    mine, elsewhere = tmp_path / "mine", tmp_path / "elsewhere"
    for folder in (mine, elsewhere):
        folder.mkdir()
    written(elsewhere, GIVEN)
    for some in ({}, GIVEN, {"judges": "judges.yaml"}, {"notify": ["json://[::1]/"]}):
        settings = load_settings({}, written(mine, some))
        told = {"RATCHET_SETTINGS"} | (
            {"PREFECT_DEFAULT_RESULT_STORAGE_BLOCK"} if settings.results else set()
        )
        assert set(settings.environment()) == {*VARIABLES.values(), *told}
        assert load_settings(settings.environment(), elsewhere) == settings


@pytest.mark.parametrize(
    ("line", "near"),
    [
        ('judge = "a.yaml"', "judges"),
        ('store-url = "sqlite:///x.db"', "store_url"),
        ('Home = "x"', "home"),
        ('tracking_url = "http://x"', "tracking_uri"),
    ],
)
def test_a_setting_that_is_misspelt_is_told_with_the_nearest_name(
    tmp_path: Path, line: str, near: str
) -> None:
    with pytest.raises(SettingsError, match=rf"did you mean '{near}'\? known settings: home, "):
        load_settings({}, toml(tmp_path, line))


@pytest.mark.parametrize(
    "line",
    [
        'notifi = ["slack://open-sesame"]',
        'notify = "open-sesame"',
        'notify = ["slack://a", 5, "open-sesame"]',
        'store_ur = "postgresql://ada:open-sesame@db/x"',
        'colour = "https://open-sesame@x"',
    ],
)
def test_a_secret_is_in_no_error(tmp_path: Path, line: str) -> None:
    with pytest.raises(SettingsError, match="setting '") as refused:
        load_settings({}, toml(tmp_path, line))
    told = "".join(traceback.format_exception(refused.value))
    assert "open-sesame" not in told.replace(line, "")


def test_a_secret_is_in_no_repr(tmp_path: Path) -> None:
    settings = load_settings({}, written(tmp_path, GIVEN))
    assert "open-sesame" not in f"{settings!r} {settings}"
    assert "postgresql+psycopg://ada:***@db/ratchet" in repr(settings)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("home = 5", r"'home': .*got 5; correct it in ratchet.toml or RATCHET_HOME"),
        ("embedding = false", r"'embedding': .*got False; .*RATCHET_EMBEDDING"),
        ("store_url = 1.5", r"'store_url': .*got 1.5; .*RATCHET_STORE_URL"),
        ('titles = "~nobody-has-this-name/t.yaml"', r"'titles' must be a path .*RATCHET_TITLES"),
        ('safety = "a\\u0000b"', r"'safety' must be a path .*null byte.*RATCHET_SAFETY"),
    ],
)
def test_a_wrong_setting_is_told_with_its_value_and_the_way_out(
    tmp_path: Path, line: str, expected: str
) -> None:
    with pytest.raises(SettingsError, match=expected):
        load_settings({}, toml(tmp_path, line))


# Folders ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["home", "cache"])
@pytest.mark.parametrize("below", ["", "deep/down"])
def test_a_folder_that_is_a_file_or_lies_below_one_is_refused(
    tmp_path: Path, name: str, below: str
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=rf"'{name}' .*a file at .*set RATCHET_{name.upper()}"):
        load_settings({f"RATCHET_{name.upper()}": f"file/{below}"}, tmp_path)


def test_a_home_is_made_once_and_may_be_there_already(tmp_path: Path) -> None:
    settings = load_settings({"RATCHET_HOME": "deep/down"}, tmp_path)
    settings.make_home()
    settings.make_home()
    assert settings.home.is_dir()


def test_a_home_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    settings = load_settings({"RATCHET_HOME": "file/home"}, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"'home' .*set RATCHET_HOME to another one"):
        settings.make_home()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_without_the_permission_to_write_is_one_clear_error(tmp_path: Path) -> None:
    settings = load_settings({"RATCHET_HOME": "home"}, tmp_path)
    settings.home.mkdir(mode=0o500)
    with pytest.raises(SettingsError, match="no permission to write there; set RATCHET_HOME"):
        settings.make_home()


# What the home remembers --------------------------------------------------------------------------


def test_what_the_home_remembers_comes_before_the_defaults_and_after_all_else(
    tmp_path: Path,
) -> None:
    settings = load_settings({}, tmp_path)
    told = remember(settings, backend=["http://a:1", "http://b:1"], model_name="shop")
    assert (told.backend, told.model_name) == (("http://a:1", "http://b:1"), "shop")
    assert load_settings({}, tmp_path) == told
    toml(tmp_path, 'backend = ["http://c:1"]')
    assert load_settings({}, tmp_path).backend == ("http://c:1",)
    environ = {"RATCHET_BACKEND": "http://d:1 http://e:1", "RATCHET_MODEL_NAME": "desk"}
    found = load_settings(environ, tmp_path)
    assert (found.backend, found.model_name) == (("http://d:1", "http://e:1"), "desk")
    assert remember(settings, backend=None).model_name == "support-router"
    (tmp_path / "ratchet.toml").unlink()
    assert load_settings({}, tmp_path).backend == ()


def test_the_home_remembers_where_adapters_lie_for_the_backend(tmp_path: Path) -> None:
    settings = load_settings({}, tmp_path)
    told = remember(settings, adapter_root=tmp_path / "mine", backend_adapter_root="/theirs")
    assert (told.adapter_root, told.backend_adapter_root) == (tmp_path / "mine", "/theirs")
    assert load_settings({}, tmp_path) == told
    assert load_settings(told.environment(), tmp_path / "elsewhere") == told
    with pytest.raises(SettingsError, match="backend_adapter_root"):
        load_settings({"RATCHET_BACKEND_ADAPTER_ROOT": "adapters"}, tmp_path)


def test_a_child_process_reads_what_the_home_remembers_though_it_was_written_later(
    tmp_path: Path,
) -> None:
    before = load_settings({}, tmp_path)
    given = before.environment()
    remember(before, model_name="shop", backend=["http://a:1"])
    found = load_settings(given, tmp_path / "elsewhere")
    assert (found.model_name, found.backend) == ("shop", ("http://a:1",))
    stated = load_settings(
        {"RATCHET_MODEL_NAME": "desk", "RATCHET_BACKEND": "http://b:1"}, tmp_path
    )
    found = load_settings(stated.environment(), tmp_path / "elsewhere")
    assert (found.model_name, found.backend) == ("desk", ("http://b:1",))


@pytest.mark.parametrize("content", ["{", "[]", '"home"'])
def test_a_file_that_the_home_cannot_read_is_named(tmp_path: Path, content: str) -> None:
    home = load_settings({}, tmp_path).home
    home.mkdir()
    (home / "home.json").write_text(content)
    with pytest.raises(SettingsError, match=r"home\.json.*ratchet adopt"):
        load_settings({}, tmp_path)
