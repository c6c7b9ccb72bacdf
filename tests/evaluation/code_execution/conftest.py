"""Fixtures of the tests of evaluation."""

import pytest

from ratchet.errors import IsolationError
from ratchet.evaluation.code_execution.sandbox import require_isolation


@pytest.fixture(scope="session")
def isolation() -> None:
    """Skip where the machine cannot isolate untrusted code."""
    try:
        require_isolation()
    except IsolationError as error:
        pytest.skip(f"runs untrusted code: {error}")
