from __future__ import annotations

import itertools
import struct
import subprocess
import sys
import warnings

import numpy as np
import pytest

from dragoman.errors import DragomanError
from dragoman.reporting.heatmap import (
    COLOURS,
    attention_figure,
    attention_grid,
    figure_png,
    save_figure,
)

GERMAN = ["Zwei", "junge", "Männer", "in", "T-Shirts", "vor", "der", "Straßenbahnhaltestelle", "."]


def weights(rows, columns, heads=None):
    shape = (rows,) if heads is None else (heads, rows)
    return np.random.default_rng(rows * columns).dirichlet(np.ones(columns), size=shape)


def tokens(count, prefix=""):
    return [prefix + GERMAN[number % len(GERMAN)] for number in range(count)]


def texts(figure):
    """Return (text, bounding box in pixels) of everything that is written on a figure."""
    from matplotlib.text import Text

    figure.draw_without_rendering()
    return [
        (item.get_text(), item.get_window_extent())
        for item in figure.findobj(Text)
        if item.get_text() and item.get_visible()
    ]


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 3), (12, 9), (3, 40), (60, 60)])
def test_everything_that_is_written_lies_within_the_picture(rows, columns):
    src, tgt = tokens(columns), tokens(rows, "▁")
    figure = attention_figure(weights(rows, columns), src, tgt, "decoder.2.cross, head 3 " * 3)
    wide, high = figure.canvas.get_width_height()
    written = texts(figure)
    for text, box in written:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= wide, text
        assert box.y1 <= high, text
    shown = [text for text, _ in written]
    for token in {*src, *tgt}:
        assert token[:20] in " ".join(shown)
    assert "".join(shown).count("decoder.2.cross") == 3
    assert max(wide, high) < 2600


def overlap(first, second):
    return (
        min(first.x1, second.x1) - max(first.x0, second.x0) > 1
        and min(first.y1, second.y1) - max(first.y0, second.y0) > 1
    )


@pytest.mark.parametrize("count", [3, 12, 30, 60])
def test_target_labels_do_not_touch_each_other(count):
    tgt = [f"{number}wort" for number in range(count)]
    figure = attention_figure(weights(count, count), tokens(count), tgt, "")
    boxes = [box for text, box in texts(figure) if text.endswith("wort")]
    assert len(boxes) == count
    assert not any(overlap(a, b) for a, b in itertools.pairwise(boxes))


def test_small_maps_carry_their_numbers_and_large_ones_do_not():
    small = attention_figure(np.array([[0.25, 0.75], [1.0, 0.0]]), ["a", "b"], ["c", "d"], "t")
    assert sorted(text.get_text() for text in small.axes[0].texts) == ["0.25", "0.75", "1.00"]
    big = attention_figure(np.full((30, 30), 1 / 30), tokens(30), tokens(30), "t")
    assert not big.axes[0].texts


def test_first_target_is_on_top_and_colours_follow_the_weights():
    figure = attention_figure(np.array([[1.0, 0.0], [0.5, 0.2]]), ["a", "b"], ["c", "d"], "")
    (axes,) = figure.axes
    assert axes.yaxis_inverted()
    (mesh,) = axes.collections
    np.testing.assert_allclose(mesh.get_array().reshape(2, 2), [[1.0, 0.0], [0.5, 0.2]])
    assert mesh.get_clim() == (0.0, 1.0)


@pytest.mark.parametrize(
    ("top", "end"), [(0.04, 0.05), (0.15, 0.2), (0.45, 0.5), (1.0000004, 1.0), (3.5, 3.5)]
)
def test_the_scale_ends_at_a_round_number_above_the_largest_weight(top, end):
    figure = attention_figure(np.array([[top, 0.0]]), ["a", "b"], ["c"], "")
    assert figure.axes[0].collections[0].get_clim() == pytest.approx((0.0, end))


def test_colours_fall_evenly_from_light_to_dark():
    linear = np.asarray(COLOURS(np.linspace(0, 1, 33)))[:, :3] ** 2.2
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    lightness = 116 * np.cbrt(luminance) - 16
    steps = -np.diff(lightness)
    assert steps.min() > 0
    assert steps.max() < 2.5 * steps.mean()
    assert lightness[0] > 95
    assert lightness[-1] < 25


ODD = ["$x^{", r"\frac", "a\nb", "\ud800", "", "\x00", "🙂", "x" * 80, "$ $", "<eos>"]


def test_odd_tokens_are_drawn_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = attention_figure(weights(10, 10), ODD, ODD, r"$\frac \ud800" + "\ud800\n$")
        assert figure_png(figure).startswith(b"\x89PNG")
        figure_png(attention_grid(weights(10, 10, 2), ODD, ODD, ""))


def test_letters_that_no_font_has_are_warned_of_in_one_line(monkeypatch):
    monkeypatch.setattr("matplotlib.font_manager.get_font_names", lambda: ["DejaVu Sans"])
    tokens = ["日本", "ไทย", "läuft", "ой", "。", "🙂"]
    with pytest.warns(
        UserWarning, match="no font here has CJK, THAI letters.*fonts-noto-cjk"
    ) as warned:
        figure_png(attention_figure(weights(6, 6), tokens, tokens, "日本"))
    assert len(warned) == 1


def test_odd_weights_are_drawn():
    odd = np.array([[np.nan, 0.2], [-0.5, 0.0], [0.0, 0.0]])
    assert figure_png(attention_figure(odd, ["a", "b"], ["c", "d", "e"], "")).startswith(b"\x89PNG")
    figure_png(attention_figure(np.full((1, 1), np.nan), ["a"], ["b"], "nothing"))


@pytest.mark.parametrize("heads", [1, 2, 4, 6, 8, 16])
def test_a_grid_has_every_head_on_one_scale(heads):
    figure = attention_grid(weights(7, 9, heads), tokens(9), tokens(7), "decoder.0.cross")
    assert len(figure.axes) == heads
    assert len({axes.collections[0].get_clim() for axes in figure.axes}) == 1
    written = texts(figure)
    shown = [text for text, _ in written]
    assert {f"head {head}" for head in range(heads)} <= set(shown)
    wide, high = figure.canvas.get_width_height()
    assert all(
        box.x1 <= wide and box.y1 <= high and box.x0 >= 0 and box.y0 >= 0 for _, box in written
    )


def test_a_grid_of_long_sentences_stays_a_picture():
    figure = attention_grid(weights(60, 60, 4), tokens(60), tokens(60), "t")
    assert max(figure.canvas.get_width_height()) < 4000


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (0, 2), (1, 2, 3), (0, 2, 2)])
def test_tokens_that_do_not_fit_are_refused(shape):
    draw = attention_grid if len(shape) == 3 else attention_figure
    with pytest.raises(ValueError, match="do not fit"):
        draw(np.zeros(shape), ["a", "b"], ["c", "d"][: shape[0]], "")


def test_saving_is_whole_repeatable_and_makes_the_folder(tmp_path):
    path = tmp_path / "pictures" / "map.png"
    for _ in range(2):
        figure = attention_figure(weights(4, 5), tokens(5), tokens(4), "title")
        assert save_figure(figure, path) == path
    data = path.read_bytes()
    assert struct.unpack(">II", data[16:24]) == figure.canvas.get_width_height()
    assert data == figure_png(attention_figure(weights(4, 5), tokens(5), tokens(4), "title"))
    assert [item.name for item in path.parent.iterdir()] == ["map.png"]


def test_a_picture_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    figure = attention_figure(weights(2, 2), ["a", "b"], ["c", "d"], "")
    with pytest.raises(DragomanError, match=r"file/map\.png: cannot be written"):
        save_figure(figure, tmp_path / "file" / "map.png")
    (tmp_path / "map.png").mkdir()
    with pytest.raises(DragomanError, match=r"cannot be written"):
        save_figure(figure, tmp_path / "map.png")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["file", "map.png"]


def test_pyplot_is_never_loaded():
    script = """
import sys
import numpy as np
from dragoman.reporting import heatmap
heatmap.figure_png(heatmap.attention_figure(np.ones((1, 1)), ["a"], ["b"], "t"))
assert "matplotlib.pyplot" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
