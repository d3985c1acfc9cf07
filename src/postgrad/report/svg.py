"""Drawing: SVG elements as escaped markup, axes with round numbers. Knows nothing of runs.

Colours and fonts come from the page's style sheet through class names, so a drawing follows light, dark and print.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Iterable

from markupsafe import Markup, escape

TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)


def tag(name: str, *children: str, **attributes: str | float | None) -> Markup:
    """One element. Text and attribute values are escaped; `Markup` children are not. An attribute of None is left out.

    Attribute names: a trailing underscore is dropped and the others become hyphens, so `class_` and `stroke_width`.
    """
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is not None:
            shown = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
            parts.append(f' {key.rstrip("_").replace("_", "-")}="{escape(shown)}"')
    inside = "".join(escape(child) for child in children)
    parts.append(f">{inside}</{name}>" if inside else "/>")
    return Markup("".join(parts))


def picture(width: float, height: float, label: str, *children: str, class_: str = "") -> Markup:
    """A whole drawing with what a screen reader says about it."""
    return tag(
        "svg",
        *children,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=label,
        class_=class_ or None,
        xmlns="http://www.w3.org/2000/svg",
    )


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def text(x: float, y: float, content: str, class_: str = "", anchor: str = "start") -> Markup:
    return tag("text", content, x=x, y=y, class_=class_ or None, text_anchor=None if anchor == "start" else anchor)


def dot(x: float, y: float, radius: float, class_: str, title: str = "") -> Markup:
    return tag("circle", *titled(title), cx=x, cy=y, r=radius, class_=class_)


def cross(x: float, y: float, reach: float, class_: str, title: str = "") -> Markup:
    """An x. The invisible disc makes it as easy to point at as a dot."""
    a, b, c, d = x - reach, y - reach, x + reach, y + reach
    stroke = tag("path", d=f"M{a:.1f} {b:.1f}L{c:.1f} {d:.1f}M{a:.1f} {d:.1f}L{c:.1f} {b:.1f}", class_=class_)
    return tag("g", *titled(title), tag("circle", cx=x, cy=y, r=reach + 2, class_="aim"), stroke)


def titled(title: str) -> tuple[Markup, ...]:
    """A tooltip, as the first child of what it belongs to."""
    return (tag("title", title),) if title else ()


def points(pairs: Iterable[tuple[float, float]]) -> str:
    """The `points` of a polyline or polygon."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in pairs)


@dataclass(frozen=True)
class Scale:
    """Values in [low, high] to pixels in [start, end]. Values outside are not clipped."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        width = self.high - self.low
        share = (value - self.low) / width if width > 0 else 0.5
        return self.start + share * (self.end - self.start)

    def clip(self, value: float) -> float:
        """The pixel of the nearest value inside."""
        return self(min(max(value, self.low), self.high))


def round_step(width: float, count: int) -> float:
    """The smallest of 1, 2, 5 times a power of ten that cuts `width` into at most `count` parts."""
    if width <= 0:
        return 1.0
    base = 10.0 ** math.floor(math.log10(width / count))
    return next(base * factor for factor in (1, 2, 5, 10, 20) if width / (base * factor) <= count)


def ticks(low: float, high: float, count: int = 6) -> tuple[float, ...]:
    """Round values in [low, high]."""
    step = round_step(high - low, count)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return tuple(index * step for index in range(first, last + 1))


def time_ticks(seconds: float, count: int = 8) -> tuple[float, ...]:
    """Round times from 0 to `seconds`."""
    step = next((one for one in TIME_STEPS if seconds / one <= count), None)
    step = step or 86400 * math.ceil(seconds / 86400 / count)
    return tuple(float(step * index) for index in range(int(seconds // step) + 1))


def decimals(step: float) -> int:
    """Digits after the point that tell multiples of `step` apart."""
    return max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
