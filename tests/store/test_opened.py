"""Opening a store that may not be there: nothing is made by asking."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratchet.errors import InvalidInputError
from ratchet.store import EventStore


@pytest.fixture
def store_url(empty_url: str) -> str:
    return empty_url


def test_a_store_that_is_not_there_is_not_made_by_opening_it(store_url):
    assert EventStore.opened(store_url) is None
    assert EventStore.opened(store_url) is None
    if store_url.startswith("sqlite"):
        assert not Path(store_url.partition(":///")[2]).exists()
    EventStore.open(store_url).close()
    found = EventStore.opened(store_url)
    assert found is not None
    assert found.assistant is None
    found.close()


def test_a_store_tells_whose_it_is(store_url):
    EventStore.open(store_url, assistant="shop").close()
    found = EventStore.opened(store_url)
    assert found is not None
    assert found.assistant == "shop"
    found.close()


@pytest.mark.parametrize("url", ["mysql://x", "nonsense", "postgresql://127.0.0.1:9/x"])
def test_what_is_no_store_is_refused(url):
    with pytest.raises(InvalidInputError, match="the store must"):
        EventStore.opened(url)
