"""Numbers as people read them: shares as per cent, differences in points, a dash where there is no number."""

from __future__ import annotations

from eval.statistics import PairedDifference

NONE = "\N{EN DASH}"


def percent(share: float) -> str:
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def interval(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def rate_and_interval(rate: float | None, low: float, high: float) -> str:
    return NONE if rate is None else f"{100 * rate:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("+0.0", "0.0").replace("-0.0", "0.0").replace("-", "\N{MINUS SIGN}")


def points_and_interval(d: PairedDifference | None) -> str:
    return NONE if d is None else f"{points(d.difference)} ({points(d.low)} to {points(d.high)})"


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def number(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def centimetres(metres: float | None) -> str:
    return NONE if metres is None else f"{100 * metres:.1f} cm"


def thousands(count: int | None) -> str:
    """A count with thin spaces between its thousands."""
    return NONE if count is None else f"{count:,}".replace(",", "\N{THIN SPACE}")
