"""The YAML file that says how long things are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratchet.errors import InvalidInputError
from ratchet.operate.retention import RetentionConfig, load_retention


def written(folder: Path, text: str) -> Path:
    path = folder / "retention.yaml"
    path.write_text(text, "utf-8")
    return path


def test_without_a_file_the_defaults_hold() -> None:
    assert load_retention(None) == RetentionConfig()


def test_a_file_changes_what_it_names_and_null_keeps_for_good(tmp_path: Path) -> None:
    read = load_retention(written(tmp_path, "interactions_days: null\npasses_days: 3\n"))
    assert read == RetentionConfig(interactions_days=None, passes_days=3)
    assert read.flow_runs_days == RetentionConfig().flow_runs_days


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("interactions_days: 39\n", "interactions_days: .*40.* got 39"),
        ("verdicts_days: 0\n", "verdicts_days: .* got 0"),
        ("verdict_days: 5\n", "verdict_days: Extra"),
        ("history_days: true\n", "history_days: .* got True"),  # meant to keep it, not one day
        ("interactions_days: yes\n", "interactions_days: .* got True"),
        ("late_days: false\n", "late_days: .* got False"),
        ("records_days: 90.5\n", "records_days: .* got 90.5"),
        ("passes_days: soon\n", "passes_days: .* got 'soon'"),
        ("- 3\n", "must hold a mapping"),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused_with_the_way_out(
    tmp_path: Path, text: str, named: str
) -> None:
    with pytest.raises(InvalidInputError, match=named):
        load_retention(written(tmp_path, text))
