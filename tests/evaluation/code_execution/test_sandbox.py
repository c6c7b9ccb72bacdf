"""What untrusted code can do in its box. Each sample is harmless were the box open."""

import os
import platform
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import ratchet
from ratchet.errors import InvalidInputError, IsolationError
from ratchet.evaluation.code_execution import sandbox
from ratchet.evaluation.code_execution.sandbox import (
    SandboxLimits,
    require_isolation,
    run_isolated,
)
from ratchet.evaluation.code_execution.syscalls import filter_program

SMALL = SandboxLimits(
    seconds=4.0, cpu_seconds=1, memory_megabytes=256, file_megabytes=2, processes=6
)
MANY = SandboxLimits(seconds=20.0, memory_megabytes=256, processes=16)
pytestmark = pytest.mark.usefixtures("isolation")


def ends(program, limits=SMALL):
    execution = run_isolated(program, limits)
    return execution.outcome, execution.detail


def strangers():
    """Processes of user ids that nobody has, as those of root's boxes."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            found |= {path.name} if path.stat().st_uid > 100_000 else set()
        except OSError:
            continue
    return found


def leftovers():
    """Processes that stay; boxes of other tests, which may run now, end within seconds."""
    left = strangers()
    for _ in range(100):
        if not left:
            break
        time.sleep(0.1)
        left &= strangers()
    return left


@pytest.mark.parametrize(
    ("program", "outcome", "detail"),
    [
        ("assert sum([1, 2]) == 3", "passed", ""),
        ("import json, re, math, random, itertools, collections, typing, heapq", "passed", ""),
        ("assert 1 == 2, 'numbers'", "failed", "AssertionError: numbers"),
        ("def f(:", "failed", "SyntaxError"),
        ("def f(): f()\nf()", "failed", "RecursionError"),
        ("raise SystemExit(0)", "failed", "SystemExit"),
        ("input('a number')", "failed", "EOFError"),
        ("import os; os._exit(0)", "crashed", "ended early"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed", "code 139"),
        ("import sys\nfor _ in range(9000): print('x' * 99, file=sys.stderr)", "passed", ""),
        ("print('x' * 10**7)", "passed", ""),
        ("open('notes', 'w').write('x')\nassert open('notes').read() == 'x'", "passed", ""),
        ("import numpy", "failed", "ModuleNotFoundError"),
    ],
)
def test_programs_end_as_they_should(program, outcome, detail):
    found = ends(program)
    assert found[0] == outcome
    assert detail in found[1]


@pytest.mark.parametrize("program", ["while True: pass", "import time; time.sleep(60)"])
def test_an_endless_program_is_ended(program):
    began = time.monotonic()
    assert ends(program, SandboxLimits(seconds=1.5, cpu_seconds=1))[0] == "timed out"
    assert time.monotonic() - began < 5.0


def test_a_program_that_ignores_every_signal_is_ended_with_all_its_children():
    program = (
        "import os, signal, time\n"
        "for number in range(1, 32):\n"
        "    if number not in (signal.SIGKILL, signal.SIGSTOP):\n"
        "        signal.signal(number, signal.SIG_IGN)\n"
        "os.fork(); os.setsid() if os.getpid() != 2 else None\n"
        "time.sleep(60)\n"
    )
    assert ends(program, SandboxLimits(seconds=1.0))[0] == "timed out"
    assert leftovers() == set()


def test_no_more_processes_or_threads_than_allowed():
    forks = (
        "import os, time\nfor _ in range(20):\n    if os.fork() == 0: time.sleep(3); os._exit(0)"
    )
    threads = "import threading, time\nfor _ in range(20):\n"
    threads += "    threading.Thread(target=time.sleep, args=(2,), daemon=True).start()"
    assert "unavailable" in ends(forks)[1]
    assert "can't start new thread" in ends(threads)[1]


def test_a_fork_bomb_ends_with_its_box():
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    outcome, _ = ends(bomb, SandboxLimits(seconds=1.0, processes=6))
    assert outcome == "timed out"
    assert leftovers() == set()


def test_memory_of_one_process_and_of_all_together_is_limited():
    assert ends("x = bytearray(300 * 2 ** 20)") == ("out of memory", "MemoryError")
    together = (
        "import os, time\nfor _ in range(3):\n    if os.fork() == 0: break\n"
        "x = bytearray(b'1') * (80 * 2 ** 20)\ntime.sleep(60)"
    )
    assert ends(together) == ("out of memory", "it used more than 256 MB")


def test_files_and_folder_are_limited():
    assert "File too large" in ends("open('a', 'wb').write(bytes(3 * 2 ** 20))")[1]
    many = "for n in range(6): open(str(n), 'wb').write(bytes(2 ** 21 - 1))"
    assert "No space left" in ends(many)[1]


def test_there_is_nothing_of_the_machine_to_read_write_or_delete(tmp_path):
    marker = tmp_path / "marker"
    marker.write_text("here")
    program = (
        "import os, shutil\n"
        f"shutil.rmtree({str(tmp_path)!r}, ignore_errors=True)\n"
        "shutil.rmtree(os.path.dirname(os.__file__) + '/json', ignore_errors=True)\n"
        "import json.tool\n"
        f"assert not os.path.exists({str(marker)!r})\n"
        "for path in ('/etc', '/home', '/proc/1', '/sys', '/tmp', '/var', '/run'):\n"
        "    assert not os.path.exists(path), path\n"
        "assert set(os.environ) <= {'PWD', 'LC_CTYPE'}, os.environ\n"
        "assert os.getuid() != 0 and os.listdir('.') == []\n"
    )
    assert ends(program) == ("passed", "")
    assert marker.read_text() == "here"
    assert Path("/usr/bin").is_dir()


def test_no_socket_can_be_opened_and_nobody_is_reached():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        program = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)"
        assert "PermissionError" in ends(program)[1]
        with pytest.raises(TimeoutError):
            server.accept()
    assert "PermissionError" in ends("import socket; socket.socket(socket.AF_UNIX)")[1]


def test_system_calls_that_lead_out_or_around_limits_are_refused():
    program = (
        "import ctypes\n"
        "c = ctypes.CDLL(None, use_errno=True)\n"
        "calls = {'unshare': c.unshare(0x10000000), 'ptrace': c.ptrace(0, 0, 0, 0),\n"
        "         'shmget': c.shmget(0, 1 << 30, 0o1600), 'memfd': c.memfd_create(b'x', 0),\n"
        "         'mount': c.mount(b'x', b'/box', b'tmpfs', 0, None), 'setns': c.setns(0, 0),\n"
        "         'chroot': c.chroot(b'/box'), 'clone3': c.syscall(435, 0, 0)}\n"
        "assert set(calls.values()) == {-1}, calls\n"
    )
    assert ends(program) == ("passed", "")


def test_nobody_else_can_be_signalled():
    program = (
        "import os, signal\n"
        f"for pid in (1, {os.getpid()}, {os.getppid()}):\n"
        "    try:\n"
        "        os.kill(pid, signal.SIGTERM)\n"
        "    except OSError: continue\n"
    )
    ends(program)  # what it signals inside is its own affair
    assert os.getpid() > 0


def test_a_box_ends_with_who_started_it(tmp_path):
    script = (
        "from ratchet.evaluation.code_execution.sandbox import SandboxLimits, run_isolated\n"
        "print('ready', flush=True)\n"
        "run_isolated('import time; time.sleep(60)', SandboxLimits(seconds=60.0))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": python_path()},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    time.sleep(1.5)  # it checks the isolation first
    process.kill()
    process.wait()
    process.stdout.close()
    assert leftovers() == set()


SAYS_WHY = """
from ratchet.errors import IsolationError
from ratchet.evaluation.code_execution.sandbox import run_isolated
try:
    run_isolated("open('/dev/null').read()")
except IsolationError as error:
    print(error)
"""


def refusal(environment):
    done = subprocess.run(
        [sys.executable, "-c", SAYS_WHY],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": python_path(), **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def python_path():
    return os.pathsep.join(
        [str(Path(ratchet.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    )


@pytest.mark.parametrize(
    ("script", "words"),
    [
        # what bwrap says where namespaces are forbidden
        ("echo 'bwrap: No permissions to create new namespace' >&2; exit 1", "No permissions"),
        # a bwrap that isolates nothing: it runs what comes after its options
        (
            'while [ "$1" != "--" ]; do shift; done; shift; shift; exec PYTHON "$@"',
            "got a machine where",
        ),
    ],
)
def test_where_the_machine_does_not_isolate_nothing_is_run_and_it_says_so(tmp_path, script, words):
    fake = tmp_path / "bwrap"
    fake.write_text(f"#!/bin/sh\n{script.replace('PYTHON', sys.executable)}\n")
    fake.chmod(0o755)
    said = refusal({"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"})
    assert "runs only where it is isolated" in said
    assert words in said


def test_inside_a_box_there_is_no_bubblewrap_and_so_no_other_box():
    package = Path(ratchet.__file__).parent
    box = "evaluation/code_execution"
    modules = ("sandbox", "syscalls", "exchange", "inside", "interpreter", "packing", "remote")
    names = ("errors", "files/text", *(f"{box}/{name}" for name in modules))
    sources = {f"{name}.py": (package / f"{name}.py").read_text("utf-8") for name in names}
    program = (
        f"sources = {sources!r}\n"
        "import os, sys\n"
        f"for folder in ('ratchet', 'ratchet/files', 'ratchet/evaluation', 'ratchet/{box}'):\n"
        "    os.mkdir(folder); open(folder + '/__init__.py', 'w').close()\n"
        "for name, text in sources.items(): open('ratchet/' + name, 'w').write(text)\n"
        "sys.path.insert(0, os.getcwd())\n"
        "from ratchet.errors import IsolationError\n"
        "from ratchet.evaluation.code_execution.sandbox import run_isolated\n"
        "try:\n"
        "    run_isolated('pass')\n"
        "except IsolationError as error:\n"
        "    assert 'by bubblewrap, got none' in str(error), error\n"
    )
    assert ends(program, SandboxLimits()) == ("passed", "")


def test_there_is_no_filter_for_a_machine_that_it_is_not_written_for():
    assert filter_program("sparc64") is None
    assert filter_program(platform.machine())


def test_limits_of_nothing_are_refused():
    with pytest.raises(InvalidInputError, match="above 0"):
        SandboxLimits(seconds=0.0)


def test_the_check_is_made_once_a_process():
    require_isolation()
    assert require_isolation.cache_info().misses <= 1
    assert issubclass(IsolationError, Exception)


def test_memory_of_processes_that_a_thread_started_counts():
    program = (
        "import os, threading, time\n"
        "def fork():\n"
        "    for _ in range(3):\n"
        "        if os.fork() == 0:\n"
        "            x = bytearray(b'1') * (200 * 2 ** 20)\n"
        "            time.sleep(60)\n"
        "    time.sleep(60)\n"
        "threading.Thread(target=fork).start()\n"
        "time.sleep(60)\n"
    )
    limits = replace(MANY, memory_megabytes=512)
    assert ends(program, limits) == ("out of memory", "it used more than 512 MB")


def test_memory_of_processes_whose_parent_has_ended_counts():
    program = (
        "import os, time\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0:\n"
        "        if os.fork() == 0:\n"
        "            x = bytearray(b'1') * (120 * 2 ** 20)\n"
        "            time.sleep(60)\n"
        "        os._exit(0)\n"
        "time.sleep(60)\n"
    )
    assert ends(program, MANY) == ("out of memory", "it used more than 256 MB")


def test_children_are_found_on_a_kernel_without_their_list():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid in sandbox._children_by_parent(os.getpid())
        assert child.pid in sandbox._children(os.getpid())
        child.communicate(b"\n")


def test_what_a_program_says_of_its_end_steers_no_terminal():
    outcome, detail = ends("raise ValueError('\\x1b[2J\\u202egnp.exe\\r\\nforged line\\x9b')")
    assert outcome == "failed"
    assert detail.isprintable()
    assert "\\x1b[2J" in detail
