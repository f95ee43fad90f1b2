"""How an exported folder explains itself: ``translate.py``, a program that runs, and README.txt.

The program needs the runtime and SentencePiece alone. Only for runs on whole words does it need
Dragoman too: spaCy cuts words, but does not put a sentence together again.
"""

from __future__ import annotations

from typing import NamedTuple

from dragoman.config import Config, DecodeConfig, source_tag
from dragoman.errors import DragomanError, one_of


class Usage(NamedTuple):
    """What a format says about itself.

    ``body`` is Python that defines ``translate(lines)``; it may use ``FOLDER``, ``TAG`` (a list of
    one source token or none), ``encode(line)`` and ``decode(tokens)``. ``token`` is what it takes
    for a token, str or int; ``modules`` are the lines that import the runtime.
    """

    runtime: str
    packages: str
    token: str
    modules: tuple[str, ...]
    body: str
    contents: str
    notes: str


def check_search(config: Config, runtime: str, missing: tuple[str, ...]) -> None:
    """Refuse search settings that a runtime has no option for, where they are not off.

    Raises:
        DragomanError: naming the key and the value that turns it off.
    """
    decode, off = config.decode, DecodeConfig()
    accepted = ("greedy", "beam")
    if decode.method not in accepted:
        raise DragomanError(
            f"decode.method: {runtime} has no '{decode.method}', expected {one_of(accepted)}"
        )
    for key in missing:
        if key == "replace_unknown" and config.data.tokenizer.kind != "spacy":
            continue  # subwords know every word
        if getattr(decode, key) != getattr(off, key):
            raise DragomanError(
                f"decode.{key}: {runtime} has no such option; decode.{key}="
                f"{str(getattr(off, key)).lower()} exports the run without"
            )


# Each defines encode(line) -> tokens and decode(tokens) -> text.
_SUBWORDS = """
src = sentencepiece.SentencePieceProcessor(model_file=str(FOLDER / "{src}"))
tgt = sentencepiece.SentencePieceProcessor(model_file=str(FOLDER / "{tgt}"))


def encode(line):
    words = line{lower}.split()
    return [piece for word in words for piece in src.encode(word, out_type={token})]


def decode(tokens):
    return " ".join(tgt.decode(tokens).split())
"""
_WORDS = """
words = TokenizerConfig(kind="spacy", form="{form}", lowercase={lowercase})
src, tgt = (load_tokenizer(FOLDER, side, words) for side in ("src", "tgt"))


def encode(line):
    return {encoded}


def decode(tokens):
    return tgt.{decoded}(tokens)
"""
_MAIN = """

if __name__ == "__main__":
    lines = sys.stdin.buffer.read().decode("utf-8").split("\\n")
    sys.stdout.buffer.write("\\n".join(translate(lines)).encode("utf-8"))
"""


def program(config: Config, usage: Usage) -> str:
    """Return ``translate.py``: lines on standard input, translations on standard output."""
    t, numbers = config.data.tokenizer, usage.token == "int"
    modules = list(usage.modules)
    if t.kind == "spacy":
        modules.append("from dragoman.config import TokenizerConfig")
        modules.append("from dragoman.data.tokenizers import load_tokenizer")
        tokenizer = _WORDS.format(
            form=t.form,
            lowercase=t.lowercase,
            encoded="src.encode(line)" if numbers else "src.tokens(src.encode(line))",
            decoded="decode" if numbers else "detokenize",
        )
        lookup = "src.tag_id"
    else:
        modules.append("import sentencepiece")
        tokenizer = _SUBWORDS.format(
            src="tokenizer.model" if t.joint else "tokenizer.src.model",
            tgt="tokenizer.model" if t.joint else "tokenizer.tgt.model",
            lower=".lower()" if t.lowercase else "",
            token=usage.token,
        )
        lookup = "src.piece_to_id"
    tag = source_tag(config.data)
    first = "" if tag is None else f"{lookup}({tag!r})" if numbers else repr(tag)
    return (
        '"""Translate standard input line by line: python translate.py < in.txt > out.txt"""\n\n'
        "import sys\nfrom pathlib import Path\n\n"
        + "".join(f"{module}\n" for module in modules)
        + f"\nFOLDER = Path(__file__).resolve().parent\n{tokenizer}"
        + f"\n\nTAG = [{first}]  # what training put before every source sentence\n"
        + usage.body
        + _MAIN
    )


def readme(config: Config, usage: Usage, origin: str) -> str:
    """Return ``README.txt``; ``origin`` names the run, its checkpoint and the weights."""
    if config.data.tokenizer.kind == "spacy":
        packages, tokenizer = "dragoman", "vocab.*, words.*   the words, for Dragoman's tokenizer"
        caveat = ""
    else:
        packages, tokenizer = "sentencepiece", "tokenizer*.model   SentencePiece, both ways"
        caveat = "\nU+2581 in a text, SentencePiece's mark for a space, is read as a space here.\n"
    return (
        f"Exported by Dragoman for {usage.runtime}: {config.data.src} to {config.data.tgt}.\n"
        f"{origin}\n\n"
        f"    pip install {usage.packages} {packages}\n"
        "    python translate.py < in.txt > out.txt\n\n"
        f"{usage.contents}\n{tokenizer}\n"
        "translate.py       the example: read it for how to call the model\n\n"
        f"{usage.notes}\n{caveat}"
    )
