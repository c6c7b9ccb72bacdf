"""The catalogue of signals: it is consistent, and a declaration is all that a new signal takes."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from ratchet.errors import InvalidInputError
from ratchet.outcomes.quality import QualityWeights
from ratchet.records import Feedback, WatchedSignal, events
from ratchet.records.signals import (
    BOARD_SHARES,
    BY_NAME,
    FEEDBACK_KINDS,
    ROLLOUT_SHARES,
    SIGNAL_OF,
    SIGNALS,
    STANDS_FOR,
    words_of,
)
from tests.outcomes.made_outcomes import outcomes

ROOT = Path(__file__).parents[2]
CLASS = '''

class {name}(Feedback):
    """A signal that a test adds, implicit."""

    kind: Literal["{kind}"] = "{kind}"
    value: Annotated[bool, Field(strict=True)] = True
'''
DECLARATION = """    Signal(
        name="{kind}",
        source="implicit",
        record=events.{name},
        column="{kind}_answers",
        many="{kind} signals",
        bad={bad},
        part=QualityPart(name="{part}", weight=0.20),
        rate=Rate(metric="{kind}_rate", of="bad"),
        limits=Limits(
            warning=0.2,
            critical=0.4,
            minimum_sample=50,
            warning_action="look",
            critical_action="stop",
        ),
        reason=Reason(words="{share} by its user"),
        shares=(
            WatchedShare(name="{share}", words="answers {share}", rollout=True, margin=0.04),
        ),
    ),
"""
ADDED = {
    "abandon": {"name": "Abandon", "bad": True, "part": "not_abandoned", "share": "abandoned"},
    "forward": {"name": "Forward", "bad": False, "part": "forwarded", "share": "not_forwarded"},
}


# Consistency --------------------------------------------------------------------------------------


def test_every_class_of_feedback_is_declared_once_under_its_kind() -> None:
    declared = [signal.record for signal in SIGNALS if signal.record]
    assert sorted(map(str, declared)) == sorted(map(str, Feedback.__subclasses__()))
    for kind in FEEDBACK_KINDS:
        record = BY_NAME[kind].record
        assert record is not None
        assert record.model_fields["kind"].default == kind


@pytest.mark.parametrize(
    "names",
    [
        [signal.name for signal in SIGNALS],
        [signal.column for signal in SIGNALS if signal.column],
        [signal.rate.metric for signal in SIGNALS if signal.rate],
        [signal.part.name for signal in SIGNALS if signal.part],
        [share.name for signal in SIGNALS for share in signal.shares],
        [share.words for signal in SIGNALS for share in signal.shares],
        [signal.reason.rank for signal in SIGNALS if signal.reason],
    ],
    ids=["signals", "columns", "metrics", "parts", "shares", "words", "ranks"],
)
def test_no_two_signals_share_a_name(names: list[object]) -> None:
    assert len(set(names)) == len(names) > 3


def test_limits_are_on_a_rate_of_bad_answers_whose_share_a_board_watches_first() -> None:
    limited = [signal for signal in SIGNALS if signal.limits]
    assert {signal.name for signal in limited if signal.rate is None} == {"latency_seconds"}
    for signal in limited:
        assert signal.shares[0] in BOARD_SHARES
        assert signal.rate is None or signal.rate.of == "bad"
        assert (signal.rate is None) == (signal.limits.metric is not None)  # type: ignore[union-attr]


def test_exactly_one_share_is_what_the_default_rollout_is_about() -> None:
    assert [share.name for share in ROLLOUT_SHARES if share.primary] == ["thumbs_down"]
    assert all(share.rollout for share in ROLLOUT_SHARES if share.margin is not None)


def test_what_is_no_cut_of_a_number_says_which_side_is_bad() -> None:
    for share in BOARD_SHARES:
        signal = SIGNAL_OF[share.name]
        assert share.cut is not None or signal.bad is not None, share.name


def test_boards_and_rollouts_keep_the_order_in_which_their_numbers_are_stored() -> None:
    # the order of version 0.1, whose boards are in people's stores; what came later (edited,
    # dissatisfied, what answers carry) is in baselines and rollouts that began since
    assert [share.name for share in BOARD_SHARES] == [
        "thumbs_down", "regenerated", "not_copied", "not_completed", "low_quality",
        "low_judge_score", "edited", "dissatisfied", "unfit_calls", "unparsable_calls",
        "wrong_format", "unsafe", "failed", "slower_than_median", "slower_than_p99",
        "longer_than_usual", "shorter_than_usual", "many_tokens", "costly", "no_feedback",
        "no_signals",
    ]  # fmt: skip
    assert [share.name for share in ROLLOUT_SHARES] == [
        "thumbs_down", "regenerated", "not_copied", "not_completed", "unfit_calls",
        "unparsable_calls", "wrong_format", "unsafe", "failed", "slow", "many_tokens", "costly",
    ]  # fmt: skip
    assert list(QualityWeights.model_fields) == [
        "explicit", "judge", "implicit", "copied", "not_regenerated", "task_completed", "engaged",
        "engaged_after_seconds",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "number", "bad"),
    [
        ("thumbs", 0.0, True), ("thumbs", 1.0, False), ("stars", 2.0, True), ("stars", 3.0, False),
        ("copy", 0.0, True), ("regenerate", 1.0, True), ("regenerate", 0.0, False),
        ("judge_score", 0.49, True), ("judge_score", 0.5, False), ("correction", 1.0, True),
        ("next_turn", 3.0, True), ("next_turn", 4.0, False), ("edited", 1.0, True),
        ("continued", 0.0, False), ("left", 1.0, False),
        ("comment", 1.0, False), ("session_end", 0.0, False), ("safety_violation", 0.0, False),
        ("thumbs", float("nan"), False), ("stars", float("nan"), False),
    ],
)  # fmt: skip
def test_the_bad_side_of_a_value_is_the_declared_one(name: str, number: float, bad: bool) -> None:
    assert BY_NAME[name].is_bad(number) is bad


def test_bad_answers_by_a_number_lie_below_what_is_declared_and_unknown_stays_unknown() -> None:
    numbers = np.array([1.0, 3.0, 4.0, np.nan])
    bad, good = (
        turn(numbers)
        for turn in (BY_NAME["next_turn"].bad_answers, BY_NAME["next_turn"].good_answers)
    )
    assert bad.tolist()[:3] == [1.0, 1.0, 0.0]
    assert good.tolist()[:3] == [0.0, 0.0, 1.0]
    assert np.isnan(bad[3])
    assert np.isnan(good[3])


def test_what_is_derived_stands_for_a_reported_kind_of_the_same_type() -> None:
    for kind, stand_in in STANDS_FOR.items():
        assert BY_NAME[stand_in].source == "traffic"
        assert BY_NAME[kind].value == BY_NAME[stand_in].value
        assert BY_NAME[stand_in].column is None  # it is read as the reported kind


def test_a_signal_without_a_column_is_not_read_from_outcomes() -> None:
    with pytest.raises(InvalidInputError, match="got dimension; give it a column"):
        outcomes([{}]).observed(BY_NAME["dimension"])


def test_a_rollout_watches_shares_of_the_catalogue_alone() -> None:
    with pytest.raises(ValidationError, match="'thumbs_down', 'regenerated'"):
        WatchedSignal(name="charm", margin=0.02)


def test_what_has_no_words_of_its_own_is_said_by_its_name() -> None:
    assert words_of("not_completed") == "tasks not completed"
    assert words_of("thumbs_down_rate") == "thumbs down rate"


# A new signal -------------------------------------------------------------------------------------


def declare(kind: str, folder: Path) -> Path:
    """Copy the library and add a signal to it, as its developer would: in two files."""
    library = folder / "ratchet"
    ignored = shutil.ignore_patterns("flows", "__pycache__", "static", "templates")
    shutil.copytree(ROOT / "src" / "ratchet", library, ignore=ignored)
    (library / "flows").mkdir()
    words = {"kind": kind, **ADDED[kind]}
    records = library / "records" / "events.py"
    records.write_text(records.read_text("utf-8") + CLASS.format(**words), "utf-8")
    catalogue = library / "records" / "signals.py"
    lines = catalogue.read_text("utf-8").splitlines(keepends=True)
    tree = ast.parse("".join(lines))
    (found,) = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and any(ast.unparse(word) == "name='session_end'" for word in node.keywords)
    )
    assert found.end_lineno is not None
    lines.insert(found.end_lineno, DECLARATION.format(**words))
    catalogue.write_text("".join(lines), "utf-8")
    return folder


def follow(kind: str, url: str, folder: Path) -> dict[str, Any]:
    """Run `tests.records.new_signal` on a library that declares the signal."""
    paths = os.pathsep.join([str(declare(kind, folder / "library")), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "tests.records.new_signal", kind, url, str(folder)],
        env=os.environ | {"PYTHONPATH": paths}, cwd=folder, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("store_url", "kind"),
    [
        ("sqlite", "abandon"),
        pytest.param("sqlite", "forward", marks=pytest.mark.slow),
        pytest.param("postgresql", "abandon", marks=pytest.mark.slow),
    ],
    indirect=["store_url"],
)
def test_a_declaration_and_a_record_class_are_all_that_a_new_signal_takes(
    store_url: str, kind: str, tmp_path: Path
) -> None:
    found, added = follow(kind, store_url, tmp_path), ADDED[kind]
    bad = added["bad"]
    words = f"answers {added['share']}"

    # Stored: of six answers the fifth has no event and the sixth a value that is no yes or no.
    assert found["set_aside"] == 1
    assert (found["stored"]["kind"], found["stored"]["value"]) == (kind, True)
    assert found["counted"] == 4 + 78 * 20
    assert found["columns"] == [1.0, 0.0, 1.0, 0.0, None, None]
    assert found["in_the_api"]

    # Joined and weighed: the first answer was copied too (0.25 beside 0.20).
    assert found["column"][:4] == [1.0, 0.0, 1.0, 0.0]
    good = [float(value is not bad) for value in (True, False, True, False)]
    first = (0.25 + 0.20 * good[0]) / 0.45
    assert found["quality"][:4] == pytest.approx([first, *good[1:]])
    assert found["quality_alone"][:4] == good

    # Measured: two of four are bad; of the 120 answers of m/4 twelve in twenty.
    assert (found["metric"]["value"], found["metric"]["observations"]) == (0.5, 4)
    assert found["metric"]["name"] == f"{kind}_rate"
    assert found["why_failed"] == f"{added['share']} by its user"
    assert f"{kind}_rate" in found["thresholds"]
    assert found["over"] == [f"{kind}_rate"]
    assert found["charted"] == [words, pytest.approx(0.6)]
    assert found["last_hour"][f"{kind}_rate"] == pytest.approx(0.6)

    # Watched: two in twenty were bad on 48 hours of m/3.
    assert found["baseline"][added["share"]] == [48 * 2, 48 * 20]
    assert found["finding"] == [added["share"], words]
    assert words in found["message"]
    assert any(text.endswith(f": {added['share']} by its user") for text in found["timeline"])

    # Rolled out: a1, a3 had the champion and a2, a4 the challenger.
    assert found["events"] == ([2, 0] if bad else [0, 2])
    assert found["trials"] == [2, 2]
    assert found["margin"] == 0.04
    assert found["readout"] == added["share"]

    # Told.
    assert f"| {words} |" in found["rollout_text"]
    assert f"{4 + 78 * 20} {kind} signals" in " ".join(found["report"].split())
    assert f"{kind} rate" in found["report"]


def test_the_added_classes_are_not_in_this_process() -> None:
    assert not {added["name"] for added in ADDED.values()} & set(vars(events))
