"""How numbers, durations and verdicts are written, the same way on every page, in every figure and log."""

import math
from pathlib import Path

import pytest

from losskernel.figures.html import banner, chip, write_page
from losskernel.figures.shared.presentation import TIMES, VERDICTS, in_unit, is_finite, is_number, number, with_error


def test_truth_values_and_words_are_no_numbers() -> None:
    assert [is_number(value) for value in (1, 0.5, math.inf, True, "1", None)] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    assert [is_finite(value) for value in (1, 0.5, math.inf, math.nan, False)] == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("value", "written"),
    [(12_345, "12,345"), (-0.123456, "−0.1235"), (None, "–"), ("none", "none"), (math.nan, "nan"), (True, "True")],
)
def test_numbers_have_four_digits_and_anything_else_stays(value: object, written: str) -> None:
    assert number(value) == written


@pytest.mark.parametrize(
    ("value", "error", "written"),
    [(0.51234, 0.0123, "0.512 ± 0.012"), (-1.0, 0.5, "−1.00 ± 0.50"), (12345.6, 321.0, "1.235e+04 ± 3.2e+02")],
)
def test_an_error_has_two_digits_and_its_value_as_many_decimals(value: float, error: float, written: str) -> None:
    assert with_error(value, error) == written


@pytest.mark.parametrize("error", [None, 0.0, math.nan])
def test_without_an_error_the_number_stands_alone(error: object) -> None:
    assert with_error(0.5, error) == "0.5"


def test_a_time_is_in_the_largest_unit_that_suits() -> None:
    assert [in_unit(seconds, TIMES) for seconds in (-3, 89, 90, 5400, 172_800)] == [
        *((0, "s"), (89, "s"), (1.5, "min"), (1.5, "h"), (2, "d")),
    ]


def test_verdicts_differ_in_icon_and_colour_and_pages_colour_all_of_them(tmp_path: Path) -> None:
    judged = [VERDICTS[verdict] for verdict in ("pass", "warn", "fail", "none")]
    for looks in ([look.icon for look in judged], [look.marker for look in judged], [look.colour for look in judged]):
        assert len(set(looks)) == len(judged)
    page = write_page(tmp_path / "page.html", "a <title>", [banner("fail", "words"), chip("warn")]).read_text()
    assert "<title>a &lt;title&gt;</title>" in page
    assert "<span>✕</span>" in page
    assert "<span class='chip warn'>! warn</span>" in page
    assert all(
        f".{verdict} {{ color: {look.ink}; background: {look.tint}; }}" in page for verdict, look in VERDICTS.items()
    )
