"""Intervals and tests for success rates. Pure functions of counts; nothing here knows what an episode is.

All intervals are two-sided score intervals, so that they stay inside the possible range and keep their
coverage at rates of 0 and 1, where the textbook ("Wald") intervals collapse to a point:

- one rate: Wilson (1927);
- difference of two rates measured on the same seeds: Tango (1998), Statistics in Medicine 17:891-908;
- whether that difference could be chance: McNemar's exact test, which looks at the discordant pairs only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """One success rate minus another, over the seeds that both were measured on.

    `difference`, `low`, `high` lie in [-1, 1]; negative: worse than what it is compared to.
    `p_value` is McNemar's exact one.
    """

    difference: float
    low: float
    high: float
    p_value: float
    pairs: int

    def __post_init__(self) -> None:
        if self.pairs < 1:
            raise ValueError(f"pairs: got {self.pairs}, expected at least 1")
        if not -1.0 <= self.low <= self.difference:
            raise ValueError(f"low: got {self.low}, expected -1 <= low <= difference ({self.difference})")
        if not self.difference <= self.high <= 1.0:
            raise ValueError(f"high: got {self.high}, expected difference ({self.difference}) <= high <= 1")
        if not 0.0 <= self.p_value <= 1.0:
            raise ValueError(f"p_value: got {self.p_value}, expected a number in [0, 1]")


def mean_known(values: Iterable[float | None]) -> float | None:
    """The mean of those that are there; None if none is."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def wilson_interval(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval for a rate; with no trials nothing is known and the interval is (0, 1)."""
    if not 0 <= successes <= trials:
        raise ValueError(f"successes: got {successes} of {trials} trials, expected 0 <= successes <= trials")
    if trials == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest  # loads for long, and workers have no use for it

    interval = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    # Rounding inside can leave 0/n a hair above zero, or n/n a hair below one.
    low = 0.0 if successes == 0 else float(interval.low)
    high = 1.0 if successes == trials else float(interval.high)
    return low, high


def mcnemar_exact(first_only: int, second_only: int) -> float:
    """Two-sided p-value of "both rates are equal", from the counts of pairs in which only one succeeded."""
    if first_only < 0 or second_only < 0:
        raise ValueError(f"counts of pairs: got {first_only} and {second_only}, expected 0 or more")
    if first_only + second_only == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(first_only, first_only + second_only, 0.5).pvalue)


def tango_interval(
    first_only: int, second_only: int, pairs: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Tango's score interval for P(first) - P(second) from paired outcomes.

    Args:
        first_only, second_only: pairs in which only the first, or only the second, succeeded (b and c).
        pairs: all pairs (n), the concordant ones included.

    Returns: the differences d whose score |T(d)| (Tango 1998, eq. 11) does not exceed the normal quantile.
    """
    b, c, n = first_only, second_only, pairs
    if n < 1 or b < 0 or c < 0 or b + c > n:
        raise ValueError(f"got {b} and {c} discordant of {n} pairs, expected 0 <= both together <= pairs, pairs >= 1")
    from scipy.optimize import brentq
    from scipy.stats import norm

    z = float(norm.ppf(0.5 + confidence / 2.0))

    def score(d: float) -> float:
        # q: the maximum-likelihood P(second only) given that the true difference is d.
        half_b = -(b + c) + (2 * n - b + c) * d
        q = (math.sqrt(max(half_b**2 + 8 * n * c * d * (1 - d), 0.0)) - half_b) / (4 * n)
        variance = n * (2 * q + d * (1 - d))
        numerator = b - c - n * d
        if variance <= 0.0:
            return 0.0 if numerator == 0 else math.copysign(math.inf, numerator)
        return numerator / math.sqrt(variance)

    estimate = (b - c) / n
    edge = 1.0 - 1e-12
    low, high = -1.0, 1.0  # where the score never reaches the quantile; brentq needs finite scores, hence 1e6
    if estimate > -edge and score(-edge) > z:
        low = float(brentq(lambda d: min(score(d), 1e6) - z, -edge, estimate))
    if estimate < edge and score(edge) < -z:
        high = float(brentq(lambda d: max(score(d), -1e6) + z, estimate, edge))
    return min(low, estimate), max(high, estimate)


def paired_difference(
    first: Sequence[bool], second: Sequence[bool], confidence: float = CONFIDENCE
) -> PairedDifference:
    """Rate of `first` minus rate of `second`; element i of both comes from the same seed."""
    if len(first) != len(second):
        raise ValueError(f"got {len(first)} and {len(second)} outcomes, expected pairs")
    if not first:
        raise ValueError("got no pairs, expected at least 1")
    first_only = sum(bool(a) and not b for a, b in zip(first, second, strict=True))
    second_only = sum(bool(b) and not a for a, b in zip(first, second, strict=True))
    low, high = tango_interval(first_only, second_only, len(first), confidence)
    return PairedDifference(
        difference=(first_only - second_only) / len(first),
        low=low,
        high=high,
        p_value=mcnemar_exact(first_only, second_only),
        pairs=len(first),
    )
