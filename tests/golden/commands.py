"""What the commands with JSON say on small inputs, each run by the command's own entry point."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from ratchet.deploy.rollout.canary import start_rollout
from ratchet.records import (
    Alert,
    Analysis,
    Comment,
    Correction,
    Cycle,
    CycleEnd,
    Decision,
    Interaction,
    Message,
    Release,
    SetAside,
    Stars,
    Thumbs,
)
from ratchet.store import EventStore
from tests.cli.in_process import run_main
from tests.deploy.rollout.served import NEW_VARIANT, PLAN, released

AT = datetime(2026, 11, 24, 9, tzinfo=UTC)
FOLDER = "FOLDER"  # stands for the temporary folder that a command ran in
Words = tuple[str, ...]
Case = tuple[Callable[[Path], None], Words]


def golden_commands() -> dict[str, Any]:
    """Return what each case of each command said, with its exit code and the keys of its JSON."""
    groups: Mapping[str, Mapping[str, Case]] = {
        "status": STATUS,
        "gate": GATE,
        "judge validate": JUDGE_VALIDATE,
        "failures": FAILURES,
    }
    return {
        command: {
            name: _outcome(prepare, (*command.split(), *words))
            for name, (prepare, words) in cases.items()
        }
        for command, cases in groups.items()
    }


def _outcome(prepare: Callable[[Path], None], words: Words) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        with _place(folder):
            prepare(folder)
            code, said, complained = _run(words)
    found: dict[str, Any] = {"arguments": list(words), "exit_code": code}
    if said:
        found["output"] = json.loads(said.replace(str(folder), FOLDER))
        found["keys"] = sorted(key_paths(found["output"]))
    if code == 2:  # else it holds progress
        found["error"] = complained.replace(str(folder), FOLDER)
    return found


def _run(words: Words) -> tuple[int, str, str]:
    """Run the command in this process, as its entry point does."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    ours = logging.getLogger("ratchet")
    handlers, level = list(ours.handlers), ours.level
    sys.argv = ["ratchet", *words]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            run_main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        sys.argv = before
        ours.handlers[:] = handlers  # a command's own one writes to what was captured
        ours.setLevel(level)
    return code, out.getvalue(), err.getvalue()


@contextmanager
def _place(folder: Path) -> Iterator[None]:
    """Work in a folder with an empty home, and with no setting from outside."""
    before, kept = Path.cwd(), dict(os.environ)
    for name in [key for key in kept if key.startswith(("RATCHET_", "MLFLOW_", "PREFECT_"))]:
        del os.environ[name]
    os.environ["RATCHET_HOME"] = str(folder / "home")
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(kept)


def key_paths(value: Any, place: str = "") -> set[str]:
    """Return the keys of JSON as paths; `[]` stands for every entry of a list.

    Example:
        >>> sorted(key_paths({"a": [{"b": 1}]}))
        ['a', 'a[].b']
    """
    if isinstance(value, dict):
        paths: set[str] = set()
        for name, inner in value.items():
            path = f"{place}.{name}" if place else str(name)
            paths |= {path} | key_paths(inner, path)
        return paths
    if isinstance(value, list):
        return set().union(*(key_paths(inner, f"{place}[]") for inner in value))
    return set()


def _nothing(folder: Path) -> None:
    del folder


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


# Status -------------------------------------------------------------------------------------------


def _store(folder: Path) -> EventStore:
    (folder / "home").mkdir()
    return EventStore.open(f"sqlite:///{folder / 'home' / 'store.db'}", clock=lambda: AT)


def _cycle(store: EventStore) -> None:
    """One cycle of three interactions that ended in a promotion."""
    store.add_interactions(
        [
            Interaction(
                id=f"i{number}", session_id="s", user_id=f"u{number}", created_at=AT,
                model_version="support-router/1",
                messages=(Message(role="user", content=f"where is parcel {number}"),),
                response="billing",
            )
            for number in range(3)
        ]
    )  # fmt: skip
    common: dict[str, Any] = {"interaction_id": "i0", "created_at": AT}
    store.add_feedback(
        [
            Thumbs(id="f1", value="down", **common),
            Stars(id="f2", value=2, **common),
            Comment(id="f3", value="wrong team", **common),
            Correction(id="f4", value="delivery", **common),
        ]
    )
    store.set_aside(
        [SetAside(id="x", created_at=AT, source="a", position="row 1", reason="bad", raw="?")]
    )
    alert = Alert(
        id="a", created_at=AT, signal="thumbs_down_rate", severity="warning", value=0.3,
        model_version="support-router/1", lower=0.2, threshold=0.15, observations=50,
        message="too many thumbs down", action="read them",
    )  # fmt: skip
    for record in (
        Cycle(
            id="c", number=7, created_at=AT, champion="support-router/1", options_digest="o",
            seed=0, window_start=AT - timedelta(days=1), window_end=AT, example_set_id="e",
        ),
        Analysis(
            id="n", cycle_id="c", created_at=AT, model_version="support-router/1", metrics=(),
            alerts=(alert,), clusters=(),
        ),
        _decision(),
    ):  # fmt: skip
        store.append(record)


def _decision(**more: Any) -> Decision:
    values: dict[str, Any] = {
        "id": "d", "cycle_id": "c", "created_at": AT, "champion": "support-router/1",
        "challenger": "support-router/2", "verdict": "promote", "reasons": ("better: by far",),
        "primary_metric": "exact_match", "champion_value": 0.1, "challenger_value": 0.8,
        "difference": 0.7, "interval": (0.6, 0.8), "p_value": 1e-9, "examples": 300,
        "example_set_id": "e", "policy": {}, "evidence": {},
    }  # fmt: skip
    return Decision(**(values | more))


def _running(folder: Path) -> None:
    store = _store(folder)
    _cycle(store)
    store.close()


def _finished(folder: Path) -> None:
    store = _store(folder)
    _cycle(store)
    store.append(
        Release(
            id="r", created_at=AT, action="promote", champion="support-router/2",
            previous="support-router/1", decision_id="d",
        )
    )  # fmt: skip
    store.append(CycleEnd(id="c", created_at=AT, outcome="finished"))
    store.close()


def _waiting(folder: Path) -> None:
    store = _store(folder)
    store.append(_decision(id="waits", approval="its p-value is borderline"))
    store.close()


def _rolled_out(folder: Path) -> None:
    store = _store(folder)
    released(store, AT)
    start_rollout(store, NEW_VARIANT, PLAN, now=AT)
    store.close()


STATUS: dict[str, Case] = {
    "an empty home": (_nothing, ("--json",)),
    "a running cycle": (_running, ("--json",)),
    "a finished cycle and a new champion": (_finished, ("--json",)),
    "a promotion that waits for a person": (_waiting, ("--json",)),
    "a running rollout": (_rolled_out, ("--json",)),
}


# Gate ---------------------------------------------------------------------------------------------


def _scores(losses: int, wins: int, ties: int) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        pairs = [(1, 0)] * losses + [(0, 1)] * wins + [(1, 1)] * ties
        rows = [f"e{n},exact_match,{one},{two}\n" for n, (one, two) in enumerate(pairs)]
        head = "example_id,metric,champion,challenger\n"
        (folder / "scores.csv").write_text(head + "".join(rows), "utf-8")

    return write


def _approved(folder: Path) -> None:
    _scores(20, 60, 220)(folder)
    policy = "primary: {metric: exact_match}\napproval: always\n"
    (folder / "policy.yaml").write_text(policy, "utf-8")


def _several_metrics(folder: Path) -> None:
    """Scores of three metrics, by users, in two clusters, a few of them missing."""
    rng, rows = np.random.default_rng(11), []
    for number in range(400):
        right = rng.random(2) < (0.6, 0.75)
        scores = {
            "exact_match": tuple(float(one) for one in right),
            "rouge_l": tuple(np.round(0.5 * right + 0.5 * rng.random(2), 3).tolist()),
            "length": tuple(np.round(40 + 10 * rng.random(2), 1).tolist()),
        }
        for metric, (champion, challenger) in scores.items():
            missing = metric == "rouge_l" and number % 100 == 7
            rows.append(
                {
                    "example_id": f"e{number}", "metric": metric,
                    "champion": champion, "challenger": None if missing else challenger,
                    "user_id": f"u{number % 150}", "cluster": "card" if number % 3 else "pin",
                }
            )  # fmt: skip
    _lines(folder / "scores.jsonl", rows)
    (folder / "policy.yaml").write_text(
        "primary: {metric: exact_match, margin: 0.0, hold_margin: 0.05}\n"
        "guardrails:\n"
        "  - {metric: length, margin: 0.10, relative: true}\n"
        "  - {metric: exact_match, margin: 0.15, per_cluster: true}\n"
        "  - {metric: rouge_l, requires: no_harm, margin: 0.05, safety_critical: true}\n"
        "max_unscored_share: 0.1\n"
        "max_unscored_difference: 0.05\n"
        "approval: borderline\n",
        "utf-8",
    )


def _second_look(folder: Path) -> None:
    _scores(40, 62, 298)(folder)
    policy = "primary: {metric: exact_match}\nlooks: {maximum: 3, examples: 1000}\n"
    (folder / "policy.yaml").write_text(policy, "utf-8")


def _unknown_keys(folder: Path) -> None:
    _scores(20, 60, 220)(folder)
    policy = "primary: {metric: exact_match}\napproval: sometimes\nlevel: 1\n"
    (folder / "policy.yaml").write_text(policy, "utf-8")


_ON_CSV = ("--scores", "scores.csv", "--json")
_BY_POLICY = (*_ON_CSV, "--policy", "policy.yaml")
GATE: dict[str, Case] = {
    "promote": (_scores(20, 60, 220), _ON_CSV),
    "hold": (_scores(20, 22, 958), _ON_CSV),
    "reject": (_scores(60, 20, 220), _ON_CSV),
    "inconclusive": (_scores(10, 14, 26), _ON_CSV),
    "a promotion that waits": (_approved, _BY_POLICY),
    "a promotion that is approved": (_approved, (*_BY_POLICY, "--approved-by", "ana")),
    "users, clusters and guardrails": (
        _several_metrics,
        ("--scores", "scores.jsonl", "--json", "--policy", "policy.yaml"),
    ),
    "a second look": (_second_look, (*_BY_POLICY, "--earlier", "200")),
    "no such file": (_nothing, _ON_CSV),
    "a policy that breaks two rules": (_unknown_keys, _BY_POLICY),
}


# Judge validate -----------------------------------------------------------------------------------


def _labelled(agreeing: int, disagreeing: int, **fields: Any) -> list[dict[str, Any]]:
    human = [number % 2 + 1 for number in range(agreeing + disagreeing)]
    return [
        {"item_id": n, "human": h, "judge": h if n < agreeing else 3 - h} | fields
        for n, h in enumerate(human)
    ]


def _labels(*rows: dict[str, Any]) -> Callable[[Path], None]:
    return lambda folder: _lines(folder / "labels.jsonl", list(rows))


def _pairs() -> list[dict[str, Any]]:
    """Both orders, two people and a length, as a judge of pairs has them."""
    rng, rows = np.random.default_rng(5), []
    for number in range(160):
        truth = int(rng.integers(1, 3))
        other = {name: 3 - truth if rng.random() < share else truth for name, share in (
            ("judge", 0.08), ("judge_swapped", 0.12), ("human_2", 0.1),
        )}  # fmt: skip
        rows.append({"item_id": f"p{number}", "human": truth} | other)
    return rows


def _scale() -> list[dict[str, Any]]:
    rng, rows = np.random.default_rng(6), []
    for number in range(120):
        human = int(rng.integers(1, 6))
        judge = int(np.clip(human + rng.choice([-1, 0, 0, 0, 1]), 1, 5))
        rows.append({"item_id": f"s{number}", "human": human, "judge": judge})
    return rows


_ON_LABELS = ("labels.jsonl", "--json")
_FOREIGN = [{"item_id": n, "human": n % 2 + 1, "judge": n % 2, "run": "bad"} for n in range(40)]
JUDGE_VALIDATE: dict[str, Case] = {
    "usable": (_labels(*_labelled(145, 5)), _ON_LABELS),
    "not usable": (_labels(*_labelled(90, 60)), _ON_LABELS),
    "not enough labels": (
        _labels(*_labelled(34, 6), {"human": 1}, {"human": 1, "judge": None}),
        _ON_LABELS,
    ),
    "both orders and two people": (_labels(*_pairs()), _ON_LABELS),
    "a scale with weights": (
        _labels(*_scale()),
        (*_ON_LABELS, "--categories", "1,2,3,4,5", "--weights", "quadratic", "--seed", "3"),
    ),
    "one run of two refused": (_labels(*_labelled(39, 1, run="good"), *_FOREIGN), _ON_LABELS),
    "refused: other labels": (_labels(*_FOREIGN), _ON_LABELS),
    "refused: no such file": (_nothing, _ON_LABELS),
}


# Failures -----------------------------------------------------------------------------------------

_TOPICS = {
    "card": ("my card was stolen", "card lost on the train", "somebody took my card"),
    "loan": ("what is a loan for a house", "loan rates for a car", "loan to buy a boat"),
    "pin": ("how do I change my pin", "new pin please", "pin forgotten today"),
}


def _failed(card: float, others: float, count: int = 600) -> list[dict[str, Any]]:
    rng, rows = np.random.default_rng(0), []
    for number in range(count):
        topic = sorted(_TOPICS)[number % 3]
        text = f"{_TOPICS[topic][rng.integers(3)]} {number % 50}"
        failed = bool(rng.random() < (card if topic == "card" else others))
        rows.append({"text": text, "failed": failed, "user": f"u{number % 200}"})
    return rows


def _failures(*rows: dict[str, Any]) -> Callable[[Path], None]:
    return lambda folder: _lines(folder / "failures.jsonl", list(rows))


def _as_csv(folder: Path) -> None:
    rows = [f"{row['text']},{'yes' if row['failed'] else 'no'}\n" for row in _failed(0.6, 0.05)]
    (folder / "failures.csv").write_text("text,failed\n" + "".join(rows), "utf-8")


_BAD = ({"text": "x"}, {"text": 5, "failed": True}, {"text": "x", "failed": "perhaps"})
_ON_ROWS = ("failures.jsonl", "--json", "--embedding", "words")
FAILURES: dict[str, Case] = {
    "a cluster, beside bad rows": (_failures(*_BAD, *_failed(0.6, 0.05)), _ON_ROWS),
    "a cluster in a table without users": (
        _as_csv,
        ("failures.csv", "--json", "--embedding", "words", "--seed", "4"),
    ),
    "nothing to find": (_failures(*_failed(0.2, 0.2)), _ON_ROWS),
    "too few that failed": (_failures(*_failed(0.6, 0.05, count=24)), _ON_ROWS),
    "refused: no row can be used": (_failures({"text": "a"}), _ON_ROWS),
}
