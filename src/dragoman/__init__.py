"""Dragoman trains translation models: sentence pairs in; a model and a BLEU score to trust out.

    import dragoman

    translator = dragoman.load("docs/results/models/de-en")    # a run, an export, or an ensemble
    translator.translate("Ein Hund läuft über die Wiese.")      # a string in, a string out
    translator.translate(lines, beam_size=8)                    # a list in, a list out
    translator.attention("Ein Hund läuft.").plot()              # where the model looks

    run = dragoman.train("+experiment=demo", "seed=2")          # the words of the command line
    run.best_score, run.history, run.folder
    run.evaluate("test").bleu.score
    dragoman.evaluate(translator, sources, references)          # the same scores on any lines

What can be put right raises ``DragomanError``, whose message says how. ``register`` adds parts of
your own (an attention score, a schedule, a whole architecture) under a name that a config may use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dragoman.errors import DragomanError

if TYPE_CHECKING:
    from dragoman.api import Run, Translator, evaluate, load, train
    from dragoman.decoding.translator import Translation
    from dragoman.evaluation.evaluate import Evaluation
    from dragoman.plugins import register

__version__ = "0.2.0.dev0"
__all__ = [
    "DragomanError",
    "Evaluation",
    "Run",
    "Translation",
    "Translator",
    "evaluate",
    "load",
    "register",
    "train",
]
# Where a name comes from that is not in the door itself.
_ELSEWHERE = {
    "Evaluation": "evaluation.evaluate",
    "Translation": "decoding.translator",
    "register": "plugins",
}


def __getattr__(name: str) -> Any:
    # PyTorch and Hydra are imported when something needs them, not by `import dragoman`.
    if name not in __all__:
        raise AttributeError(f"module 'dragoman' has no attribute '{name}'")
    module = importlib.import_module(f"dragoman.{_ELSEWHERE.get(name, 'api')}")
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
