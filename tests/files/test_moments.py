"""Times as people type them."""

from datetime import UTC, datetime

import pytest

from ratchet.errors import InvalidInputError
from ratchet.files.moments import read_moment

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T10:00Z", datetime(2026, 11, 1, 10, tzinfo=UTC)),
        ("2026-11-01T10:00:30.5-05:00", datetime(2026, 11, 1, 15, 0, 30, 500_000, tzinfo=UTC)),
        ("90d", datetime(2026, 9, 2, 12, tzinfo=UTC)),
        ("36h", datetime(2026, 11, 30, tzinfo=UTC)),
        ("2w", datetime(2026, 11, 17, 12, tzinfo=UTC)),
        ("30m", datetime(2026, 12, 1, 11, 30, tzinfo=UTC)),
    ],
)
def test_a_day_a_time_with_its_zone_and_how_long_ago_are_read(text, meant):
    assert read_moment(text, NOW) == meant
    assert read_moment(text, NOW).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "90", "90 d", "d", "-3d", "2026-13-01", "2026-11-31", "1767596400", "٣d",
     "999999w", "0001-01-01T00:00+14:00"],
)  # fmt: skip
def test_anything_else_is_refused_with_what_is_taken(text):
    with pytest.raises(InvalidInputError, match=r"a time is a day .2026-11-01.*90d.*correct it"):
        read_moment(text, NOW)


def test_a_time_of_day_without_its_zone_is_refused():
    with pytest.raises(InvalidInputError, match=r"needs its zone.*add Z for UTC"):
        read_moment("2026-11-01T10:00", NOW)
