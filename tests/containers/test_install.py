"""What the Dockerfile runs, in a bare root: no image, only this system's `/usr` and `/etc`.

The root is one of bubblewrap: empty but for them, the source and a package index. What an image
would show besides is the base image's own libraries; that nothing needs others than a slim Debian
has is looked up in the files that were installed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ratchet.errors import IsolationError
from ratchet.evaluation.code_execution.sandbox import bubblewrap
from tests.flows.prefect_home import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]
LINES = (ROOT / "containers" / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
SYSTEM = (
    *("--ro-bind", "/usr", "/usr", "--ro-bind", "/etc", "/etc"),
    *("--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"),
    *("--symlink", "usr/lib64", "/lib64", "--symlink", "usr/sbin", "/sbin"),
    *("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/var"),
    *("--clearenv", "--unshare-all", "--die-with-parent", "--new-session"),
)
SLIM = re.compile(
    r"linux-vdso|ld-linux|lib(c|m|dl|rt|pthread|util|resolv|gcc_s|stdc\+\+|z|crypt|ssl|crypto|sqlite3"
    r"|ffi|bz2|lzma|expat|uuid|nsl|tirpc)\.so"
)
"""Libraries of the image python:slim."""
ASK = """
import json, sys, time, urllib.request
body = {"model": "any", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
for _ in range(600):
    try:
        urllib.request.urlopen("http://127.0.0.1:8000/healthz").close()
        break
    except OSError:
        time.sleep(0.2)
asked = urllib.request.Request("http://127.0.0.1:8000/v1/chat/completions",
    json.dumps(body).encode(), {"content-type": "application/json"})
print("answered by", json.load(urllib.request.urlopen(asked, timeout=300))["model"])
"""


def environment() -> dict[str, str]:
    """Return the variables that the image sets."""
    (said,) = re.findall(r"^ENV (.*)$", LINES, re.M)
    pairs = dict(pair.split("=", 1) for pair in shlex.split(said))
    return pairs | {"PATH": pairs["PATH"].replace("$PATH", "/usr/bin:/bin")}


def index() -> tuple[dict[str, str], list[str]]:
    """Return where this machine's pip finds packages, as variables, and the files that it needs."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    told = {
        f"PIP_{name.upper().replace('-', '_')}": value.replace("\\n", " ").strip()
        for name, value in re.findall(r"^global\.([a-z-]+)='(.*)'$", listed, re.M)
    } | {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    told |= {
        name: os.environ[name] for name in ("HTTPS_PROXY", "SSL_CERT_FILE") if name in os.environ
    }
    words = [word.removeprefix("file://") for value in told.values() for word in value.split()]
    paths = [Path(word) for word in words if word.startswith("/") and Path(word).exists()]
    elsewhere = {str(path.parent) for path in paths if path.parts[1] not in ("usr", "etc")}
    return told, sorted(elsewhere)  # the folder above: an index leads to files beside its pages


class Bare:
    """A root with the source at `/src` and what is installed at the image's place."""

    def __init__(self, folder: Path) -> None:
        (run,) = re.findall(r"^RUN (/src/containers/install.sh .*)$", LINES, re.M)
        extras = re.findall(r"^ARG EXTRAS=(.*)$", LINES, re.M)[-1]
        script, source, target, *_ = shlex.split(run)
        self.command = [script, source, target, extras, ""]
        self.target, self.installed = target, folder / "installed"
        self.installed.mkdir()
        self.source = folder / "source"
        left_out = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "node_modules")
        shutil.copytree(ROOT, self.source, ignore=left_out)

    def run(
        self, command: Sequence[str], *options: str, variables: dict[str, str], how: str = "--bind"
    ) -> subprocess.CompletedProcess[str]:
        said = [word for name, value in variables.items() for word in ("--setenv", name, value)]
        # the tree on the way to the target is this system's: a folder on it is laid over
        return subprocess.run(
            [str(bubblewrap()), *SYSTEM, "--ro-bind", str(self.source), "/src",
             "--tmpfs", "/usr/local", how, str(self.installed), self.target,
             *options, *said, "--", *command],
            capture_output=True, text=True,
        )  # fmt: skip


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    try:
        bubblewrap()
    except IsolationError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("bare")
    made = Bare(folder)
    told, files = index()
    seen = [word for path in files for word in ("--ro-bind", path, path)]
    done = made.run(
        made.command, "--share-net", *seen,
        variables=told | {"PATH": "/usr/bin:/bin", "HOME": "/tmp"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "installed: ratchet " in done.stdout
    yield made
    shutil.rmtree(folder)


def test_what_is_installed_needs_no_library_that_a_slim_image_lacks(bare: Bare) -> None:
    own = {path.name for path in bare.installed.rglob("*.so*")}
    needed: dict[str, str] = {}
    for path in bare.installed.rglob("*.so*"):
        if path.is_symlink():
            continue
        said = subprocess.run(["objdump", "-p", str(path)], capture_output=True, text=True).stdout
        needed |= dict.fromkeys(re.findall(r"NEEDED\s+(\S+)", said), path.name)
    assert len(needed) > 10
    lacking = {
        name: path for name, path in needed.items() if name not in own and not SLIM.match(name)
    }
    assert lacking == {}


def test_the_image_answers_users_on_a_read_only_root_without_rights_or_network(bare: Bare) -> None:
    done = bare.run(
        ["sh", "-c", f"ratchet serve --local & python -c '{ASK}' && kill $!; ratchet doctor"],
        "--remount-ro", "/", "--tmpfs", "/var/lib/ratchet", "--tmpfs", "/var/cache/ratchet",
        "--uid", "10001", "--gid", "10001", "--chdir", "/var/lib/ratchet",
        variables=environment(), how="--ro-bind",
    )  # fmt: skip
    assert "answered by" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.parametrize(
    "command",
    [
        ["ratchet", "worker", "--help"],
        ["ratchet", "register", "--help"],
        ["python", "-P", "-m", "ratchet.web", "--help"],
        ["python", "-c", "import prefect_kubernetes, psycopg, s3fs, boto3"],
        ["mlflow", "server", "--help"],
    ],
)
def test_what_compose_and_the_chart_run_starts(bare: Bare, command: list[str]) -> None:
    done = bare.run(
        command, "--tmpfs", "/var/lib/ratchet", "--uid", "10001", "--gid", "10001",
        variables=environment(), how="--ro-bind",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
