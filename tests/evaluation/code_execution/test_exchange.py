# ruff: noqa: E501
"""Tests see an answer in another process as they would in their own."""

import pytest

from ratchet.evaluation.code_execution import run_programs
from ratchet.evaluation.code_execution.sandbox import Program, SandboxLimits, run_isolated

pytestmark = pytest.mark.usefixtures("isolation")

TESTED = [
    ("def f(xs):\n    xs.append(xs)\n    return xs", "xs = []\nassert f(xs) is xs and xs[0] is xs"),
    ("def f(d):\n    d['new'] = [1]", "d = {'old': {1, 2}}\nf(d)\nassert d == {'old': {1, 2}, 'new': [1]}"),
    ("def f(s, b):\n    s.add(2); b.extend(b'x')", "s, b = {1}, bytearray()\nf(s, b)\nassert (s, b) == ({1, 2}, b'x')"),
    ("def f(x):\n    return x", "for x in (None, True, 10**5000, 1e308, float('inf'), 'ü\\ud800', b'\\0', 1j,\n"
     "          (1, (2,)), frozenset({1}), range(3), ...):\n    assert f(x) == x and type(f(x)) is type(x)"),
    ("def f(x):\n    return x", "from decimal import Decimal\nfrom fractions import Fraction\nfrom datetime import datetime, timedelta\n"
     "from collections import Counter, deque, OrderedDict, defaultdict\n"
     "for x in (Decimal('1.50'), Fraction(1, 3), datetime(2026, 1, 2), timedelta(1, 2), Counter('aab'), deque([1]),\n"
     "          OrderedDict(a=1), defaultdict(list, a=[1])):\n    assert f(x) == x"),
    ("class Bad(KeyError):\n    def __init__(self, code):\n        self.code = code\n        super().__init__(code)\n"
     "def f(x):\n    raise Bad(x)", "try:\n    f(7)\nexcept Bad as error:\n    assert error.code == 7 and isinstance(error, LookupError)\n"
     "else:\n    raise AssertionError"),
    ("class Stack:\n    def __init__(self): self.items = []\n    def push(self, item): self.items.append(item)\n"
     "    def __len__(self): return len(self.items)\n    def __getitem__(self, n): return self.items[n]\n"
     "    def __iter__(self): return iter(self.items)",
     "s = Stack()\ns.push('a')\ns.push([1])\nassert len(s) == 2 and s[1] == [1] and list(s) == ['a', [1]] and s.items[0] == 'a'\n"
     "assert isinstance(s, Stack) and not isinstance(3, Stack) and 'a' in s and 'b' not in s"),
    ("def f(n):\n    yield from range(n)", "assert list(f(3)) == [0, 1, 2] and sum(f(4)) == 6"),
    ("def f(g, x):\n    return g(g(x))", "seen = []\ndef g(x):\n    seen.append(x)\n    return x + 1\nassert f(g, 1) == 3 and seen == [1, 2]"),
    ("def f(key):\n    return sorted(['b', 'A'], key=key)", "assert f(str.lower) == ['A', 'b'] and f(None) == ['A', 'b'] and f(ord) == ['A', 'b']"),
    ("async def f(x):\n    return x + 1", "import asyncio\nassert asyncio.run(f(1)) == 2"),
    ("from collections import namedtuple\nPoint = namedtuple('Point', 'x y')\ndef f():\n    return Point(1, 2)",
     "assert f() == (1, 2) and f().y == 2"),
    ("import math\ndef f(x):\n    return math.sqrt(x)", "assert math.isclose(f(2) ** 2, 2)"),
    ("calls = 0\ndef f():\n    global calls\n    calls += 1", "f()\nf()\nassert calls == 2"),
    ("def f(box):\n    box.value += 1\n    return box.twice()", "class Box:\n    value = 1\n    def twice(self):\n        return 2 * self.value\n"
     "box = Box()\nassert f(box) == 4 and box.value == 2"),
]  # fmt: skip


def test_values_calls_and_objects_are_as_in_one_process():
    limits = SandboxLimits(seconds=20.0)
    programs = [Program((code,), tests) for code, tests in TESTED]
    ended = dict(zip(TESTED, run_programs(programs, limits, workers=4), strict=True))
    assert {found.outcome for found in ended.values()} == {"passed"}, ended


NODES = "class Node:\n    def __init__(self, value, after=None):\n        self.value, self.after = value, after\n"


def test_objects_of_classes_that_the_prompt_defines_travel_by_value():
    prompt = f'{NODES}\ndef turned(node):\n    """Turn a linked list around."""\n'
    body = "    done = None\n    while node:\n        node.after, done, node = done, node, node.after\n"
    tests = (
        "def check(candidate):\n    node = candidate(Node(1, Node(2, Node(3))))\n"
        "    assert type(node) is Node and (node.value, node.after.value) == (3, 2)\n"
        "    assert node.after.after.after is None\n"
        "check(turned)"
    )
    good = Program((f"{prompt}{body}    return done\n",), tests, prompt, "turned")
    wrong = Program((f"{prompt}    return node\n",), tests, prompt, "turned")
    limits = SandboxLimits(seconds=20.0)
    assert run_isolated(good, limits).outcome == "passed"
    assert run_isolated(wrong, limits).outcome == "failed"


def test_a_class_that_is_tested_compares_by_its_own_operators():
    prompt = 'class Money:\n    """An amount that adds and compares."""\n'
    body = (
        "    def __init__(self, n): self.n = n\n"
        "    def __add__(self, other): return Money(self.n + other.n)\n"
        "    def __mul__(self, times): return Money(self.n * times)\n"
        "    def __eq__(self, other): return self.n == other.n\n"
        "    def __lt__(self, other): return self.n < other.n\n"
    )
    tests = "assert Money(1) + Money(2) == Money(3) and Money(2) * 2 == Money(4)\nassert Money(1) < Money(2)"
    program = Program((prompt + body,), tests, prompt, "Money")
    assert run_isolated(program, SandboxLimits(seconds=20.0)).outcome == "passed"
