"""Attention weights as labelled heat maps.

Figures are made with ``matplotlib.figure.Figure``, never with pyplot, which keeps every figure in a
global list and looks for a screen. Import this file where a figure is drawn, not before: matplotlib
takes about a second.

Shapes: H heads, T target tokens (rows), S source tokens (columns).
"""

from __future__ import annotations

import io
import math
import textwrap
import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font, get_font_names
from matplotlib.transforms import BboxTransformFrom, TransformedBbox

from dragoman.errors import DragomanError
from dragoman.files import write_atomic

Weights = npt.NDArray[np.floating]

INK, FAINT = "#1d2733", "#6b7683"
# Light to dark with evenly falling lightness, so that twice the weight looks twice as dark.
SHADES = ("#fbfaf6", "#e0eee6", "#b5dcd2", "#7cc0c0", "#479cb2", "#27759f", "#1f4e83", "#16264f")
COLOURS = LinearSegmentedColormap.from_list("attention", SHADES).with_extremes(bad="#e3e3e3")
STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a token may hold dollar signs
    "text.color": INK,
    "axes.edgecolor": "#c9d0d6",
    "axes.linewidth": 0.6,
}
FONT = "DejaVu Sans"  # comes with matplotlib
OTHER_FONTS = ("Noto Sans CJK JP", "Arial Unicode MS")  # and those called after their script
JOINER = "\N{HALFWIDTH BLACK SQUARE}"  # the word tokenizer's mark for "no space before"
LONGEST_LABEL = 24
DPI = 150
MARGIN, GAP, FOOT, SHORTEST_STEP = 0.22, 0.22, 0.34, 0.9  # around and between maps, in inches


def _fonts(text: str) -> list[str]:
    """Return the installed fonts that draw a text; warn of the scripts that none of them has."""
    fonts, drawn = [FONT], set(get_font(findfont(FONT)).get_charmap())
    # A letter's name begins with its script: "THAI CHARACTER KO KAI".
    scripts = {ord(sign): unicodedata.name(sign, "?").split()[0] for sign in text if sign.isalpha()}
    if not scripts.keys() <= drawn:
        names = {*OTHER_FONTS, *(f"Noto Sans {script.title()}" for script in scripts.values())}
        fonts += sorted(names.intersection(get_font_names()), reverse=True)
        drawn |= {code for name in fonts for code in get_font(findfont(name)).get_charmap()}
    missing = sorted({script for code, script in scripts.items() if code not in drawn})
    if missing:
        warnings.warn(
            f"no font here has {', '.join(missing)} letters, which are drawn as boxes; install the "
            "Noto fonts (Debian and Ubuntu: fonts-noto-cjk, fonts-noto-core)",
            stacklevel=4,
        )
    return fonts


def _line(text: str, instead: str) -> str:
    """Make any text drawable in one line: no breaks, control signs or lone surrogates."""
    return "".join(sign if sign.isprintable() else instead for sign in text)


def _label(token: str) -> str:
    """Make any token a label: never empty, never endless."""
    token = token.removeprefix(JOINER) or token  # says "no space before": not worth a glyph here
    text = _line(token, "\N{REPLACEMENT CHARACTER}") or "\N{OPEN BOX}"
    return text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 1] + "…"


def _scale(weights: Weights) -> tuple[float, float]:
    """Return the values of the lightest and the darkest colour.

    0 to 1 where some weight is above one half; flat attention gets a shorter scale (its colour bar
    says so), or there would be nothing to see.
    """
    finite = weights[np.isfinite(weights)]
    top = float(finite.max(initial=0.0))
    bottom = min(float(finite.min(initial=0.0)), 0.0)
    # A little slack: weights of 1 come out of float32 sums a hair above it.
    steps = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0)
    return bottom, next((step for step in steps if top <= step * (1 + 1e-3)), top)


def _map(
    axes: Axes, weights: Weights, norm: Normalize, src: list[str], tgt: list[str], cell: float
) -> None:
    """Fill axes with one map, its source labels above (none if empty) and its target labels."""
    font = min(max(cell * 72 * 0.55, 5.0), 11.0)
    line = min(0.9, font * 0.08)
    axes.pcolormesh(weights, cmap=COLOURS, norm=norm, edgecolors="white", linewidth=line)
    axes.invert_yaxis()
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=font, labelcolor=INK)
    axes.set_yticks(np.arange(len(tgt)) + 0.5, tgt)
    places = np.arange(len(src)) + 0.5
    axes.set_xticks(places, src)
    widths = [label.get_window_extent().width for label in axes.get_xticklabels()]
    if max(widths, default=0) > 0.92 * cell * DPI:
        # Slanted labels are easier to read than upright ones, but need room: they must not touch.
        slanted = cell * math.sin(math.pi / 4) >= font / 72 * 1.25
        angle, place = (45, "baseline") if slanted else (90, "center")
        axes.set_xticks(places, src, rotation=angle, va=place, ha="left", rotation_mode="anchor")
    if cell < 0.5:
        return
    style: dict[str, Any] = {"ha": "center", "va": "center_baseline", "size": font * 0.8}
    for row, column in np.argwhere(weights >= 0.005).tolist():
        weight = float(weights[row, column])
        colour = "white" if norm(weight) > 0.55 else INK
        axes.text(column + 0.5, row + 0.5, f"{weight:.2f}", color=colour, **style)


def _draw(
    weights: Weights,
    src_tokens: Sequence[str],
    tgt_tokens: Sequence[str],
    title: str,
    cell: float,
    across: int | None = None,
) -> Figure:
    """Draw maps, (H, T, S), of cells ``cell`` wide: one alone, or numbered in rows of ``across``.

    Parts are placed in inches, on a figure of one by one; in the end it is cut to what is on it.
    """
    _, rows, columns = weights.shape
    if (rows, columns) != (len(tgt_tokens), len(src_tokens)) or 0 in weights.shape:
        raise ValueError(
            f"weights of shape {weights.shape} do not fit {len(tgt_tokens)} target and "
            f"{len(src_tokens)} source tokens (at least one each)"
        )
    src, tgt = [_label(token) for token in src_tokens], [_label(token) for token in tgt_tokens]
    title = _line(title, " ").strip()
    norm = Normalize(*_scale(weights))
    width, height = columns * cell, rows * cell
    # Slanted labels of one map must not run into those of the next.
    step = max(width + GAP, SHORTEST_STEP)
    style = {**STYLE, "font.family": _fonts("".join([*src, *tgt, title]))}
    small: dict[str, Any] = {"size": 8, "color": FAINT, "labelpad": 5}
    figure = Figure(figsize=(1, 1), dpi=DPI, facecolor="white")
    with rc_context(style), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of signs that no font has
        for head, matrix in enumerate(weights):
            row, column = divmod(head, across or 1)
            axes = figure.add_axes((column * step, -row * (height + FOOT), width, height))
            _map(axes, matrix, norm, [] if row else src, [] if column else tgt, cell)
            axes.xaxis.set_label_position("bottom" if across else "top")
            if across:
                axes.set_xlabel(f"head {head}", **small)
            else:
                axes.set_xlabel("source", loc="left", **small)
                axes.set_ylabel("target", loc="bottom", **small)
        first, corner = figure.axes[0], figure.axes[(across or 1) - 1]
        letters = int(max(2.7, (len(weights[:across]) - 1) * step + width + 0.7) / 0.115)
        text = textwrap.fill(title, letters)
        first.set_title(text, loc="left", size=12, weight="bold", pad=10)
        bar = min(height, 3.0)
        place = (1 + 0.2 / width, 0.5 - bar / height / 2, 0.13 / width, bar / height)
        colours = figure.colorbar(corner.collections[0], cax=corner.inset_axes(place))
        colours.outline.set_visible(False)
        colours.ax.locator_params(nbins=min(5, round(bar * 4)))
        colours.ax.tick_params(length=0, labelsize=8, labelcolor=FAINT)
        paper = figure.get_tightbbox().padded(MARGIN)
    figure.set_size_inches(paper.width, paper.height)
    cut = BboxTransformFrom(paper)
    for axes in figure.axes:
        axes.set_position(TransformedBbox(axes.get_position(), cut).bounds)
    return figure


def attention_figure(
    weights: Weights, src_tokens: Sequence[str], tgt_tokens: Sequence[str], title: str
) -> Figure:
    """Draw one heat map: source tokens on top, target tokens at the left.

    ``weights`` is (T, S) and shown as it is: rows need not sum to 1, NaN is grey. Cells carry
    their number where they are large enough (up to 16 tokens a side).

    Raises:
        ValueError: if the tokens do not fit the shape of ``weights`` or there are none.
    """
    cell = min(max(8.0 / max(1, *weights.shape), 0.17), 0.5)
    return _draw(weights[None], src_tokens, tgt_tokens, title, cell)


def attention_grid(
    weights: Weights, src_tokens: Sequence[str], tgt_tokens: Sequence[str], title: str
) -> Figure:
    """Draw all heads of a layer, (H, T, S), side by side on one colour scale.

    Tokens label the outer maps only; head numbers start at 0.

    Raises:
        ValueError: if the tokens do not fit the shape of ``weights`` or there are none.
    """
    across = 3 if len(weights) == 6 else min(4, len(weights))
    cell = min(max(3.4 / max(1, *weights.shape[1:]), 0.09), 0.3)
    return _draw(weights, src_tokens, tgt_tokens, title, cell, across)


def figure_png(figure: Figure, dpi: int = DPI) -> bytes:
    """Return the PNG of a figure. Glyphs missing from every font are drawn as boxes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Without the name and version of the software the same picture gives the same bytes.
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def save_figure(figure: Figure, path: Path | str) -> Path:
    """Write a figure as PNG, whole or not at all, making its folder if needed; return the path.

    Raises:
        DragomanError: if the file cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise DragomanError(f"{path}: cannot be written ({problem.strerror})") from None
    write_atomic(path, figure_png(figure))
    return path
