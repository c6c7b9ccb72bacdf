"""Fixtures that the tests of raters share."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="module")
def inter_rater() -> Any:
    """The functions of statsmodels that agreement is compared with."""
    return pytest.importorskip(
        "statsmodels.stats.inter_rater", reason="compares with statsmodels, which is not installed"
    )
