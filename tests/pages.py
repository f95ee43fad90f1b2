"""What the tests of the documentation read out of Markdown pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "data/*.md", "checkpoints/*.md")
    for path in ROOT.glob(pattern)
)

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`]+)`")


class Block(NamedTuple):
    """A fenced block: its language and its lines as one text."""

    language: str
    text: str


def blocks(text: str, language: str | None = None) -> list[Block]:
    """Return the fenced blocks of a page, all or those in one language."""
    found = [Block(*match.groups()) for match in _FENCE.finditer(text)]
    return [block for block in found if language in (None, block.language)]


def prose(text: str) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", text)


def spans(text: str) -> list[str]:
    """Return what stands in backticks outside fenced blocks, line breaks as spaces."""
    return [" ".join(span.split()) for span in _SPAN.findall(prose(text))]


def commands(text: str) -> list[str]:
    """Return the commands of a page's shell blocks, one a line."""
    lines = (line for block in blocks(text, "bash") for line in block.text.splitlines())
    return [line for line in lines if line.strip() and not line.startswith("#")]
