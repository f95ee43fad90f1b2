"""Attention weights as labelled heat maps.

Figures are made with ``matplotlib.figure.Figure`` on the Agg canvas, never with pyplot, which
keeps every figure in a global list and looks for a screen. Matplotlib is imported when the first
figure is drawn, because importing it takes about a second.

Shapes: H heads, T target tokens (rows), S source tokens (columns).
"""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dragoman.errors import DragomanError
from dragoman.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

Weights = npt.NDArray[np.floating]

INK, FAINT, MISSING = "#1d2733", "#6b7683", "#e3e3e3"
# Light to dark with evenly falling lightness, so that twice the weight looks twice as dark.
SHADES = ("#fbfaf6", "#e0eee6", "#b5dcd2", "#7cc0c0", "#479cb2", "#27759f", "#1f4e83", "#16264f")
# DejaVu Sans comes with matplotlib; the others add scripts it lacks, where they are installed.
FONTS = ("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans Devanagari",
         "Noto Sans Thai", "Noto Emoji", "Arial Unicode MS")  # fmt: skip
JOINER = "\N{HALFWIDTH BLACK SQUARE}"  # the word tokenizer's mark for "no space before"
LONGEST_LABEL = 24
DPI = 150


@lru_cache(maxsize=1)
def colormap() -> Colormap:
    """Return the colours of all heat maps: paper for 0, dark blue for the most, grey for NaN."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("attention", SHADES).with_extremes(bad=MISSING)


@lru_cache(maxsize=1)
def _fonts() -> list[str]:
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    return [FONTS[0], *(name for name in FONTS[1:] if name in installed)]


def _label(token: str) -> str:
    """Make any token drawable: no line breaks, control signs, lone surrogates or endless words."""
    token = token.removeprefix(JOINER) or token  # says "no space before": not worth a glyph here
    text = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in token)
    text = text or "\N{OPEN BOX}"
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


def _check(weights: Weights, src_tokens: Sequence[str], tgt_tokens: Sequence[str]) -> None:
    expected = (len(tgt_tokens), len(src_tokens))
    if weights.shape[-2:] != expected or 0 in weights.shape:
        raise ValueError(
            f"weights of shape {weights.shape} do not fit {expected[0]} target and "
            f"{expected[1]} source tokens (at least one each)"
        )


class _Sheet:
    """A figure whose parts are placed in inches, once their labels have been measured."""

    def __init__(self) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.figure: Figure = Figure(figsize=(1, 1), dpi=DPI, facecolor="white")
        self.canvas = FigureCanvasAgg(self.figure)

    def sizes(
        self, texts: Sequence[str], size: float, rotation: float = 0.0, weight: str = "normal"
    ) -> list[tuple[float, float]]:
        """Return the (width, height) of each text in inches."""
        renderer: Any = self.canvas.get_renderer()  # type: ignore[no-untyped-call]
        sizes = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # glyphs the font lacks are drawn as boxes
            for text in texts:
                style: dict[str, Any] = {"size": size, "rotation": rotation, "weight": weight}
                probe = self.figure.text(0, 0, text, family=_fonts(), parse_math=False, **style)
                box = probe.get_window_extent(renderer)
                probe.remove()
                sizes.append((box.width / DPI, box.height / DPI))
        return sizes

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Add axes; all in inches, from the figure's upper left corner."""
        wide, high = self.figure.get_size_inches()
        box = (left / wide, 1 - (top + height) / high, width / wide, height / high)
        return self.figure.add_axes(box)

    def write(self, left: float, top: float, text: str, **style: Any) -> None:
        """Write a text with its upper left corner (unless ``style`` says otherwise) at a place."""
        wide, high = self.figure.get_size_inches()
        style = {"va": "top", "ha": "left", "color": INK, **style}
        self.figure.text(
            left / wide, 1 - top / high, text, family=_fonts(), parse_math=False, **style
        )


@dataclass(frozen=True)
class _Labels:
    """The token labels around a heat map and the room they take, in inches."""

    src: list[str]
    tgt: list[str]
    font: float
    rotation: float
    above: float
    left: float
    overhang: float  # of slanted source labels beyond the right edge


def _measure(sheet: _Sheet, src: Sequence[str], tgt: Sequence[str], cell: float) -> _Labels:
    src, tgt = [_label(token) for token in src], [_label(token) for token in tgt]
    font = min(max(cell * 72 * 0.55, 5.0), 11.0)
    flat = sheet.sizes(src, font)
    if max(width for width, _ in flat) <= cell * 0.92:
        rotation = 0.0
    else:
        # Slanted labels are easier to read, but need room: lines must not touch.
        rotation = 45.0 if cell * math.sin(math.pi / 4) >= font / 72 * 1.25 else 90.0
    boxes = sheet.sizes(src, font, rotation) if rotation else flat
    overhang = 0.0
    if rotation == 45.0:
        ends = [(column + 0.5) * cell + box[0] for column, box in enumerate(boxes)]
        overhang = max(0.0, max(ends) - cell * len(src))
    above = max(height for _, height in boxes) + 0.08
    left = max(width for width, _ in sheet.sizes(tgt, font)) + 0.1
    return _Labels(src, tgt, font, rotation, above, left, overhang)


def _draw(
    axes: Axes, weights: Weights, scale: tuple[float, float], labels: _Labels, numbers: bool = False
) -> Any:
    """Fill axes with one map, labels not included; return what a colour bar needs."""
    rows, columns = weights.shape
    mesh = axes.pcolormesh(
        np.ma.masked_invalid(weights),
        cmap=colormap(),
        vmin=scale[0],
        vmax=scale[1],
        edgecolors="white",
        linewidth=min(0.9, labels.font * 0.08),
    )
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    axes.tick_params(length=0, labelsize=labels.font, labelcolor=INK)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_edgecolor("#c9d0d6")
        spine.set_linewidth(0.6)
    if numbers:
        for row, column in zip(*np.nonzero(np.nan_to_num(weights) >= 0.005), strict=True):
            value = float(weights[row, column])
            share = (value - scale[0]) / (scale[1] - scale[0] or 1.0)
            axes.text(
                column + 0.5,
                row + 0.5,
                f"{value:.2f}",
                ha="center",
                va="center_baseline",
                size=labels.font * 0.8,
                color="white" if share > 0.45 else INK,
            )
    return mesh


def _label_source(axes: Axes, labels: _Labels) -> None:
    axes.xaxis.tick_top()
    axes.tick_params(axis="x", length=0, pad=3)
    axes.set_xticks(
        np.arange(len(labels.src)) + 0.5,
        labels.src,
        rotation=labels.rotation,
        rotation_mode="anchor",
        ha={0.0: "center", 45.0: "left", 90.0: "left"}[labels.rotation],
        va={0.0: "bottom", 45.0: "baseline", 90.0: "center"}[labels.rotation],
        family=_fonts(),
        parse_math=False,
    )


def _label_target(axes: Axes, labels: _Labels) -> None:
    axes.tick_params(axis="y", length=0, pad=4)
    axes.set_yticks(np.arange(len(labels.tgt)) + 0.5, labels.tgt, family=_fonts(), parse_math=False)


def _colour_bar(sheet: _Sheet, mesh: Any, left: float, top: float, height: float) -> None:
    bar = sheet.figure.colorbar(mesh, cax=sheet.axes(left, top, BAR_WIDTH, height))
    bar.outline.set_visible(False)
    bar.ax.locator_params(nbins=5)
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=FAINT, pad=3)


def _title_lines(sheet: _Sheet, title: str, width: float, size: float) -> list[str]:
    """Break a title into lines no wider than ``width`` inches."""
    text = "".join(sign if sign.isprintable() else " " for sign in title).strip()
    if not text:
        return []
    wide = sheet.sizes([text], size, weight="bold")[0][0]
    return textwrap.wrap(text, max(10, int(len(text) * width / wide * 0.95)))


PAD, TITLE, CAPTION, BAR_WIDTH, BAR_BLOCK = 0.22, 12.0, 0.2, 0.13, 0.7


def attention_figure(
    weights: Weights, src_tokens: Sequence[str], tgt_tokens: Sequence[str], title: str
) -> Figure:
    """Draw one heat map: source tokens on top, target tokens at the left.

    ``weights`` is (T, S) and shown as it is: rows need not sum to 1, NaN is grey. Cells carry
    their number where they are large enough (up to 16 tokens a side).

    Raises:
        ValueError: if the tokens do not fit the shape of ``weights`` or there are none.
    """
    _check(weights, src_tokens, tgt_tokens)
    rows, columns = weights.shape
    cell = min(max(8.0 / max(rows, columns), 0.17), 0.5)
    sheet = _Sheet()
    labels = _measure(sheet, src_tokens, tgt_tokens, cell)
    width, height = columns * cell, rows * cell
    left = PAD + CAPTION + labels.left
    wide = max(left + width + max(labels.overhang, BAR_BLOCK) + PAD, 3.2)
    lines = _title_lines(sheet, title, wide - 2 * PAD, TITLE)
    top = PAD + len(lines) * 0.23 + 0.08 + CAPTION + labels.above
    sheet.figure.set_size_inches(wide, top + height + PAD)

    axes = sheet.axes(left, top, width, height)
    mesh = _draw(axes, weights, _scale(weights), labels, numbers=cell >= 0.5)
    _label_source(axes, labels)
    _label_target(axes, labels)
    bar = min(height, 3.0)
    _colour_bar(sheet, mesh, left + width + 0.2, top + (height - bar) / 2, bar)
    for number, line in enumerate(lines):
        sheet.write(PAD, PAD + number * 0.23, line, size=TITLE, weight="bold")
    sheet.write(left, top - labels.above - CAPTION, "source", size=8, color=FAINT)
    sheet.write(PAD, top + height, "target", size=8, color=FAINT, rotation=90, va="bottom")
    return sheet.figure


def attention_grid(
    weights: Weights, src_tokens: Sequence[str], tgt_tokens: Sequence[str], title: str
) -> Figure:
    """Draw all heads of a layer, (H, T, S), side by side on one colour scale.

    Tokens label the outer maps only; head numbers start at 0.

    Raises:
        ValueError: if the tokens do not fit the shape of ``weights`` or there are none.
    """
    _check(weights, src_tokens, tgt_tokens)
    heads, rows, columns = weights.shape
    across = min(4, heads) if heads != 6 else 3
    down = math.ceil(heads / across)
    cell = min(max(3.4 / max(rows, columns), 0.09), 0.3)
    sheet = _Sheet()
    labels = _measure(sheet, src_tokens, tgt_tokens, cell)
    width, height, gap, foot = columns * cell, rows * cell, 0.22, 0.34
    # Slanted labels of one map must not run into those of the next.
    step = max(width + gap, 0.9)
    left, body = PAD + labels.left, across * step - gap
    wide = max(left + body + max(labels.overhang, BAR_BLOCK) + PAD, 3.2)
    lines = _title_lines(sheet, title, wide - 2 * PAD, TITLE)
    top = PAD + len(lines) * 0.23 + 0.08 + labels.above
    sheet.figure.set_size_inches(wide, top + down * (height + foot) + PAD / 2)

    mesh, scale = None, _scale(weights)
    for head in range(heads):
        row, column = divmod(head, across)
        x, y = left + column * step, top + row * (height + foot)
        axes = sheet.axes(x, y, width, height)
        mesh = _draw(axes, weights[head], scale, labels)
        if row == 0:
            _label_source(axes, labels)
        if column == 0:
            _label_target(axes, labels)
        sheet.write(
            x + width / 2, y + height + 0.06, f"head {head}", size=8, color=FAINT, ha="center"
        )
    bar = min(height, 2.5)
    _colour_bar(sheet, mesh, left + body + 0.2, top + (height - bar) / 2, bar)
    for number, line in enumerate(lines):
        sheet.write(PAD, PAD + number * 0.23, line, size=TITLE, weight="bold")
    return sheet.figure


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
