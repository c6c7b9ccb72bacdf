"""What child processes may import, ask and know; and what is never said to a model's loader."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ratchet.collect.second_process import in_second_process
from ratchet.gateway.options import GatewayOptions, heard_by_worker, told_to_worker
from ratchet.improve.training.launch import _run
from ratchet.processes import TOLD_FILE, is_secret, open_environment, python, safe_path, told
from ratchet.servers import Servers
from ratchet.settings import Settings, load_settings, loose, tighten
from tests.test_architecture import ROOT, Sources, dotted, read_sources, walked

LOADERS = {"from_pretrained", "from_config", "pipeline", "SentenceTransformer"}
"""What may run code of a model. `load_dataset` of datasets 4 and later runs none, and refuses the
option."""
WITHOUT_CODE = {"PeftModel"}
"""Loads adapters' weights into a model that is there; it takes no such option."""
STARTERS = {"Popen", "run", "check_output", "check_call", "call"}
SECRET = "s3cr3t-of-this-test"


# What the source says -----------------------------------------------------------------------------


def calls(sources: Sources) -> Iterator[tuple[str, ast.Call]]:
    for module, source in sources.items():
        for node in walked(source):
            if isinstance(node, ast.Call):
                yield f"{module}:{node.lineno}", node


def called(node: ast.Call) -> list[str]:
    return dotted(node.func).split(".")


def keyword(node: ast.Call, name: str) -> object:
    return next((ast.unparse(item.value) for item in node.keywords if item.arg == name), None)


def trusting(sources: Sources) -> list[str]:
    """Return the loaders of models, tokenizers and data sets that leave code of theirs open."""
    return [
        f"{place}: {'.'.join(called(node))} must say trust_remote_code=False"
        for place, node in calls(sources)
        if called(node)[-1] in LOADERS
        and not WITHOUT_CODE & set(called(node))
        and keyword(node, "trust_remote_code") != "False"
    ]


def asking(sources: Sources) -> list[str]:
    """Return what asks on standard input, or starts a process that could."""
    found = []
    for place, node in calls(sources):
        name = called(node)
        if name in (["input"], ["getpass", "getpass"], ["typer", "prompt"], ["typer", "confirm"]):
            found.append(f"{place}: asks on standard input")
        if name[0] == "subprocess" and name[-1] in STARTERS and keyword(node, "stdin") is None:
            found.append(f"{place}: a process must be started with its stdin")
    return found


def importing_here(sources: Sources) -> list[str]:
    """Return what starts this Python without `ratchet.processes.python`."""
    return [
        f"{module}: use ratchet.processes.python"
        for module, source in sources.items()
        if re.search(r"sys\.executable,\s*\"-[mc]\"", source)
    ]


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    found = read_sources()
    for path in (ROOT / "tests" / "benchmarks").glob("*.py"):
        found[f"tests.benchmarks.{path.stem}"] = path.read_text("utf-8")
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        found[path.name] = re.sub(r"(?m)^[%!].*$", "", "\n".join(code))
    return found


def test_every_loader_of_a_model_says_that_no_code_of_it_is_run(sources: Sources) -> None:
    assert trusting(sources) == []
    loaders = [node for _, node in calls(sources) if called(node)[-1] in LOADERS]
    assert len(loaders) >= 10, "the loaders were seen"


def test_nothing_but_the_command_of_questions_asks_on_standard_input(sources: Sources) -> None:
    library = {name: text for name, text in sources.items() if name.startswith("ratchet")}
    found = asking(library)
    assert [place for place in found if not place.startswith("ratchet.cli.init:")] == []
    assert any(place.startswith("ratchet.cli.init:") for place in found)


def test_every_process_of_this_python_is_started_safely(sources: Sources) -> None:
    library = {name: text for name, text in sources.items() if name.startswith("ratchet")}
    assert importing_here(library) == []


@pytest.mark.parametrize(
    ("check", "planted"),
    [
        (trusting, "AutoModel.from_pretrained(x)"),
        (trusting, "AutoModel.from_pretrained(x, trust_remote_code=True)"),
        (trusting, "AutoModel.from_pretrained(x, trust_remote_code=said)"),
        (trusting, "transformers.pipeline('text-generation')"),
        (asking, "input('go on?')"),
        (asking, "subprocess.run(['x'])"),
        (importing_here, 'Popen([sys.executable, "-m", "x"])'),
    ],
)
def test_a_planted_violation_is_found(check: object, planted: str) -> None:
    assert len(check({"ratchet.x": planted})) == 1  # type: ignore[operator]


# The import path ----------------------------------------------------------------------------------

HOSTILE = "import pathlib, os\npathlib.Path(os.environ['PLANTED']).touch()\nraise SystemExit(3)\n"
MODULES = ("json", "ratchet", "socket", "uvicorn", "torch", "accelerate", "logging", "pickle")


@pytest.fixture
def hostile_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with modules that tell when they are imported."""
    for name in MODULES:
        (tmp_path / f"{name}.py").write_text(HOSTILE, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLANTED", str(tmp_path / "imported"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", ".", str(ROOT / "src")]))
    yield tmp_path
    assert not (tmp_path / "imported").exists()


def test_the_folder_would_be_imported_from_without_precautions(
    hostile_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH")
    subprocess.run([sys.executable, "-m", "json.tool", "--help"], check=False)
    assert (hostile_folder / "imported").exists()
    (hostile_folder / "imported").unlink()


def test_a_gateway_worker_imports_nothing_from_the_current_folder(hostile_folder: Path) -> None:
    code = "import sys, json, ratchet.gateway.worker; print(json.__file__, sys.path)"
    done = subprocess.run(
        python("-c", code),
        env=open_environment(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(hostile_folder) not in done.stdout


def test_a_training_child_imports_nothing_from_the_current_folder_and_knows_no_secret(
    hostile_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_BACKEND_KEY", SECRET)
    monkeypatch.setenv("RATCHET_STORE_URL", f"postgresql://u:{SECRET}@host/db")
    # what accelerate starts in turn is a Python that is told no option, only the environment
    code = (
        "import subprocess, sys; print(open('/proc/self/environ').read()); sys.stdout.flush();"
        "subprocess.run([sys.executable, '-m', 'json.tool', '--help'],"
        " stdin=subprocess.DEVNULL, check=True)"
    )
    log = hostile_folder / "child.log"
    _run(python("-c", code), log)
    assert "PATH=" in log.read_text("utf-8")
    assert SECRET not in log.read_text("utf-8")


def items(count: int) -> Iterator[int]:
    yield from range(count)


def test_a_second_process_imports_nothing_from_the_current_folder(hostile_folder: Path) -> None:
    assert list(in_second_process(items, 3)) == [0, 1, 2]


def test_empty_entries_of_the_import_path_are_dropped() -> None:
    kept = safe_path({"PYTHONPATH": os.pathsep.join(["", "/a", ".", "/b", ""])})
    assert kept["PYTHONPATH"] == os.pathsep.join(["/a", "/b"])


# Secrets ------------------------------------------------------------------------------------------

SECRETS = {
    "RATCHET_BACKEND_KEY": "x", "RATCHET_FALLBACK_KEY": "x", "OPENAI_API_KEY": "x",
    "JUDGE_KEY": "x", "HF_TOKEN": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_SESSION_TOKEN": "x",
    "PGPASSWORD": "x", "RATCHET_NOTIFY": "slack://a/b/c", "DB_PASSWORD": "x",
    "GOOGLE_APPLICATION_CREDENTIALS": "x", "AZURE_STORAGE_SAS": "x", "SENTRY_DSN": "x",
    "RATCHET_STORE_URL": "postgresql://user:word@host/db", "HTTPS_PROXY": "http://u:p@proxy:1",
}  # fmt: skip
PLAIN = {
    "PATH": "/bin", "HOME": "/x", "RATCHET_HOME": "/x", "TOKENIZERS_PARALLELISM": "false",
    "RATCHET_BACKEND_KEY_FILE": "/run/secrets/key", "RATCHET_STORE_URL": "sqlite:///x.db",
    "KEYBOARD": "de", "MONKEY": "1", "RATCHET_BACKEND": "http://host:1", "PWD": "/x",
    "NOTIFY_SOCKET_NAME": "",
}  # fmt: skip


def test_secrets_are_told_from_other_variables() -> None:
    assert [name for name, value in SECRETS.items() if not is_secret(name, value)] == []
    assert [name for name, value in PLAIN.items() if is_secret(name, value)] == []


def test_a_worker_hears_its_options_and_the_secrets_that_its_environment_lacks(
    tmp_path: Path,
) -> None:
    settings = settings_of({"RATCHET_HOME": str(tmp_path)}, tmp_path)
    options = GatewayOptions(settings=settings, backend_key=SECRET)
    environ = {"PGPASSWORD": "word", "PATH": "/bin"}
    heard, secrets = heard_by_worker(told_to_worker(options, environ))
    assert heard == options
    assert secrets == {"PGPASSWORD": "word"}
    assert "PGPASSWORD" not in open_environment(environ)


def test_no_secret_stands_in_the_environment_or_the_command_of_a_gateways_processes(
    tmp_path: Path,
) -> None:
    if not Path("/proc/self/environ").exists():
        pytest.skip("reads /proc, which this system does not have")
    (tmp_path / "key").write_text(f"{SECRET}\n", "utf-8")
    environment = open_environment(os.environ) | {
        "RATCHET_HOME": str(tmp_path / "home"),
        "RATCHET_BACKEND_KEY_FILE": str(tmp_path / "key"),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
    }
    command = python("-m", "ratchet.cli", "serve", "--port", "0")
    command += ["--backend", "http://127.0.0.1:9", "--workers", "1"]
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as gateway:
        try:
            worker = child_of(gateway.pid)
            shown = wait_for_environment(worker)
            for pid in (gateway.pid, worker):
                assert SECRET not in Path(f"/proc/{pid}/cmdline").read_text("utf-8")
            assert SECRET not in shown
            assert "RATCHET_HOME" in shown
        finally:
            gateway.terminate()
    for path in (tmp_path / "home", *(tmp_path / "home").rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, f"{path} is open to others"


def child_of(pid: int) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()
        for child in children:
            if "gateway.worker" in Path(f"/proc/{child}/cmdline").read_text("utf-8"):
                return int(child)
        time.sleep(0.05)
    raise AssertionError("the gateway started no worker")


def wait_for_environment(pid: int) -> str:
    return Path(f"/proc/{pid}/environ").read_text("utf-8")


PLANTED = """
import json, os, sys
from pathlib import Path
shown = Path("/proc/self/environ").read_text() if Path("/proc/self/environ").exists() else ""
print(json.dumps([os.environ.get("HF_TOKEN"), "HF_TOKEN" in shown, __name__, sys.argv[1:]]))
"""


def test_a_module_finds_what_it_was_told_by_file_and_its_environment_does_not_show_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "planted.py").write_text(PLANTED, "utf-8")
    (tmp_path / "told.json").write_text(json.dumps({"HF_TOKEN": SECRET}), "utf-8")
    environment = open_environment({**os.environ, "HF_TOKEN": SECRET}) | {
        TOLD_FILE: str(tmp_path / "told.json"),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(tmp_path)]),
    }
    done = subprocess.run(
        told("planted", "one", "two"), env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == [SECRET, False, "__main__", ["one", "two"]]


def test_a_process_that_was_told_nothing_runs_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(PLANTED, "utf-8")
    environment = open_environment(os.environ) | {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(tmp_path)])
    }
    done = subprocess.run(
        told("planted"), env=environment, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == [None, False, "__main__", []]


def test_servers_keep_their_own_secrets_and_no_others() -> None:
    environ = {"PREFECT_API_KEY": "p", "RATCHET_NOTIFY": "n", "MLFLOW_TRACKING_TOKEN": "m"}
    kept = open_environment({**environ, "LANG": "C"}, but=("PREFECT_",))
    assert set(kept) == {"PREFECT_API_KEY", "LANG", "PYTHONSAFEPATH"}


@pytest.mark.slow
def test_what_runs_flows_is_told_by_a_file_of_the_owner_alone_that_goes_at_the_end(
    tmp_path: Path,
) -> None:
    environ = {"RATCHET_HOME": str(tmp_path / "home"), "RATCHET_NOTIFY": f"json://u:{SECRET}@h/"}
    settings = load_settings(environ, tmp_path)
    servers = Servers(settings=settings, say=print)
    servers.start_prefect(port=1, environ={**environ, "PREFECT_API_URL": "http://127.0.0.1:9/api"})
    ended = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.DEVNULL)
    ended.wait()
    left = Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else settings.home)
    left = left / f"ratchet-told-{ended.pid}-killed"
    left.mkdir()
    found = tmp_path / "found.json"
    script = (
        "import json, os, sys; from pathlib import Path;"
        "from ratchet.settings import load_settings;"
        "told = Path(os.environ['RATCHET_TOLD_FILE']);"
        "said = load_settings(os.environ, Path('.')).notify;"
        "mode = told.stat().st_mode & 0o777, told.parent.stat().st_mode & 0o777;"
        f"json.dump([said, mode, str(told)], open({str(found)!r}, 'w'))"
    )
    (tmp_path / "planted.py").write_text(script, "utf-8")
    servers._environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(tmp_path)])
    assert servers.run(["planted"]) == 0
    said, modes, place = json.loads(found.read_text("utf-8"))
    assert said == [f"json://u:{SECRET}@h/"]
    assert modes == [0o600, 0o700]
    assert Path(place).exists()
    assert not left.exists(), "of a process that was killed"
    servers.stop()
    assert not Path(place).parent.exists()


# The home -----------------------------------------------------------------------------------------


def settings_of(environ: Mapping[str, str], folder: Path) -> Settings:
    return load_settings(environ, folder)


def test_a_setting_is_read_from_the_file_that_its_variable_names(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://u:word@host/db\n", "utf-8")
    environ = {"RATCHET_STORE_URL_FILE": str(tmp_path / "url")}
    assert settings_of(environ, tmp_path).store_url == "postgresql://u:word@host/db"
    stated = environ | {"RATCHET_STORE_URL": "sqlite:///x.db"}
    assert settings_of(stated, tmp_path).store_url.startswith("sqlite")


def test_an_old_home_is_closed_to_others_when_it_is_opened(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "mlflow").mkdir(parents=True)
    (home / "mlflow" / "mlflow.db").touch()
    (tmp_path / "outside").touch(mode=0o644)
    (home / "link").symlink_to(tmp_path / "outside")
    script = home / "script"
    script.touch()
    for path, mode in ((home, 0o755), (home / "mlflow", 0o775), (script, 0o754)):
        path.chmod(mode)
    (home / "mlflow" / "mlflow.db").chmod(0o644)
    settings_of({"RATCHET_HOME": str(home)}, tmp_path).make_home()
    modes = {path.name: path.stat().st_mode & 0o777 for path in (home, *home.rglob("*"))}
    assert modes == {"home": 0o700, "mlflow": 0o700, "mlflow.db": 0o600, "script": 0o700} | {
        "link": (tmp_path / "outside").stat().st_mode & 0o777
    }
    assert (tmp_path / "outside").stat().st_mode & 0o004, "what a link leads to is left alone"
    assert list(loose(home)) == []
    assert tighten(home) == []
