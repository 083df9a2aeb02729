"""Sizes and rates: what is read is exact, what is not understood is refused, what is written reads well."""

from fractions import Fraction

import pytest

from comask.errors import ConfigError
from comask.experiments.plan_config import PLAN_SETTINGS
from comask.experiments.units import BYTES, COUNT, RATE, parse, show_bytes, show_prefix, show_seconds


@pytest.mark.parametrize(
    ("text", "units", "value"),
    [
        ("215370", COUNT, 215_370),
        ("11.2M", COUNT, 11_200_000),
        ("1.7 G", COUNT, 1_700_000_000),
        ("100kB", BYTES, 100_000),
        ("1.5 MB", BYTES, 1_500_000),
        ("2KiB", BYTES, 2048),
        ("3GiB", BYTES, 3 * 2**30),
        ("1Mbit/s", RATE, 1_000_000),
        ("56kbit/s", RATE, 56_000),
        ("2.5MB/s", RATE, 20_000_000),
        ("0.1kbit/s", RATE, 100),
    ],
)
def test_an_amount_is_read_exactly(text, units, value):
    assert parse(text, units) == Fraction(value)


@pytest.mark.parametrize(
    "text", ["", "k", "1K", "1e6", "-1", "+1", "1,000", "1_000", "1.k", ".5", "1 k k", "nan", "1\n"]
)
def test_what_is_no_amount_is_none(text):
    assert parse(text, COUNT) is None


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("params", "1.5", r"--params must be a whole number of at least 1, such as 215370 or 11\.2M \(units: k, M, G\), got '1\.5'"),
        ("params", "0", "--params must be a whole number"),
        ("params", "11.2MB", "--params must be a whole number"),
        ("uplink", "1Mb/s", r"--uplink must be a rate such as 1Mbit/s \(units: bit/s, kbit/s, .*GB/s\), got '1Mb/s'"),
        ("uplink", "0bit/s", "--uplink must be a rate"),
        ("uplink", "1000", "--uplink must be a rate"),
        ("budget", "100", r"--budget must be a size such as 100kB \(units: B, kB, MB, GB, KiB, MiB, GiB\), got '100'"),
        ("budget", "100KB", "--budget must be a size"),
    ],
)  # fmt: skip
def test_a_flag_says_what_it_allows(name, text, message):
    setting = PLAN_SETTINGS[name]
    with pytest.raises(ConfigError, match=message):
        setting.rule.read(setting.flag, text)


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (show_bytes(0), "0 B"),
        (show_bytes(999.4), "999 B"),
        (show_bytes(999.6), "1 kB"),
        (show_bytes(136_985), "137 kB"),
        (show_bytes(2_584_481), "2.58 MB"),
        (show_bytes(1_250_000_000_000), "1,250 GB"),
        (show_prefix(12.5), "12.5"),
        (show_prefix(56_000), "56k"),
        (show_prefix(1.07e9), "1.07G"),
        (show_seconds(0.000759), "759 µs"),
        (show_seconds(0.0009996), "1 ms"),
        (show_seconds(0.0123), "12.3 ms"),
        (show_seconds(0.9996), "1 s"),
        (show_seconds(20.675), "20.7 s"),
        (show_seconds(1075.2), "1,075 s"),
    ],
)
def test_amounts_are_written_with_three_digits(shown, text):
    assert shown == text
