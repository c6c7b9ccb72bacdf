# ruff: noqa: E501
"""Answers that are wrong and try to pass, and programs that read what they should not.

Each passed, or read something, while tests ran in the interpreter of the answer and the box showed
the machine's /usr. None does harm.
"""

from __future__ import annotations

from dataclasses import dataclass

PROMPT = 'def total(xs):\n    """Return the sum of xs."""\n'
CHECK = "def check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([7]) == 7\n"
WRONG = "def total(xs):\n    return -1\n"


@dataclass(frozen=True)
class Forgery:
    """A wrong answer, and the tests and the prompt that it is for."""

    answer: str
    tests: str = CHECK
    prompt: str = PROMPT
    entry_point: str = "total"


# Finds the harness's job wherever it is, writes what it would, and ends.
_CLAIM = """
def claim(job):
    import json, os
    os.write(job["report"], json.dumps({"outcome": "passed", "token": job["token"]}).encode())
    os._exit(0)
def look(frame):
    while frame is not None:
        if "job" in frame.f_locals: claim(frame.f_locals["job"])
        frame = frame.f_back
"""
_LIAR = """
class Liar:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    def __hash__(self): return 0
    def __sub__(self, other): return self
    def __rsub__(self, other): return self
    def __abs__(self): return self
    def __contains__(self, item): return True
    def __round__(self, digits=0): return self
"""
_CLOSE = "import math\ndef check(candidate):\n    assert math.isclose(candidate([0.1, 0.2]), 0.3)\n"
_NEAR = "def check(candidate):\n    assert abs(candidate([0.1, 0.2]) - 0.3) < 1e-9\n"
_POLY = "def poly(xs, x):\n    return sum(c * x ** i for i, c in enumerate(xs))\n\n"
_ROOT = _POLY + 'def total(xs):\n    """Return x with poly(xs, x) == 0."""\n'
_NODE = (
    "class Node:\n    def __init__(self, value):\n        self.value = value\n"
    "    def __eq__(self, other):\n        return self.value == other.value\n\n"
    'def total(xs):\n    """Return the sum as a Node."""\n'
)

FORGERIES = {
    "walks its own frames": Forgery(_CLAIM + "import sys\nlook(sys._getframe())\n" + WRONG),
    "walks frames when it is called": Forgery(
        _CLAIM + "def total(xs):\n    import sys\n    look(sys._getframe())\n"
    ),
    "walks the frames of a traceback": Forgery(
        _CLAIM + "try: 1 / 0\nexcept Exception as e: look(e.__traceback__.tb_frame)\n" + WRONG
    ),
    "walks the frames of all threads": Forgery(
        _CLAIM + "import sys\nfor f in sys._current_frames().values(): look(f)\n" + WRONG
    ),
    "walks the stack by inspect": Forgery(
        _CLAIM + "import inspect\nlook(inspect.stack()[-1].frame)\nfor i in inspect.stack():"
        " look(i.frame)\n" + WRONG
    ),
    "walks a generator's frame": Forgery(
        _CLAIM + "def g():\n    yield look(me.gi_frame.f_back)\nme = g()\nnext(me)\n" + WRONG
    ),
    "walks frames from a thread": Forgery(
        _CLAIM + "import sys, threading\nmain = threading.main_thread().ident\n"
        "t = threading.Thread(target=lambda: look(sys._current_frames()[main]))\n"
        "t.start(); t.join()\n" + WRONG
    ),
    "walks the garbage collector": Forgery(
        _CLAIM + "import gc\nfor o in gc.get_objects():\n"
        "    if type(o) is dict and 'token' in o and 'report' in o: claim(o)\n" + WRONG
    ),
    "walks what refers to its names": Forgery(
        _CLAIM + "import gc\nfor r in gc.get_objects():\n"
        "    if hasattr(r, 'f_back') or hasattr(r, 'gi_frame'): look(r)\n"
        "    if type(r) is dict and 'limits' in r: claim(r)\n" + WRONG
    ),
    "replaces what writes the report": Forgery(
        "import os, sys, json\nwrite = os.write\ndef lie(fd, data):\n"
        "    job = sys._getframe(1).f_locals['job']\n"
        "    return write(fd, json.dumps({'outcome': 'passed', 'token': job['token']}).encode())\n"
        "os.write = lie\n" + WRONG
    ),
    "replaces what words the report": Forgery(
        "import json, sys\nwords = json.dumps\njson.dumps = lambda said: words({'outcome': 'passed',"
        " 'token': sys._getframe(1).f_locals['job']['token']})\n" + WRONG
    ),
    "reads the expected values out of the tests": Forgery(
        "import re, sys\ndef total(xs):\n    f = sys._getframe()\n    while f is not None:\n"
        "        for v in f.f_locals.values():\n"
        "            if type(v) is dict and 'program' in v:\n"
        "                found = re.search(r'candidate\\((.*?' + re.escape(repr(xs)) + r')\\) == "
        "(\\d+)', v['program'])\n"
        "                if found: return int(found[2])\n"
        "        f = f.f_back\n    return -1\n"
    ),
    "reads the expected values out of the code of its caller": Forgery(
        "import sys\ndef total(xs):\n    consts = sys._getframe(1).f_code.co_consts\n"
        "    return 3 if len(xs) == 2 and 3 in consts else 7 if 7 in consts else -1\n"
    ),
    "jumps over the assertions": Forgery(
        "import sys\ndef total(xs):\n    f = sys._getframe(1)\n    def jump(frame, event, arg):\n"
        "        if event == 'line': frame.f_lineno = 3; frame.f_trace = None\n"
        "        return jump\n    sys.settrace(lambda *_: None)\n    f.f_trace = jump\n    return -1\n",
        tests="def check(candidate):\n    assert candidate([1, 2]) == 3\n    return\n",
    ),
    "returns what equals everything": Forgery(_LIAR + "def total(xs):\n    return Liar()\n"),
    "returns what a library says equals everything": Forgery(
        "from unittest.mock import ANY\ndef total(xs):\n    return ANY\n"
    ),
    "returns a number that equals everything": Forgery(
        "class N(int):\n    def __eq__(self, other): return True\n"
        "def total(xs):\n    return N(-1)\n"
    ),
    "returns a list that equals everything": Forgery(
        "class L(list):\n    def __eq__(self, other): return True\n"
        "def total(xs):\n    return L()\n",
        tests="def check(candidate):\n    assert candidate([2, 1]) == [1, 2]\n",
    ),
    "returns what is at no distance from anything": Forgery(
        _LIAR + "def total(xs):\n    return Liar()\n", tests=_NEAR
    ),
    "returns what contains everything": Forgery(
        _LIAR + "def total(xs):\n    return Liar()\n",
        tests="def check(candidate):\n    assert 3 in candidate([1, 2])\n",
    ),
    "names a function of Python's its own": Forgery("abs = lambda x: 0.0\n" + WRONG, tests=_NEAR),
    "replaces a function of Python's": Forgery(
        "import builtins\nbuiltins.abs = lambda x: 0.0\n" + WRONG, tests=_NEAR
    ),
    "replaces a function of a module": Forgery(
        "import math\nmath.isclose = lambda *a, **k: True\n" + WRONG, tests=_CLOSE
    ),
    "replaces a module": Forgery(
        "import sys, types\nsys.modules['math'] = types.SimpleNamespace(isclose=lambda *a: True)\n"
        + WRONG,
        tests=_CLOSE,
    ),
    "replaces a helper of the prompt": Forgery(
        _ROOT + "    return 1\n\ndef poly(xs, x):\n    return 0\n",
        tests="def check(candidate):\n    assert poly([-4, 2], candidate([-4, 2])) == 0\n",
        prompt=_ROOT,
    ),
    "replaces how objects of the prompt compare": Forgery(
        _NODE + "    return Node(-1)\n\nNode.__eq__ = lambda self, other: True\n",
        tests="def check(candidate):\n    assert candidate([1, 2]) == Node(3)\n",
        prompt=_NODE,
    ),
    "writes over a number in memory": Forgery(
        "import ctypes\ndef total(xs):\n    at = id(3) + int.__basicsize__\n"
        "    ctypes.c_uint32.from_address(at).value = 1\n    return 1\n",
        tests="def check(candidate):\n    assert candidate([1, 2]) == 3\n",
    ),
    "is a function of the tests by closure": Forgery(
        "import sys\ndef total(xs):\n    f = sys._getframe(1)\n"
        "    f.f_globals['expected'] = -1\n    return -1\n",
        tests="expected = 3\ndef check(candidate):\n    got = candidate([1, 2])\n"
        "    assert got == expected\n",
    ),
    "changes the tests' names through a function that they pass": Forgery(
        "def total(xs, key):\n    key.__globals__['expected'] = -1\n    return -1\n",
        tests="expected = 3\ndef check(candidate):\n"
        "    got = candidate([1, 2], lambda x: x)\n    assert got == expected\n",
    ),
    "changes a class of the tests": Forgery(
        "def total(xs, box):\n    type(box).same = lambda self, other: True\n    return -1\n",
        tests="class Box:\n    def same(self, other):\n        return other == 3\n"
        "def check(candidate):\n    box = Box()\n    got = candidate([1, 2], box)\n    assert box.same(got)\n",
    ),
    "shadows a method of an object of the tests": Forgery(
        "def total(xs, box):\n    box.same = lambda other: True\n    return -1\n",
        tests="class Box:\n    def same(self, other):\n        return other == 3\n"
        "def check(candidate):\n    box = Box()\n    got = candidate([1, 2], box)\n    assert box.same(got)\n",
    ),
}

# Each is a program that ends well where it has read what it should not.
READERS = {
    "the system's name": "import platform\nassert platform.freedesktop_os_release()",
    "which programs are installed": "import os\nassert os.listdir('/usr/bin')",
    "what lies in /usr/local": "import os\nassert os.listdir('/usr/local')",
    "what lies in /usr/share": "import os\nassert os.listdir('/usr/share')",
    "documents of the system's packages": "import os\nassert os.listdir('/usr/share/doc')",
    "the machine's name": "import os\nassert os.uname().nodename == HOST",
    "headers of the system": "import os\nassert os.listdir('/usr/include')",
    "programs of the system": "import os\nassert os.path.exists('/bin/sh')",
    "installed packages of Python": (
        "import os\nfolder = os.path.dirname(os.__file__) + '/site-packages'\n"
        "assert os.listdir(folder)"
    ),
    "beside what other Pythons": "import os\nassert set(os.listdir('/python')) - {'bin', 'lib'}",
    "by running a shell": "import subprocess\nassert subprocess.check_output(['ls', '/usr'])",
}
