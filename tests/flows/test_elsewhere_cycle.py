"""A cycle about a model that somebody else serves: collected, judged and analysed from its log."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from ratchet.records import Analysis, Cycle, ExampleSet, HumanLabel, JudgeValidation, Release
from tests.cli.in_process import run_in_process
from tests.doors.foreign_log import write_export
from tests.flows.prefect_home import PrefectHome, new_home, python_process
from tests.flows.team import ALWAYS
from tests.servers.judge_endpoint import Answer, JudgeEndpoint, Seen

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
OLD, NEW = "gpt-4o-2024-08-06", "gpt-4o-2024-11-20"
NOW = datetime.now(UTC)
IMPORTS = """
from ratchet.flows.analyze import AnalyzeOptions, analyze
from ratchet.flows.collect import CollectOptions, collect
from ratchet.flows.loop import main
"""
CYCLE = "collect(CollectOptions())\nanalyze(AnalyzeOptions())"


def always_good(_seen: Seen) -> Answer:
    return Answer(text='{"verdict": "good"}')


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, served_once: Path) -> Iterator[PrefectHome]:
    """A home after a cycle about each of two snapshots, and a loop that has no weights."""
    folder = tmp_path_factory.mktemp("elsewhere")
    with JudgeEndpoint(always_good) as judge:
        options = [
            {"name": "good", "score": 1.0, "means": "it does"},
            {"name": "bad", "score": 0.0, "means": "it does not"},
        ]
        asked = {"name": "usefulness", "question": "Is it of use?", "options": options}
        spec = {
            "name": "helper", "dimension": "usefulness",
            "endpoint": {"url": judge.url, "model": "m"},
        }  # fmt: skip
        told = yaml.safe_dump({"dimensions": [asked], "judges": [spec]})
        (folder / "judges.yaml").write_text(told)
        variables = {
            "RATCHET_JUDGES": str(folder / "judges.yaml"), "RATCHET_EMBEDDING": "words",
        }  # fmt: skip
        made = new_home(folder, served_once, **variables)

        def ratchet(*words: object) -> None:
            known = {"RATCHET_HOME": str(made.settings.home)} | variables
            done = run_in_process(*words, folder=folder, environment=known)
            assert done.returncode == 0, done.stdout + done.stderr

        write_export(folder / "first", OLD, NOW - timedelta(hours=60), 36, down=0.1)
        write_export(folder / "second", NEW, NOW - timedelta(hours=24), 24, down=0.3)
        ratchet("import", folder / "first")
        ratchet("adopt", "--elsewhere", OLD)
        label(made)
        with made.serving() as environment, python_process(environment, IMPORTS) as run:
            run(CYCLE)
            ratchet("import", folder / "second")
            run(CYCLE)
            (folder / "said.txt").write_text(run("print('ended with', main([]))"))
        yield made


def label(home: PrefectHome) -> None:
    """Have a person label answers, enough of them for a judge to be held against."""
    ids = [row.id for part in home.store.iter_interactions(ALWAYS) for row in part][:60]
    for number, key in enumerate(ids):
        home.store.append(
            HumanLabel(
                id=f"l{number}", created_at=NOW, item_id=key, dimension="usefulness",
                label="bad" if number % 4 == 0 else "good", reviewer="ana",
            )
        )  # fmt: skip


def test_each_snapshot_has_a_cycle_and_an_analysis_of_its_own(home: PrefectHome) -> None:
    first, second = home.store.records(Cycle)
    assert (first.champion, second.champion) == (OLD, NEW)
    assert [one.model_version for one in home.store.records(Analysis)] == [OLD, NEW]
    actions = [one.action for one in home.store.records(Release)]
    assert actions == ["adopt", "released elsewhere"]
    thumbs = [
        next(metric for metric in one.metrics if metric.name == "thumbs_down_rate")
        for one in home.store.records(Analysis)
    ]
    assert [metric.observations for metric in thumbs] == [36 * 20, 24 * 20]


def test_a_judge_is_held_against_labels_of_its_answers(home: PrefectHome) -> None:
    (validation, *_) = home.store.records(JudgeValidation)
    assert validation.judge == "helper"
    assert validation.items == 60
    assert validation.decision == "not usable"  # it calls everything good


def test_without_weights_a_cycle_needs_no_examples_and_a_loop_says_what_it_can(
    home: PrefectHome,
) -> None:
    sets = home.store.records(ExampleSet)
    for cycle in home.store.records(Cycle):
        assert cycle.example_set_id in {"", *(one.id for one in sets)}
    said = (home.settings.home.parent / "said.txt").read_text()
    assert "ended with 0" in said
    assert "where nobody has them nothing is trained" in said
