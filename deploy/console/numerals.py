"""Numbers and times as people read them: the template filters of the console.

All are pure; an unknown value (None) is a dash and never 0. Times are Unix seconds, shown in UTC.
"""

import re
from datetime import UTC, datetime

from markupsafe import Markup, escape

UNKNOWN = "\N{EN DASH}"
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def percent(share: float | None, digits: int = 1) -> str:
    """0.971 -> '97.1 %'; whole percents lose their zero."""
    if share is None:
        return UNKNOWN
    text = f"{100 * share:.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text}\N{NO-BREAK SPACE}%"


def interval(low: float | None, high: float | None) -> str:
    """Both ends of a share's interval: '[95.8, 98.2]'."""
    if low is None or high is None:
        return ""
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


def usd(amount: float | None) -> str:
    """Dollars with as many digits as say something: '$12.31', '$0.0042'; a loss has a minus."""
    if amount is None:
        return UNKNOWN
    size = abs(amount)
    digits = 0 if size >= 1000 else 2 if size >= 0.1 or size == 0 else 4
    sign = "\N{MINUS SIGN}" if amount < 0 else ""
    return f"{sign}${size:,.{digits}f}"


def milliseconds(value: float | None) -> str:
    """'843 ms', above ten seconds '12.4 s'."""
    if value is None:
        return UNKNOWN
    space = "\N{NO-BREAK SPACE}"
    if value >= 10_000:
        return f"{value / 1000:.1f}{space}s"
    return f"{value:,.0f}{space}ms" if value >= 10 or value == 0 else f"{value:.1f}{space}ms"


def count(value: float | None) -> str:
    """'12,345'; fractions under ten keep one digit."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def duration(seconds: float) -> str:
    """'45 s', '3 min', '2 h', '4 d': the largest unit that fits."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.0f}\N{NO-BREAK SPACE}{unit}"
    return f"{max(0, seconds):.0f}\N{NO-BREAK SPACE}s"


def clock(at: float | None) -> str:
    """Time of day."""
    return UNKNOWN if at is None else f"{datetime.fromtimestamp(at, UTC):%H:%M:%S}"


def moment(at: float | None) -> str:
    """Day and time of day: '20 Nov 11:02:39'."""
    return UNKNOWN if at is None else f"{datetime.fromtimestamp(at, UTC):%-d %b %H:%M:%S}"


def coded(text: str) -> Markup:
    """Text as HTML, escaped, with `quoted` words as code."""
    pieces = re.split(r"`([^`]+)`", text)
    words = (
        Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(pieces)
    )
    return Markup("").join(words)
