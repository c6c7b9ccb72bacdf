"""What a command line must not take: one line, exit code 2, no traceback."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from ratchet.cli.shared import finite
from ratchet.store import EventStore
from tests.cli.in_process import run_main
from tests.cli.test_help import COMMANDS


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def refused(words: list[str], monkeypatch: Any, capsys: Any) -> str:
    """The one line that a command line ends with."""
    monkeypatch.setattr(sys, "argv", ["ratchet", *words])
    with pytest.raises(SystemExit) as end:
        run_main()
    out, err = capsys.readouterr()
    assert end.value.code == 2, (out, err)
    assert "Traceback" not in err
    (line,) = err.splitlines()
    assert line.startswith("ratchet: ")
    return str(line)


LONG = "x" * 201
CASES = {
    "no name for a key": (["keys", "create", ""], "name of its application"),
    "a blank name for a key": (["keys", "create", " \t"], "APPLICATION must be one line"),
    "a long name for a key": (["keys", "create", LONG], "at most 200 printable characters"),
    "a newline in a name": (["keys", "create", "a\nb"], r"'a\\nb'"),
    "an escape in a name": (["keys", "create", "a\x1b[2J"], "one line"),
    "half a character in a name": (["keys", "create", "a\udce9"], "one line"),
    "a newline in who decides": (["rollback", "--by", "ada\nbob"], "--by must be one line"),
    "a long name of who decides": (["review", "--by", LONG], "--by must be one line"),
    "half a character in a note": (["alerts", "--note", "\udcff"], "--note must be UTF-8"),
    "half a character in a reason": (["approve", "--reason", "\udcff"], "--reason must be UTF-8"),
    "an endless rate of a key": (["keys", "create", "shop", "--rate", "inf"], "--rate must be a"),
    "an endless rate": (["serve", "--rate", "inf"], "--rate must be a finite number, got inf"),
    "endless patience": (["serve", "--stall-seconds", "1e999"], "--stall-seconds must be a finite"),
    "an endless temperature": (["gate", "--temperature", "-inf"], "--temperature must be a finite"),
    "an empty backend": (["serve", "--backend", ""], "--backend: url must be an http or https"),
    "a backend without a scheme": (["serve", "--backend", "localhost:8001"], "its scheme"),
    "a backend of another scheme": (["serve", "--backend", "ftp://h"], "--backend: url must be"),
    "a backend without a host": (["serve", "--backend", "http:///v1"], "--backend: url must be"),
    "a backend with no such port": (["serve", "--backend", "http://h:65536"], "from 1 to 65535"),
    "a backend with a password": (["serve", "--backend", "http://u:p@h"], "no password"),
    "a backend with a blank": (["serve", "--backend", "http://a b"], "without spaces"),
    "a backend with a newline": (["serve", "--backend", "http://h/a\nb"], "--backend"),
    "a fallback without a scheme": (["serve", "--fallback", "h:1/v1"], "--fallback: url must be"),
    "no name of the backend's model": (["serve", "--backend-model", ""], "--backend-model must be"),
    "an address that would be all addresses": (["serve", "--host", ""], "--host must be a name"),
    "a version without a name": (["rollout", "start", "--by", "ada", ""], "version: String should"),
    "a long name of a version": (["rollout", "start", LONG], "version: String should have at most"),
    "nobody to forget": (["forget", "", "--yes"], "a user must be named by their id"),
    "a blank to forget": (["forget", " ", "--yes"], "a user must be named by their id"),
    "a file that cannot be read": (["judge", "run", "no.yaml", "no.jsonl"], "no.yaml"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_bad_command_line_is_one_line(
    case: str, monkeypatch: pytest.MonkeyPatch, capsys: Any, home: Path
) -> None:
    EventStore.open(f"sqlite:///{home / 'store.db'}").close()
    words, expected = CASES[case]
    assert expected in refused(words, monkeypatch, capsys)


def test_a_page_in_a_folder_that_is_not_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Whatever a command fails to write: the error of the system, with the path."""

    def unwritable() -> None:
        Path("nowhere/page.html").write_text("", "utf-8")

    monkeypatch.setattr("ratchet.cli.app", unwritable)
    message = refused([], monkeypatch, capsys)
    assert message == "ratchet: nowhere/page.html: No such file or directory; check the path"


def test_every_option_that_takes_a_number_refuses_one_without_an_end() -> None:
    """An option without a largest value takes `inf` unless its callback is `finite`."""
    callbacks = {}
    for name, command in COMMANDS.items():
        hints = get_type_hints(inspect.unwrap(command.callback))
        for option in command.params:
            if hints.get(option.name) in (float, float | None):
                callbacks[name, option.opts[0]] = inspect.unwrap(option.callback or print)
    assert {("serve", "--rate"), ("timeline", "--hours"), ("gate", "--temperature")} <= {*callbacks}
    assert {option for option, callback in callbacks.items() if callback is not finite} == set()


def test_a_name_on_one_line_makes_a_key(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ratchet.cli", "keys", "create", "shop für alle", "--rate", "2.5"],
        env=os.environ, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("ratchet_")
