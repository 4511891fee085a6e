"""The report's plots as inline SVG in the page's own colours, so that they are light and dark.

matplotlib writes literal colours; each stands for one of the page's CSS variables and is replaced
by it. Text stays text and takes the page's font. Nothing is fetched, nothing is written to disk.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evaluator.comparison import Score

# A colour that matplotlib writes -> the CSS variable that stands there in the page.
_INK, _MUTED, _ACCENT, _OTHER, _WARN = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {_INK: "ink", _MUTED: "muted", _ACCENT: "accent", _OTHER: "other", _WARN: "warn"}
_STYLE: dict[Any, Any] = {  # matplotlib types its keys one by one
    "svg.fonttype": "none",
    "svg.hashsalt": "understudy",
    "font.size": 11,
    "text.parse_math": False,  # a label is a label, also with two dollar signs
    "text.color": _INK,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _MUTED,
    "xtick.color": _MUTED,
    "ytick.color": _INK,
}


def intervals(
    scores: Sequence[Score], title: str, accented: int, least: float | None = None
) -> str:
    """Means with their 95 % intervals, one a line, the first few accented; `least` as a line."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(1.0 + 0.34 * len(scores))
        for y, score in enumerate(scores):
            colour = _ACCENT if y < accented else _OTHER
            axes.plot([score.low, score.high], [y, y], color=colour, linewidth=2)
            axes.plot([score.mean], [y], "o", color=colour, markersize=7)
            axes.annotate(
                f"{score.mean:.1%}", (score.mean, y), (0, 7), textcoords="offset points",
                ha="center", fontsize=9,
            )  # fmt: skip
        if least is not None:
            axes.axvline(least, color=_WARN, linewidth=1.2, linestyle="--")
        axes.set_yticks(range(len(scores)), [_short(score.name) for score in scores])
        axes.set_ylim(len(scores) - 0.4, -0.7)
        low = min([s.low for s in scores] + ([least] if least is not None else []))
        axes.set_xlim(max(-0.02, min(low - 0.05, 0.9)), 1.03)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_xticks([x for x in axes.get_xticks() if -0.001 <= x <= 1.001])
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
        return _svg(figure, title)


def distributions(groups: Mapping[str, Sequence[float]], title: str, unit: str) -> str:
    """Histograms of non-negative values, the first one accented; the tail is cut at p99.5."""
    values = {name: np.asarray(group, dtype=np.float64) for name, group in groups.items() if group}
    if not values:
        return ""
    top = float(np.quantile(np.concatenate(list(values.values())), 0.995)) or 1.0
    bins = np.linspace(0, top, 31)
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(2.4)
        for (name, group), colour in zip(values.items(), (_ACCENT, _OTHER), strict=False):
            axes.hist(np.minimum(group, top), bins, histtype="stepfilled", color=colour, alpha=0.25)
            axes.hist(np.minimum(group, top), bins, histtype="step", color=colour, label=name)
        axes.set_xlabel(unit)
        axes.set_ylabel("rows")
        axes.tick_params(axis="y", colors=_MUTED)
        if len(values) > 1:
            axes.legend(frameon=False)
        return _svg(figure, title)


def _figure(height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(5.6, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    axes.patch.set_visible(False)
    figure.patch.set_visible(False)
    return figure, axes


def _svg(figure: Figure, title: str) -> str:
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1 role="img"', svg, count=1)
    svg = re.sub(r"<metadata>.*?</metadata>", f"<title>{title}</title>", svg, flags=re.DOTALL)
    # Several drawings share one page: ids must differ, or clip paths refer to the neighbour's.
    prefix = re.sub(r"\W+", "-", title.lower())
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    svg = re.sub(r" font-family: [^;]*;|<style.*?</style>", "", svg, flags=re.DOTALL)
    for colour, name in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg


def _short(name: str) -> str:
    return name if len(name) <= 34 else name[:31] + "..."
