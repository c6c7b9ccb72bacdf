import pytest
from pydantic import ValidationError

from ratchet.flows.improve import ImproveOptions


def test_settings_from_when_users_were_compared_up_to_a_size_are_taken():
    old = {"sources": {"compare_users": 50_000, "per_cluster": 3}}
    assert ImproveOptions.model_validate(old) == ImproveOptions.model_validate(
        {"sources": {"per_cluster": 3}}
    )


def test_settings_that_turned_the_comparison_off_are_refused_with_the_way_out():
    with pytest.raises(ValidationError, match=r"must not be 0.*pass enabled: false"):
        ImproveOptions.model_validate({"sources": {"compare_users": 0}})
