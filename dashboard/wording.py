"""Numbers, times and states as people read them."""

import math

SEVERITIES = ("critical", "error", "warning", "info")
SEVERITY_MARKS = {"critical": "◆", "error": "▲", "warning": "●", "info": "○"}
"""A shape and a word for each, so that nobody depends on the colour."""
STATE_MARKS = {"running": "▶", "finished": "✓", "failed": "✗", "lost": "?"}
STATUS_MARKS = {"open": "○", "acknowledged": "◐", "resolved": "✓"}
SECONDS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def severity(word: str) -> str:
    """The severity with its mark.

    >>> severity("error")
    '▲ error'
    """
    return f"{SEVERITY_MARKS.get(word, '·')} {word}"


def state(word: str) -> str:
    """A run's state with its mark.

    >>> state("failed")
    '✗ failed'
    """
    return f"{STATE_MARKS.get(word, '·')} {word}"


def number(value: float | None, digits: int = 4) -> str:
    """A number in few characters; NaN and Inf by name.

    >>> number(1234567.0), number(0.00001234), number(None), number(float("nan")), number(4000.0)
    ('1,234,567', '1.234e-05', '–', 'NaN', '4,000')
    """
    if value is None:
        return "–"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    return f"{value:.{digits}g}"


def duration(seconds: float | None) -> str:
    """A span of time in its largest fitting unit.

    >>> duration(0.004), duration(42.0), duration(90.0), duration(7200.0), duration(None)
    ('4 ms', '42 s', '1.5 min', '2 h', '–')
    """
    if seconds is None or not math.isfinite(seconds):
        return "–"
    for size, unit in SECONDS:
        if seconds >= size:
            return f"{seconds / size:.2g} {unit}" if seconds < 10 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def age(then: float | None, now: float) -> str:
    """How long ago.

    >>> age(100.0, 101.0), age(100.0, 220.0), age(None, 1.0), age(200.0, 100.0)
    ('just now', '2 min ago', '–', 'just now')
    """
    if not then:
        return "–"
    return "just now" if now - then < 3 else f"{duration(now - then)} ago"


def percent(share: float) -> str:
    """A share of belief; never a certainty that is not there.

    >>> percent(0.874), percent(0.9999), percent(0.001)
    ('87 %', '> 99 %', '< 1 %')
    """
    if share > 0.99:
        return "> 99 %"
    return f"{share:.0%}".replace("%", " %") if share >= 0.01 else "< 1 %"


def words(name: str) -> str:
    """A kind or cause as words.

    >>> words("numerical_domain_error")
    'numerical domain error'
    """
    return name.replace("_", " ")


def prose(text: str) -> str:
    r"""``text`` with its code spans kept and every other sign of Markdown disarmed.

    >>> print(prose("`x[0]` became [NaN]"))
    `x[0]` became \[NaN\]
    >>> print(prose("a ` alone"))
    a \` alone
    """
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return plain(text)
    return "".join(
        f"`{part}`" if place % 2 else plain(part) for place, part in enumerate(parts) if part or not place % 2
    )


def plain(text: str) -> str:
    r"""``text`` with Markdown's signs disarmed: names and messages come from the job, not from us.

    >>> plain("loss[0] * `x`")
    'loss\\[0\\] \\* \\`x\\`'
    """
    return "".join(f"\\{sign}" if sign in r"\`*_{}[]()#+-!|<>$~:" else sign for sign in text)
