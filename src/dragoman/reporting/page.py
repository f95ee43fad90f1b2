"""HTML pages that are whole in one file."""

from __future__ import annotations

import base64
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from dragoman.errors import visible
from dragoman.reporting.heatmap import figure_png


def picture(figure: Figure) -> str:
    """Return the address of a picture that is its content."""
    return "data:image/png;base64," + base64.b64encode(figure_png(figure, 110)).decode()


def rendered(template: str, **values: object) -> str:
    """Return a page made of one of the templates here."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    return environment.get_template(template).render(**values)
