"""Every number on docs/attention.md against NumPy arithmetic."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "attention.md"

H = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
QUERY = np.array([0.5, 1.0])
W = np.array([[0.5, 0.0], [0.5, 1.0]])
U = np.array([[1.0, -1.0], [0.0, 1.0]])
V = np.array([2.0, 1.0])


def softmax(scores):
    powers = [math.exp(score) for score in scores]
    return np.array(powers) / sum(powers)


def with_sum(row):
    return [*row, sum(row)]


def expected() -> dict[tuple[str, str], list[float]]:
    """Return the values of every row, by section and row name."""
    page: dict[tuple[str, str], list[float]] = {}

    def put(section: str, **rows: object) -> None:
        for name, row in rows.items():
            page[section, name] = [float(value) for value in row]

    put("The example", h1=H[0], h2=H[1], h3=H[2], query=QUERY)
    inner = [W @ QUERY + U @ h for h in H]
    additive = [float(V @ np.tanh(x)) for x in inner]
    weights = softmax(additive)
    put(
        "Additive attention",
        **{"W, row 1": W[0], "W, row 2": W[1], "U, row 1": U[0], "U, row 2": U[1], "v": V},
        **{"W query": W @ QUERY},
        **{f"U h{j + 1}": U @ h for j, h in enumerate(H)},
        **{f"sum at h{j + 1}": x for j, x in enumerate(inner)},
        **{f"tanh at h{j + 1}": np.tanh(x) for j, x in enumerate(inner)},
        score=additive,
        **{"exp(score)": with_sum(np.exp(additive))},
        weight=with_sum(weights),
        context=sum(a * h for a, h in zip(weights, H, strict=True)),
    )
    dots = [float(QUERY @ h) for h in H]
    scaled = [dot / math.sqrt(2) for dot in dots]
    weights = softmax(scaled)
    context = weights @ H
    put(
        "Scaled dot-product attention",
        **{"dot product": dots, "scaled score": scaled},
        **{"exp(score)": with_sum(np.exp(scaled))},
        weight=with_sum(weights),
        context=context,
    )
    leaky = softmax([*scaled, 0.0])
    put(
        "Masks, and what a padded position does",
        score=[*scaled, 0.0],
        **{"masked score": [*scaled, -math.inf]},
        **{"weight without mask": with_sum(leaky)},
        **{"weight with mask": with_sum(softmax([*scaled, -math.inf]))},
        **{"context without mask": leaky[:3] @ H, "context with mask": context},
        **{"causal weight": with_sum(softmax([*scaled[:2], -math.inf]))},
    )
    wide = np.array([8.0, 4.0, -8.0])
    hard, soft = softmax(wide), softmax(wide / math.sqrt(64))
    put(
        "Why divide by the square root of the width",
        **{"dot product": wide, "scaled score": wide / math.sqrt(64)},
        **{"weight, not scaled": with_sum(hard), "slope, not scaled": hard * (1 - hard)},
        **{"weight, scaled": with_sum(soft), "slope, scaled": soft * (1 - soft)},
    )
    return page


def printed() -> dict[tuple[str, str], list[str]]:
    """Return the cells of every table row of the page, by section and row name."""
    rows: dict[tuple[str, str], list[str]] = {}
    section = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = line[3:]
        elif line.startswith("|") and not re.match(r"\|[-:|]+\|$|\| name ", line):
            name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert (section, name) not in rows, f"{section}: two rows '{name}'"
            rows[section, name] = [cell for cell in cells if cell]
    return rows


EXPECTED, PRINTED = expected(), printed()


def test_every_row_of_the_page_is_checked():
    assert set(PRINTED) == set(EXPECTED)


@pytest.mark.parametrize("key", EXPECTED, ids=" / ".join)
def test_row(key):
    cells, values = PRINTED[key], EXPECTED[key]
    assert len(cells) == len(values)
    for cell, value in zip(cells, values, strict=True):
        if value == -math.inf:
            assert cell == "-inf"
            continue
        decimals = len(cell.partition(".")[2])
        assert decimals == 4 or float(cell) == value, "given numbers are exact, others have 4"
        # Half of the last printed place, and a hair for the value's own rounding.
        assert abs(float(cell) - value) <= 0.5 * 10**-decimals + 1e-12


@pytest.mark.parametrize("key", [key for key in EXPECTED if "weight" in key[1]], ids=" / ".join)
def test_printed_weights_sum_to_one(key):
    *weights, total = [float(cell) for cell in PRINTED[key]]
    assert total == 1
    assert sum(weights) == pytest.approx(1, abs=1e-9)


def test_numbers_in_the_text_are_those_of_the_tables():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("|"))
    found = {float(number) for number in re.findall(r"\d+\.\d{4}\b", text)}
    leaky = [
        float(cell)
        for cell in PRINTED["Masks, and what a padded position does", "weight without mask"]
    ]
    slopes = [
        float(PRINTED["Why divide by the square root of the width", f"slope, {kind}"][0])
        for kind in ("not scaled", "scaled")
    ]
    assert found == {round(math.sqrt(2), 4), round(sum(leaky[:3]), 4), *slopes}
    assert "0.8638" in text
