import pytest

from pipelines.collectives import Link
from pipelines.errors import InputError
from pipelines.predict import parse_network


def test_a_rate_counts_in_bits_and_a_latency_in_seconds():
    network = parse_network("100gbit")
    assert network.seconds_per_byte == pytest.approx(8e-11)
    assert network.latency_seconds == 0
    assert parse_network("2.5mbit").seconds_per_byte == pytest.approx(3.2e-6)
    for both in (parse_network("25gbit,2us"), parse_network("25gbit", "2us")):
        assert both.latency_seconds == pytest.approx(2e-6)
        assert both.name == "25gbit, 2us"
    assert parse_network("1gbit", "0.5ms").latency_seconds == pytest.approx(5e-4)


def test_a_byte_costs_what_is_slower_the_software_or_the_wire():
    fast, slow = Link(1e-5, 1e-11), Link(1e-5, 1e-8)
    network = parse_network("100gbit,3us")
    assert network.carry(fast) == Link(pytest.approx(1.3e-5), pytest.approx(8e-11))
    assert network.carry(slow).seconds_per_byte == 1e-8


@pytest.mark.parametrize("rate", ["", "100", "100gb", "fast", "-1gbit", "0gbit", "0.0kbit"])
def test_what_is_no_rate_is_answered_with_one(rate):
    with pytest.raises(InputError, match=r"^--network .*such as 100gbit"):
        parse_network(rate)


@pytest.mark.parametrize("latency", ["", "2", "2s", "-2us"])
def test_what_is_no_latency_is_answered_with_one(latency):
    with pytest.raises(InputError, match=r"^--latency .*such as 2us"):
        parse_network("1gbit", latency)


def test_two_latencies_are_one_too_many():
    with pytest.raises(InputError, match="--latency 2us: --network gives one already"):
        parse_network("1gbit,1us", "2us")
