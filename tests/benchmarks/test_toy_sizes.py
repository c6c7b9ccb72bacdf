"""Every benchmark runs as people run it, at a size of seconds, and reports what it is there for.

What they report at such a size says nothing about the product. Here it is about the programs: that
they start, find what they import, take their options and write the rows of their tables.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from ratchet.errors import IsolationError
from ratchet.evaluation.code_execution.sandbox import require_isolation

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
SECONDS = 900
HELPERS = {
    "gate_truths",
    "other_detectors",
    "provenance",
    "release_simulation",
    "rollout_simulation",
    "pages_home",
    "rows_parts",
    "rows_store",
}
"""Modules that do nothing by themselves: benchmarks import them."""
ELSEWHERE = {"gpu"}
"""What `test_gpu` runs at toy size, with the modules of that name."""


@dataclass(frozen=True)
class Toy:
    """How a benchmark is made small, and what it then reports.

    Attributes:
        arguments: `{folder}` is an empty folder, `{model}` that of a tiny model.
        rows: Regular expressions, each found in the report so many times.
        report: The file below the folder that it writes; what it prints where there is none.
        needs: What it reads or uses: `data`, the public data; `isolation` of untrusted code.
        environment: Variables.
    """

    arguments: str
    rows: dict[str, int]
    report: str = ""
    needs: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


RATE = r"\d+\.\d%"
SHARE = rf"{RATE} \({RATE} to {RATE}\)"
TOYS = {
    "bulk_load": Toy(
        "--rows 600",
        {
            r"^\| SQLite \| executemany alone \| [\d,]+ \| 1\.00 \|": 1,
            r"^\| SQLite \| `ratchet ingest`, (jsonl|csv|parquet) \| [\d,]+ \| \d+\.\d\d \|": 3,
            r"^\| SQLite \| (drain|the same [a-z ]+) \| [\d,]+ \| \d+\.\d\d \| \d+\.\d\d \|": 3,
        },
    ),
    "canary": Toy(
        "--rollouts 1 --only harmful-200 --keep {folder}/kept --out {folder}/page.md",
        {
            rf"^\| thumbs down 8 → 12 % \| 200 \| 480 \| 10% \| 250 \| {SHARE} \|": 1,
            rf"^\| (55/45|45/55|50/50) \| 1 \| {SHARE} \|": 3,
            r"^## (Harm|No harm|A broken)": 5,
        },
        "page.md",
    ),
    "curation_history": Toy(
        "--size 1500 --day 300 --whole",
        {r'"same in memory": true': 3, r'"interactions": 1500': 3},
        needs=("data",),
    ),
    "curation": Toy(
        "--size 3000 --print",
        {
            r"^\| (join feedback|scores|conversations) \| \d+\.\d \|$": 3,
            r"^\| (select|redact).* \| \d+\.\d \|$": 2,
            r"^\| \*\*all\*\* \|": 1,
            r"^\| (step|how|kind) \| rows \|$": 3,
        },
        needs=("data",),
    ),
    "degraded_release": Toy(
        "--home {folder}/home --base {model} --queues delivery --taught 64 --mistaught 48"
        " --learning-rate 0.01 --baseline 30 --after 2",
        {
            # in this order, whatever else is told between them
            r"(?s)was made the champion by hand.*critical alert.*"
            r"is the champion again by an automation.*all 2 gateway processes follow": 1,
        },
    ),
    "drills": Toy(
        "--rows 500 --seconds 1",
        {r"^\| (store lost|MLflow lost|the home's disk lost|both backends dead) \| \d": 4},
    ),
    "gateway_paired": Toy(
        ". --rounds 2 --seconds 0.5",
        {r"^(whole answers|streams) .*: median ratio \d+\.\d{3}, quartiles": 4},
    ),
    "derived_detection": Toy(
        "--boards 2 --days 1 --conversations 40",
        {
            r"^Of what users did, the product saw": 1,
            r"^\| 2,000 \| 8 → \d+ %": 3,
            r"^\| 2,000 \| (10|20|40) \|": 3,
        },
    ),
    "next_turn": Toy(
        "--most 200",
        {r"^\| USS, \w+: .* \| rules \|": 2, r"^\| ConvAI2, thumbs: .* \| rules \|": 1},
        needs=("data",),
    ),
    "detection": Toy(
        "--boards 2 --days 1 --releases 2 --traffic 2000 --out {folder}/page.md",
        {
            r"^\| 2,000 \| (2|10)% \| 8 → \d+ %, .* min \|": 8,
            r"^\| 2,000 \| (2|10)% \| 2 \| \d+ \|": 2,
            r"^\| (fixed thresholds|p charts)": 2,
            r"^\| river's": 2 if installed("river") else 0,
        },
        "page.md",
    ),
    "executors": Toy(
        "--texts 1100 --rounds 1",
        {r"^\| `(inline|processes:2|ray:local|served)` \| [\d,]+ \| \d": 4, r"vectors equal\.$": 1},
        needs=("data",),
    ),
    "failure_clusters": Toy(
        "--messages 1500 --sizes 300 600 --null-runs 4 --seeds 1 --repeats 1"
        f" --methods ratchet kmeans {'bertopic' if installed('bertopic') else ''}"
        " --out {folder}/page.md",
        {
            r"^\| 1,456 \| \d+\.\d \(": 1,
            r"^\| 1,456 \| (5|12)% \| [14] \|": 3,
            r"^\| (`cluster_texts`|k-means, k = 77) \| \d+ \|": 2,
            r"^\| BERTopic": 1 if installed("bertopic") else 0,
            r"^\| (300|600) \| (600|1,200) \|": 2,
            r"^\| 1,456 \| \d+ of \d+ \|": 1,
        },
        "page.md",
        needs=("data",),
    ),
    "gate_calibration": Toy(
        "--gates 2 --out {folder}/page.md",
        {r"^\| .* \| [\d,]+ \| \d+\.\d\d%": 48, r"100,000 examples with 5 metrics": 1},
        "page.md",
    ),
    "gateway": Toy(
        "--seconds 1",
        {
            r"^\| the mock itself \|  \|": 1,
            r"^\| Ratchet, (recording|--sync) \| .* ms \| [\d,]+ \| .* \| 0 \|$": 2,
            r"^- (feedback events|interactions).*: [\d,]+$": 3,
        },
    ),
    "humaneval_sandbox": Toy(
        "--problems 9 --seconds 1 --workers 2",
        {
            r"^\| good \| passed \| 9 \|$": 1,
            r"^\| hanging \| timed out \| 9 \|$": 1,
            r"^\| wrong \| failed \| 9 \|$": 1,
            r"^\| hostile: ": 9,
            r"misjudged: 0; escaped: nothing": 1,
        },
        needs=("data", "isolation"),
    ),
    "imports": Toy(
        "--rows 400",
        {r"^\| (jsonl|parquet) \| 400 \| 120 \| .* MB \|$": 2},
    ),
    "judge_throughput": Toy(
        "--questions 128",
        {r"^\| 128 \| \d+\.\d\d \| 0\.40 \|": 1, r"^\| SIG(KILL|TERM) \| \d+ \|": 2},
    ),
    "llmbar_judges": Toy(
        "--pairs 2 --model {model}",
        {
            r"^\d+ recorded runs validated": 1,
            r"all refused: True$": 1,
            r": 2 items, 4 questions asked": 1,
        },
        needs=("data",),
    ),
    "monitoring_pass": Toy(
        "--hourly 240",
        {
            r"^\| all events that are new \| [\d,]+ \| 4,\d+ \|": 1,
            r"^\| five minutes at 240 an hour, .* history \| [\d,]+ \| \d+ \|": 2,
            r"^Largest memory of the process: \d+ MiB": 1,
        },
    ),
    "paired_bleu": Toy(
        "--resamples 100 --systems 1",
        {
            r"^\| C-3MA\S* \| (\d+\.\d\d) \| \1 \|": 1,
            r"^\| (resampling|extraction|all of it).* s \|": 3,
        },
        needs=("data",),
    ),
    "personal_data": Toy(
        "--each 2",
        {
            r"^\| (card|telephone|key), .* \| \d+\.\d% \| 2 \|": 40,
            r"^\| (IBAN|e-mail).* \| \d+\.\d% \| 2 \|": 4,
            r"^\| .* \| \d+\.\d% \| 2 \|": 63,
        },
    ),
    "poisoned_training": Toy(
        "--base {model} --out {folder}/found.json --seeds 1 --rows 16 --tested 8",
        {rf"^\| (no|10 %) hostile.* \| 16 \| {RATE} \| {RATE} \| {RATE} \|": 3},
        needs=("data",),
    ),
    "poisoning": Toy(
        "--seeds 1 --shares 0.2 --sizes 4000 20000",
        {
            rf"^\| 20% \| {RATE} \| {RATE} \| {RATE} \|": 3,
            rf"^\| (4|20),000 \| .* \| (all with all|in blocks) \| {RATE} \|": 4,
            r"^\*\*": 4,
        },
        needs=("data",),
    ),
    "pages": Toy(
        "--rows 4000 --items 3000 --most 60000",
        {r"^\| .* \| \d+ \| \d+ \|$": 24, r"^Measured on .*load \d+\.\d before and": 1},
    ),
    "rows": Toy(
        "--rows 4000 8000 --databases sqlite --out {folder}/page.md",
        {
            r"^\| .* \| (seconds|GB|rows/s) \| .* \| [\d.,]+ \| [\d.,]+ \| .*\|$": 22,
            r"the night's set has the same digest": 2,
        },
        "page.md",
    ),
    "snips_loop": Toy(
        "--home {folder}/home --cycles 1 --messages 40 --examples 24 --epochs 1 --validation 100"
        " --plot {folder}/curve.svg",
        {
            rf"^\| no training \| - \| - \| {SHARE} \|": 1,
            rf"^\| cycle 1 \| \d+ \| \d\.\d min \| {SHARE} \|": 1,
        },
        needs=("data",),
        environment=(("RATCHET_BASE_MODEL", "{model}"),),
    ),
    "snips_tools": Toy(
        "--home {folder}/home --commands 30 --held-out 24 --epochs 1 --longest-row 1000"
        " --plot {folder}/calls.svg",
        {
            rf"^\| `(rate_book|add_to_playlist|find_work)` \| {SHARE} \| {SHARE} \|": 3,
            rf"^\| \*\*all\*\* \| {SHARE} \| {SHARE} \|": 1,
            r"^30 commands sent, \d+ answered with a call, \d+ rightly; \d+ rows trained on": 1,
        },
        needs=("data",),
        environment=(("RATCHET_BASE_MODEL", "{model}"), ("RATCHET_CHAT_TEMPLATE", "hermes")),
    ),
    "statements": Toy("", {r"^ *[\d,]+  total$": 1, r"^ *[\d,]+  stats$": 1}),
    "training_throughput": Toy(
        "--base {model} --rows 8 --rounds 1",
        {r"^\| (TRL's script|Ratchet|Ratchet, multiply: medium) \| \d+\.\d \|": 3},
        needs=("data",),
    ),
    "upkeep": Toy(
        "--passes 2",
        {
            r"^\| (analyze, five-minute pass|rollout, look) \| [12] \| \d+\.\d\d \|": 2,
            r"^\| (Prefect|MLflow) \| (-?[\d,]+ \| ){4}[\d,]+ \|$": 2,
            r"^- (Prefect|MLflow): .* (Under|OVER) 2 GB\.$": 2,  # two runs are no measure
            r"^5 flow runs deleted\.$": 1,
        },
    ),
}


def programs() -> dict[str, ast.Module]:
    return {
        path.stem: ast.parse(path.read_text("utf-8"))
        for path in sorted(FOLDER.glob("*.py"))
        if not path.name.startswith(("test_", "__"))
    }


def runs(program: ast.Module) -> bool:
    """Whether a module does something when it is run."""
    asks = any(
        isinstance(node, ast.If) and "__name__" in ast.unparse(node.test) for node in program.body
    )
    return asks or any(
        isinstance(node, ast.FunctionDef) and node.name == "main" for node in program.body
    )


def imported(program: ast.Module) -> set[str]:
    """Return the benchmarks that a module imports."""
    found = set()
    for node in ast.walk(program):
        if isinstance(node, ast.ImportFrom) and node.module == "tests.benchmarks":
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "tests.benchmarks."
        ):
            found.add(str(node.module).rpartition(".")[2])
    return found


def test_every_benchmark_has_a_toy_size_and_every_toy_size_a_benchmark() -> None:
    found = {name for name, program in programs().items() if runs(program)}
    assert found == {*TOYS, *ELSEWHERE}


def test_every_other_module_is_a_helper_that_a_benchmark_with_a_toy_size_imports() -> None:
    known = programs()
    helpers = {name for name, program in known.items() if not runs(program)}
    assert {name for name in helpers if not name.startswith("gpu_")} == HELPERS
    imports = {name: imported(program) for name, program in known.items()}
    reached = {*TOYS, *ELSEWHERE}
    for _ in known:
        reached |= {name for one in reached for name in imports[one]}
    assert reached >= helpers


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("name", sorted(TOYS))
def test_a_benchmark_reports_its_rows_at_toy_size(
    name: str, tmp_path: Path, tiny_model: Path, request: pytest.FixtureRequest
) -> None:
    toy = TOYS[name]
    _skip_without(toy.needs, request)
    before = _pages()
    places = {"folder": tmp_path, "model": tiny_model}
    done = subprocess.run(
        [
            sys.executable, "-m", f"tests.benchmarks.{name}",
            *[word.format_map(places) for word in toy.arguments.split()],
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS,
        env=_environment(tmp_path)
        | {key: value.format_map(places) for key, value in toy.environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = (tmp_path / toy.report).read_text("utf-8") if toy.report else done.stdout
    found = {row: len(re.findall(row, report, re.M)) for row in toy.rows}
    assert found == toy.rows, report[-6000:]
    assert _pages() == before


def _skip_without(needs: tuple[str, ...], request: pytest.FixtureRequest) -> None:
    if "data" in needs:
        request.getfixturevalue("shared_data")
    if "isolation" in needs:
        try:
            require_isolation()
        except IsolationError as error:
            pytest.skip(f"runs untrusted code: {error}")


def _environment(folder: Path) -> dict[str, str]:
    """Return an environment without the machine's settings; what is temporary lies in `folder`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "MLFLOW_", "RATCHET_")) or name == "RATCHET_CACHE"
    }
    places = [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    temporary = folder / "tmp"
    temporary.mkdir()
    return kept | {
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
        "TMPDIR": str(temporary),
        "HF_HUB_OFFLINE": "1",
        # threads that wait for each other in every product cost more than they bring here
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def _pages() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (ROOT / "docs").glob("*.md")}
