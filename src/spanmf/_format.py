"""Numbers as people read them."""

from __future__ import annotations

import math

MINUS = "−"


def number(value: float, digits: int = 3) -> str:
    """A number to ``digits`` significant digits: whole ones and large ones with commas, tiny ones as powers of ten."""
    value = float(value)
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    if value == round(value) or abs(value) >= 10**digits:
        text = f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.{digits - 1}e}"
    elif abs(value) < 1e-4:
        text = f"{value:.{max(digits - 2, 0)}e}"
    else:
        text = f"{value:.{max(digits - 1 - math.floor(math.log10(abs(value))), 0)}f}"
    if "e" in text:
        mantissa, _, power = text.partition("e")
        text = f"{mantissa}e{int(power)}"
    text = text.replace("-", MINUS)
    return text.removeprefix(MINUS) if not text.strip(f"{MINUS}0.,") else text


def percent(share: float) -> str:
    """A share as a percentage, with a decimal where it is small."""
    if math.isnan(share):
        return "–"
    if 0 < abs(share) < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.{1 if 0 < abs(share) < 0.0995 else 0}f} %".replace("-", MINUS)


def count(n: float, one: str, many: str | None = None) -> str:
    """``1 cell``, ``1,234 cells``."""
    return f"{n:,.0f} {one if n == 1 else many or one + 's'}"
