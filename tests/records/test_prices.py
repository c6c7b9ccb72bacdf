import pytest

from ratchet.records.asking import Usage
from ratchet.records.prices import NO_PRICES, Price, Prices

PRICES = Prices(
    models={
        "router": Price(input=2.0, output=10.0),
        "router/7": Price(input=4.0, output=20.0, cached_input=1.0),
    }
)


@pytest.mark.parametrize(
    ("version", "usage", "cost"),
    [
        ("router/3", Usage(prompt_tokens=1_000_000, completion_tokens=100_000), 3.0),
        ("router", Usage(prompt_tokens=1_000_000, completion_tokens=100_000), 3.0),
        ("router/7", Usage(prompt_tokens=1_000_000, completion_tokens=100_000), 6.0),
        # 600,000 at 4 and 400,000 at 1
        (
            "router/7",
            Usage(prompt_tokens=1_000_000, completion_tokens=0, cached_tokens=400_000),
            2.8,
        ),
        ("router/3", Usage(prompt_tokens=500_000, completion_tokens=0, cached_tokens=400_000), 1.0),
        ("router/3", Usage(prompt_tokens=7, completion_tokens=7, cost=0.5), 0.5),
        ("other/1", Usage(prompt_tokens=7, completion_tokens=7, cost=0.5), 0.5),
        ("other/1", Usage(prompt_tokens=7, completion_tokens=7), None),
        ("router/3", Usage(prompt_tokens=7), None),
    ],
)
def test_what_is_stated_goes_before_the_price_of_the_longer_name(version, usage, cost):
    found = PRICES.cost(version, usage)
    assert found == (None if cost is None else pytest.approx(cost))


def test_without_prices_only_what_is_stated_is_known():
    usage = Usage(prompt_tokens=7, completion_tokens=7)
    assert NO_PRICES.cost("router/3", usage) is None
    assert NO_PRICES.cost("router/3", usage.model_copy(update={"cost": 1.0})) == 1.0
