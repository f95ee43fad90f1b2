"""``train.jsonl``: one JSON object per logged step and validation, each step once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dragoman.errors import DragomanError
from dragoman.files import write_atomic


class RunLog:
    """Appends lines to a file; a resumed run first drops what lies beyond its step.

    So does the average that ends a run, unless it is known to be ``finished``.
    """

    def __init__(self, path: Path, resume_step: int, enabled: bool, finished: bool = False) -> None:
        self.path, self.enabled = path, enabled
        if enabled:
            write_atomic(path, "".join(line for line in self._kept(resume_step, finished)))

    def _kept(self, until: int, finished: bool) -> list[str]:
        kept = []
        if self.path.exists() and until:
            for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:  # cut off by a kill
                    continue
                step = entry.get("step") if isinstance(entry, dict) else None
                if not isinstance(step, int) or step > until:
                    continue
                if step < until or finished or "validation_average" not in entry:
                    kept.append(line + "\n")
        return kept

    def write(self, entry: dict[str, Any]) -> None:
        """Append one line.

        Raises:
            DragomanError: if the disk is full or cannot be written.
        """
        if not self.enabled:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(_rounded(entry)) + "\n")
        except OSError as problem:
            raise DragomanError(f"{self.path}: cannot be written ({problem.strerror})") from None


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return value
