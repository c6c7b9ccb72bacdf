"""The table of the page is what the rows came to."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.faults import table
from tests.faults.ledger import Row, kept_rows


def kept(folder: Path, key: str, **fields: object) -> None:
    row = asdict(Row(**fields))  # type: ignore[arg-type]
    (folder / f"{key}.json").write_text(json.dumps(row))


def test_rows_are_counted_and_the_rest_of_the_page_stays(tmp_path: Path) -> None:
    kept(
        tmp_path, "b", name="gateway under load", database="sqlite", faults="killed", kills=300,
        in_start=60, acknowledged=1_000, stored=1_000,
    )  # fmt: skip
    kept(tmp_path, "a", name="loop", database="postgresql", faults="killed", kills=20, stored=9)
    page = tmp_path / "page.md"
    page.write_text(f"# One\n{table.BEGIN}\nold\n{table.END}\n## Two\n")
    table.write(page, kept_rows(tmp_path))
    text = page.read_text()
    assert text.startswith("# One\n")
    assert text.endswith("## Two\n")
    assert "old" not in text
    assert "| gateway under load | sqlite | killed | 300 | 60 | 1,000 | 1,000 | 0 | 0 |" in text
    assert "Of gateways: 300 kills, 60 of them before" in text


def test_a_page_without_a_place_for_it_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One\n")
    with pytest.raises(SystemExit, match="faults:begin"):
        table.write(page, [])
