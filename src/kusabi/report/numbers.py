"""How a number is written. What is not known is a dash, never a zero.

Each function takes the words of a language first, so that a page binds them once.
"""

from collections.abc import Sequence
from decimal import Decimal

from kusabi.report.words import Words

ABSENT = "–"
NOISE = 1e-9  # sums of shares over seeds leave hairs this thin


def percent(words: Words, value: float | None) -> str:
    """A share in percent with one decimal, such as ``74.7 %``."""
    return ABSENT if value is None else words("number.percent", value=f"{value * 100:.1f}")


def small_percent(words: Words, value: float | None) -> str:
    """A share in percent with three significant digits, however small."""
    return ABSENT if value is None else words("number.percent", value=format(Decimal(f"{value * 100:.3g}"), "f"))


def accuracy_range(words: Words, interval: Sequence[float] | None) -> str:
    """An interval of shares, such as ``71.5 to 77.7 %``."""
    if interval is None:
        return ABSENT
    low, high = (f"{bound * 100:.1f}" for bound in interval)
    return words("number.accuracy_range", low=low, high=high)


def signed(value: float) -> str:
    """A difference of shares in points, with its sign and one decimal; two where one would hide that it is not zero."""
    if abs(value) < NOISE:
        return "0.0"
    digits = 1 if abs(value) >= 0.0005 else 2
    return f"{value * 100:+.{digits}f}".replace("-", "−")


def points(words: Words, value: float | None) -> str:
    """A difference of shares, such as ``+12.3 points``."""
    return ABSENT if value is None else words("number.points", value=signed(value))


def size_in_points(words: Words, value: float | None) -> str:
    """The size of a difference without a sign, such as ``3.4 points``."""
    return ABSENT if value is None else words("number.points", value=f"{value * 100:.1f}")


def points_range(words: Words, interval: Sequence[float]) -> str:
    """An interval of differences in points; the upper end shows its plus only beside a negative lower end."""
    low, high = (signed(bound) for bound in interval)
    return words("number.range", low=low.removeprefix("+"), high=high if low.startswith("−") else high.lstrip("+"))


def decimals(words: Words, value: float | None) -> str:
    """A plain number with three decimals."""
    return ABSENT if value is None else f"{value:.3f}"


def probability(words: Words, value: float | None) -> str:
    """A p-value; what rounds to zero is written as ``< 0.001``."""
    if value is None:
        return ABSENT
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def count(words: Words, value: int | None) -> str:
    """A whole number with thousands apart."""
    return ABSENT if value is None else f"{value:,}"


def volume(words: Words, value: float | None) -> str:
    """Bytes as kB (1,000 bytes), MB or GB."""
    if value is None:
        return ABSENT
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if value >= size:
            return f"{value / size:.1f}\u00a0{unit}"
    return f"{value / 1e3:.1f}\u00a0kB"


def duration(words: Words, value: float | None) -> str:
    """Seconds as ``12.3 s``, ``3 min 12 s`` or ``1 h 5 min``."""
    if value is None:
        return ABSENT
    if value < 59.95:
        return words("number.seconds", value=f"{value:.1f}")
    minutes, seconds = divmod(round(value), 60)
    if minutes < 60:
        return words("number.minutes", minutes=minutes, seconds=seconds)
    return words("number.hours", hours=minutes // 60, minutes=minutes % 60)


def speed(words: Words, value: float | None) -> str:
    """Pictures a second."""
    return ABSENT if value is None else words("number.speed", value=f"{value:,.1f}")


FORMATS = (
    percent,
    small_percent,
    accuracy_range,
    points,
    size_in_points,
    points_range,
    decimals,
    probability,
    count,
    volume,
    duration,
    speed,
)
"""What templates may use as filters, by these names."""
