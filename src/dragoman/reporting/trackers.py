"""The log of a run: ``train.jsonl``, one JSON object for each logged step and validation."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a ``train.jsonl``, without a line that a kill has cut short."""
    entries: list[Any] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError):
                entries.append(json.loads(line))
    return [e for e in entries if isinstance(e, dict) and isinstance(e.get("step"), int)]
