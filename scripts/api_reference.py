"""Print docs/api.md: what ``import dragoman`` offers, from its docstrings.

python scripts/api_reference.py > docs/api.md
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from typing import Any

import dragoman
from dragoman.errors import DragomanError
from dragoman.reporting.attention import Attention

INTRODUCTION = """\
# The Python interface

`python scripts/api_reference.py > docs/api.md` makes this page from the docstrings, and a test
keeps it current. [first_steps.ipynb](notebooks/first_steps.ipynb) is a walk through it;
[extending.md](extending.md) shows how to add parts of your own.
"""

# What is shown, in the order in which people meet it.
SHOWN: dict[str, Any] = {
    "load": dragoman.load,
    "Translator": dragoman.Translator,
    "Translation": dragoman.Translation,
    "Attention": Attention,
    "train": dragoman.train,
    "Run": dragoman.Run,
    "evaluate": dragoman.evaluate,
    "Evaluation": dragoman.Evaluation,
    "register": dragoman.register,
    "DragomanError": DragomanError,
}
# Methods that everybody uses; the others are for Dragoman's own rooms.
METHODS = {
    "Translator": ("translate", "attention", "evaluate", "report", "export"),
    "Attention": ("labels", "plot"),
    "Run": ("best_score", "history", "translator", "evaluate"),
}


def signature(name: str, part: Any) -> str:
    """Return how something is called, a parameter a line where one line is too long."""
    if isinstance(part, property):
        return name
    parameters = [
        str(parameter.replace(annotation=inspect.Parameter.empty)).replace(" = ", "=")
        for parameter in inspect.signature(part).parameters.values()
        if parameter.name != "self"
    ]
    kinds = [p.kind for p in inspect.signature(part).parameters.values() if p.name != "self"]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        parameters.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    return f"{name}({', '.join(parameters)})"


def markdown(docstring: str) -> str:
    """Return a docstring as Markdown: its sections become lists."""
    lines: list[str] = []
    section = ""
    for line in inspect.cleandoc(docstring).splitlines():
        if heading := re.fullmatch(r"(Args|Returns|Raises):", line):
            section = heading[1]
            lines += [f"**{section}**", ""]
        elif section and not line.startswith(" "):
            section = ""
            lines.append(line)
        elif section in ("Args", "Raises") and (item := re.match(r"    (\*{0,2}\w+): (.*)", line)):
            lines.append(f"* `{item[1]}`: {item[2]}")
        elif section in ("Args", "Raises") and line:
            lines.append(f"  {line.strip()}")
        else:
            lines.append(line.removeprefix("    ") if section else line)
    return "\n".join(lines).replace("``", "`")


def page() -> Iterator[str]:
    """Yield the parts of the page."""
    yield INTRODUCTION
    for name, part in SHOWN.items():
        whole = signature(f"dragoman.{name}", part) if inspect.isfunction(part) else name
        yield f"\n## {name}\n"
        if whole != name:
            yield f"```python\n{whole}\n```\n"
        yield markdown(part.__doc__) + "\n"
        for method in METHODS.get(name, ()):
            member = inspect.getattr_static(part, method)
            yield f"\n### {name}.{method}\n"
            yield f"```python\n{signature(f'{name.lower()}.{method}', member)}\n```\n"
            yield markdown(inspect.getdoc(member) or "") + "\n"


if __name__ == "__main__":
    sys.stdout.write("\n".join(page()))
