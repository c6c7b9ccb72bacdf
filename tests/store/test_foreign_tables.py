"""Tables of other databases are read, and never made."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratchet.errors import InvalidInputError
from ratchet.store.foreign_tables import rows_of_table


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"must be there, got no file 'app\.db'"):
        list(rows_of_table(f"sqlite:///{tmp_path}/app.db#answers"))
    assert list(tmp_path.iterdir()) == []


def test_a_url_that_is_none_is_refused_without_its_password() -> None:
    with pytest.raises(InvalidInputError) as refused:
        list(rows_of_table("postgresql://ana:secret@host:fivefour/app#answers"))
    assert "secret" not in str(refused.value)
