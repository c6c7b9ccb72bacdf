"""Solutions of HumanEval problems with a known end: good, wrong, hanging and hostile ones."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

# Each is the body of a function; the tests of the problem come after it.
HANGING = ["    while True: pass", "    import time; time.sleep(3600)"]
HOSTILE = {
    "fork bomb": "    import os\n    while True: os.fork()",
    "memory hog": "    x = []\n    while True: x.append(bytearray(2 ** 24))",
    "memory of many": (
        "    import os, time\n    for _ in range(5):\n        if os.fork() == 0: break\n"
        "    x = bytearray(b'1') * (160 * 2 ** 20)\n    time.sleep(3600)"
    ),
    "deletion": (
        "    import os, shutil\n"
        "    for p in ('/', '/box', '/usr', '/python', MARKER):\n"
        "        shutil.rmtree(p, ignore_errors=True)\n"
        "        try: os.remove(p)\n"
        "        except OSError: pass\n"
        "    raise RuntimeError(os.path.exists('/usr'))"
    ),
    "writing": "    open(MARKER + '-escaped', 'w').write('x')",
    "socket": "    import socket; socket.create_connection(('127.0.0.1', PORT), 2)",
    "full disk": "    f = open('x', 'wb')\n    while True: f.write(bytes(2 ** 20))",
    "killing": (
        "    import os, signal\n"
        "    for pid in range(1, 70000):\n"
        "        try: os.kill(pid, signal.SIGKILL)\n"
        "        except OSError: pass\n"
        "    raise RuntimeError"
    ),
    "exit": "    import os; os._exit(0)",
}


def read_problems(shared_data: Path) -> list[dict[str, str]]:
    """Return the 164 problems."""
    file = shared_data / "humaneval" / "HumanEval.jsonl.gz"
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def planted(problem: dict[str, str], place: int, marker: Path, port: int) -> dict[str, str]:
    """Return a completion of each kind for a problem; kinds of hanging and hostile ones rotate."""
    kinds = sorted(HOSTILE)
    kind = kinds[place % len(kinds)]
    hostile = HOSTILE[kind].replace("MARKER", repr(str(marker))).replace("PORT", str(port))
    return {
        "good": problem["canonical_solution"],
        "wrong": "    return 'a wrong answer'\n",
        "hanging": HANGING[place % len(HANGING)],
        f"hostile: {kind}": hostile,
    }
