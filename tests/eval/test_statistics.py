"""Intervals and tests against published values, identities and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from eval.statistics import PairedDifference, mcnemar_exact, paired_difference, tango_interval, wilson_interval


def test_wilson_agrees_with_its_closed_form() -> None:
    z = 1.959963984540054
    for successes, trials in ((1, 10), (9, 10), (45, 50), (188, 200)):
        p = successes / trials
        centre = (p + z**2 / (2 * trials)) / (1 + z**2 / trials)
        half = z * math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2)) / (1 + z**2 / trials)
        assert wilson_interval(successes, trials) == pytest.approx((centre - half, centre + half), abs=1e-9)


def test_wilson_at_the_edges() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(0, 20)[0] == 0.0
    assert 0.0 < wilson_interval(0, 20)[1] < 0.2
    assert wilson_interval(20, 20)[1] == 1.0
    with pytest.raises(ValueError, match="got 3 of 2 trials"):
        wilson_interval(3, 2)


# Bentur 2009 and Cavo 2012 as worked in Fagerland, Lydersen & Laake, Statistical Analysis of Contingency Tables (2017);
# the last one is what R's PropCIs::scoreci.mp gives at 90 %.
@pytest.mark.parametrize(
    ("first_only", "second_only", "pairs", "confidence", "expected"),
    [
        (1, 7, 21, 0.95, (-0.517, -0.026)),
        (6, 16, 161, 0.95, (-0.1240, -0.0054)),
        (28, 25, 618, 0.90, (-0.0148, 0.0247)),
    ],
)
def test_tango_agrees_with_published_values(
    first_only: int, second_only: int, pairs: int, confidence: float, expected: tuple[float, float]
) -> None:
    assert tango_interval(first_only, second_only, pairs, confidence) == pytest.approx(expected, abs=5e-4)


def test_tango_is_symmetric_and_holds_the_estimate_for_every_small_table() -> None:
    for pairs in range(1, 13):
        for b in range(pairs + 1):
            for c in range(pairs + 1 - b):
                low, high = tango_interval(b, c, pairs)
                mirrored_low, mirrored_high = tango_interval(c, b, pairs)
                assert -1.0 <= low <= (b - c) / pairs <= high <= 1.0
                assert (low, high) == pytest.approx((-mirrored_high, -mirrored_low), abs=1e-8)
                assert high - low > 0.05


def test_tango_without_discordant_pairs_is_the_known_bound() -> None:
    z2 = 1.959963984540054**2
    assert tango_interval(0, 0, 50) == pytest.approx((-z2 / (50 + z2), z2 / (50 + z2)), abs=1e-9)


def test_tango_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    truth = np.array([0.62, 0.28, 0.05, 0.05])  # both, first only, second only, neither
    covered = 0
    for both, first_only, second_only, neither in rng.multinomial(60, truth, size=800):
        low, high = tango_interval(int(first_only), int(second_only), int(both + first_only + second_only + neither))
        covered += low <= truth[1] - truth[2] <= high
    assert 0.93 <= covered / 800 <= 0.98


def test_mcnemar() -> None:
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(0, 5) == pytest.approx(2 * 0.5**5)
    assert mcnemar_exact(6, 16) == pytest.approx(0.052479, abs=1e-6)
    assert mcnemar_exact(16, 6) == mcnemar_exact(6, 16)


def test_paired_difference_counts_pairs() -> None:
    first = [True, True, False, False, True]
    second = [True, False, True, False, False]
    found = paired_difference(first, second)
    assert found.pairs == 5
    assert found.difference == pytest.approx(0.2)
    assert (found.low, found.high) == tango_interval(2, 1, 5)
    assert found.p_value == mcnemar_exact(2, 1)


def test_bad_arguments_say_what_was_got() -> None:
    with pytest.raises(ValueError, match="got 1 and 2 outcomes"):
        paired_difference([True], [True, False])
    with pytest.raises(ValueError, match="got no pairs"):
        paired_difference([], [])
    with pytest.raises(ValueError, match="got 4 and 3 discordant of 5 pairs"):
        tango_interval(4, 3, 5)
    with pytest.raises(ValueError, match=r"low: got 0.5"):
        PairedDifference(difference=0.2, low=0.5, high=0.6, p_value=1.0, pairs=3)
