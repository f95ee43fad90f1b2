"""How an exported folder explains itself: ``translate.py``, a program that runs, and README.txt.

Both are templates that are copied. A program is its format's file, which defines ``search(rows)``,
and ``text.py``, the same for all; it reads ``translate.json``. It needs the runtime and
SentencePiece alone. Only for runs on whole words does it need Dragoman too: spaCy cuts words, but
does not put a sentence together again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from dragoman.config import Config, source_tag
from dragoman.decoding.translator import Translator

TEMPLATES = Path(__file__).parent / "templates"


def tokenizer_files(translator: Translator) -> dict[str, bytes]:
    """Return the tokenizers of both sides by file name."""
    return {**translator.src_tokenizer.files("src"), **translator.tgt_tokenizer.files("tgt")}


def readme(translator: Translator, format: str, origin: str) -> bytes:
    """Return ``README.txt``; ``origin`` names the run, its checkpoint and the weights."""
    data = translator.config.data
    package = "sentencepiece" if data.tokenizer.kind == "sentencepiece" else "dragoman"
    template = (TEMPLATES / f"{format}.txt").read_text(encoding="utf-8")
    return template.format(src=data.src, tgt=data.tgt, origin=origin, package=package).encode()


def longest_targets(config: Config) -> list[int]:
    """Return how many tokens Dragoman allows a translation, by source length without EOS."""
    decode = config.decode
    lengths = torch.arange(config.data.max_length) * decode.max_length_ratio
    longest: list[int] = (lengths + decode.max_length_extra).long().clamp(min=1).tolist()
    return longest


def usage_files(
    translator: Translator, format: str, origin: str, settings: dict[str, Any]
) -> dict[str, bytes]:
    """Return program, README.txt and tokenizers by file name.

    Args:
        translator: what is exported.
        format: names the templates.
        origin: names the run, its checkpoint and the weights.
        settings: what the program of the format reads of ``translate.json``.
    """
    config = translator.config
    tokenizer, tag = config.data.tokenizer, source_tag(config.data)
    sides = {"src": translator.src_tokenizer, "tgt": translator.tgt_tokenizer}
    settings = {
        **settings,
        "tag": [] if tag is None else [translator.src_tokenizer.tag_id(tag)],
        "tokenizer": {key: getattr(tokenizer, key) for key in ("kind", "form", "lowercase")},
        "models": {side: next(iter(one.files(side))) for side, one in sides.items()},
        "longest_target": longest_targets(config),
    }
    parts = [(TEMPLATES / name).read_bytes() for name in (f"{format}.py", "text.py")]
    return {
        **tokenizer_files(translator),
        "translate.py": b"\n\n".join(parts),
        "translate.json": json.dumps(settings, ensure_ascii=False).encode(),
        "README.txt": readme(translator, format, origin),
    }
