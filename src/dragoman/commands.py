"""The commands of ``dragoman``, a function each: the command line in, the door called, words out.

A command imports what it needs: ``dragoman --help`` waits for neither PyTorch nor Matplotlib.
"""

from __future__ import annotations

import argparse
import io
import os
import select
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import yaml
from tqdm import tqdm

from dragoman.errors import DragomanError, visible

if TYPE_CHECKING:
    from dragoman.api import Translator

MOST = 4096  # lines translated together


def split_words(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Part a command's words into runs and keys of ``decode``.

    Raises:
        DragomanError: for a key of another section, or a value that cannot be read.
    """
    names: list[str] = []
    search: dict[str, Any] = {}
    for word in words:
        path, equals, value = word.partition("=")
        if os.path.isfile(word):
            raise DragomanError(f"{word}: is a file, not a run; --input {word} translates it")
        if not equals or os.path.exists(word) or os.path.exists(Path("checkpoints", word)):
            names.append(word)
        elif not path.startswith("decode."):
            raise DragomanError(
                f"{path}: only decode.* keys can be changed here; the others are part of the "
                "trained run"
            )
        else:
            try:
                search[path.removeprefix("decode.")] = yaml.safe_load(value)
            except (yaml.YAMLError, ValueError):
                raise DragomanError(f"{path}: '{value}' is not a value") from None
    return names, search


def _load(arguments: argparse.Namespace) -> Translator:
    """Return the translator that the common arguments describe."""
    from dragoman.api import load

    names, search = split_words(arguments.words)
    return load(
        *names,
        checkpoint=arguments.checkpoint,
        weights=arguments.weights,
        device=arguments.device,
        pair=arguments.pair,
        root=arguments.root,
        **search,
    )


def _bar(words: str) -> Any:
    return tqdm(unit=" sentences", desc=words, disable=None, leave=False)


def data(arguments: argparse.Namespace) -> None:
    """Fetch Multi30k, or copy it, and verify it."""
    from dragoman.data import multi30k

    multi30k.fetch(
        Path(arguments.root),
        arguments.languages,
        arguments.splits,
        source=arguments.source or multi30k.URL,
        monolingual=not arguments.no_monolingual,
        say=lambda line: print(line, flush=True),
    )


def prepare(arguments: argparse.Namespace) -> None:
    """Read, clean, learn the vocabulary and encode, as training does before its first step."""
    from dragoman.compose import compose_config
    from dragoman.data.corpora import check_texts
    from dragoman.data.preparation import (
        build_training_set,
        count_pairs,
        prepare_texts,
        train_or_load_tokenizers,
    )
    from dragoman.files import check_writable, write_atomic
    from dragoman.reporting.data_page import data_page
    from dragoman.search_path import shipped_configs

    page = Path(arguments.output)
    check_writable(page.parent)
    config, _ = compose_config(shipped_configs(), arguments.words, count_pairs)
    data = config.data
    check_texts(data)
    texts = prepare_texts(data)
    tokenizers = train_or_load_tokenizers(data, texts)
    counts = build_training_set(data, texts, *tokenizers, config.seed).counts
    for corpus, (text, _, found) in zip(data.corpora, texts, strict=True):
        print(f"{corpus.source} {corpus.split} {corpus.src}->{corpus.tgt}: {found.read:,} pairs")
        examples = text.examples()
        for what, count in found.left_out.items():
            print(f"  {count:>11,}  {what}")
            for src, tgt in examples.get(what, ()) if count else ():
                print(f"{'':15}{visible(src):.80}\n{'':15}{visible(tgt):.80}\n")
        for split, count in found.leaks.items():
            print(f"  {count:>11,}  share a sentence with {split}, and stay (data.clean.leaks)")
    sizes = " and ".join(f"{len(each):,}" for each in dict.fromkeys(tokenizers))
    print(
        f"{counts['kept']:,} pairs are trained on ({counts['empty']:,} more are empty, "
        f"{counts['too_long']:,} too long); vocabulary {sizes}; cached in {data.cache}"
    )
    write_atomic(page, data_page(data, texts, tokenizers))
    print(f"written to {page}: the text in pictures")


def evaluate(arguments: argparse.Namespace) -> None:
    """Score runs on a split, and compare with another run if asked to."""
    from dragoman.data.lines import alternatives
    from dragoman.evaluation.robustness import format_robustness
    from dragoman.evaluation.scores import Evaluated, search_words
    from dragoman.evaluation.significance import format_comparison

    translator = _load(arguments)
    split = arguments.split or translator.config.data.validation_split
    with _bar(f"translating {split}") as bar:
        done = translator.evaluate(
            split,
            folder=arguments.output,
            compare=arguments.compare or (),
            robust=arguments.robust,
            progress=bar.update,
        )
    decoding = vars(done.decode)
    names = ", ".join(translator.origin["runs"])
    print(f"{names} on {split}: {len(done.sources)} sentences, {search_words(decoding)}")
    if done.empty:
        warnings.warn(f"{done.empty} of {len(done.sources)} translations are empty", stacklevel=2)
    print(done)
    assert done.path is not None
    hypotheses = done.path.name.replace("scores.", "hypotheses.", 1).replace(".json", ".txt")
    print(f"written to {done.path} and {hypotheses}")
    if arguments.output is None and done.path.name != f"scores.{split}.json":
        print("not the run's usual search and checkpoint: its own scores stay as they are")
    for number in range(min(arguments.samples, len(done.sources))):
        print(f"\n  source       {visible(done.sources[number].strip())}")
        print(f"  translation  {visible(done.hypotheses[number])}")
        for reference in alternatives(done.references[number]):
            print(f"  reference    {visible(reference.strip())}")
    for found in done.comparisons:
        rival = Evaluated(found["run"], found["scores"], [])
        print(f"\npaired against {rival.beside(decoding)}")
        print(format_comparison(found["tests"]))
    if done.comparisons:
        print("p: how likely so large a difference is by chance, over these sentences")
    if done.robustness:
        print(f"\n{format_robustness(done.robustness)}")


def arrived(stream: BinaryIO, most: int = MOST) -> Iterator[list[bytes]]:
    """Yield the lines that have arrived, up to about ``most`` at a time; wait for the first alone.

    So a terminal and a coprocess are answered line by line, and a file comes in large parts.
    """
    rest, over = b"", False
    while not over:
        lines: list[bytes] = []
        while not over and (not lines or (len(lines) < most and _ready(stream))):
            block = stream.read1(1 << 16)  # type: ignore[attr-defined]
            over = not block
            *whole, rest = (rest + block).split(b"\n")
            lines += [line + b"\n" for line in whole]
        if over and rest:
            lines.append(rest)
        if lines:
            yield lines


def _ready(stream: BinaryIO) -> bool:
    """Whether more can be read without waiting for it."""
    try:
        return bool(select.select([stream], [], [], 0)[0])
    except (OSError, ValueError):  # it has no descriptor: it is in memory
        return True


def _parts(arguments: argparse.Namespace, files: ExitStack) -> Iterator[list[str]]:
    """Yield the lines to translate, a part at a time."""
    from dragoman.data.lines import check_file, decode_lines, read_lines

    name, stream = "standard input", sys.stdin.buffer
    if arguments.input is not None:
        path = Path(arguments.input)
        if path.is_file() or not path.exists():
            if arguments.output is not None:
                output = Path(arguments.output)
                if output.exists() and output.samefile(check_file(path)):
                    raise DragomanError(f"--output: {path} is the input, expected another file")
            text = read_lines(check_file(path))
            while part := list(islice(text, MOST)):
                yield part
            return
        name, stream = str(path), files.enter_context(path.open("rb"))  # a pipe: read once
    done = 0
    for lines in arrived(stream):
        yield list(decode_lines(lines, name, done + 1))
        done += len(lines)


def translate(arguments: argparse.Namespace) -> None:
    """Translate standard input or a file, line by line."""
    translator = _load(arguments)
    decode = translator.config.decode
    with ExitStack() as files:
        parts = _parts(arguments, files)
        first = next(parts, None)  # what is wrong with the input shows before --output is emptied
        out = sys.stdout
        if arguments.output is not None:
            path = Path(arguments.output)
            try:
                out = files.enter_context(path.open("w", encoding="utf-8"))
            except OSError as problem:
                raise DragomanError(f"{path}: cannot be written ({problem.strerror})") from None
        elif isinstance(out, io.TextIOWrapper):
            out.reconfigure(encoding="utf-8")
        start = 1
        for part in parts if first is None else chain([first], parts):
            rows = translator.translate_lines(part, decode, start)
            for number, found in enumerate(rows, start):
                for best in found:
                    several = (str(number), f"{best.score:.6f}") if decode.nbest > 1 else ()
                    print(*several, best.text, sep="\t", file=out)
            out.flush()
            start += len(part)
    for remark in translator.remarks():
        warnings.warn(remark, stacklevel=2)


def backtranslate(arguments: argparse.Namespace) -> None:
    """Make sentence pairs of monolingual text."""
    from dragoman.decoding.synthetic import write_pairs

    translator = _load(arguments)
    config, output = translator.config, Path(arguments.output)
    with _bar("translating") as bar:
        inputs = [Path(name) for name in arguments.input]
        write_pairs(translator, inputs, output, config.decode, translator.origin, print, bar.update)
    src, tgt = config.data.src, config.data.tgt
    languages = f"src: {tgt}, tgt: {src}"
    columns = config.data.columns or [src, tgt]  # of files without a header line
    there = f"data.columns='[{', '.join(columns)}]' " if config.data.name == "files" else ""
    print(
        f"written to {output}.{src} and {output}.{tgt}\n"
        f"to train {tgt}->{src} on them too (back-translation; for {src}->{tgt}, self-training, "
        "swap the languages):\n"
        f"  data.src={tgt} data.tgt={src} {there}"
        f"'++data.files.synthetic=\"{output.resolve()}.{{lang}}\"' "
        f"data.corpora='[{{source: {config.data.name}, {languages}}}, "
        f'{{source: files, split: synthetic, {languages}, tag: "<bt>"}}]\''
    )


def report(arguments: argparse.Namespace) -> None:
    """Write one HTML page about a run and its translations of a split."""
    from dragoman.api import load

    names, search = split_words(arguments.words)
    if len(names) > 1:
        raise DragomanError(f"report: one run at a time, not {len(names)}")
    if search:
        raise DragomanError(
            "report: shows translations that are there; `dragoman evaluate` takes "
            f"decode.{next(iter(search))}"
        )
    translator = load(*names, device=arguments.device, pair=arguments.pair, root=arguments.root)
    path = translator.report(arguments.split, arguments.compare, arguments.output)
    print(f"written to {path}")


def attention(arguments: argparse.Namespace) -> None:
    """Draw the attention of a sentence, or measure its alignments on the embedded corpus."""
    from dragoman.data.corpora import read_pairs
    from dragoman.reporting.attention import caption_alignment
    from dragoman.reporting.heatmap import save_figure

    translator = _load(arguments)
    if len(translator.runs) > 1:
        raise DragomanError(f"attention: one run at a time, not {len(translator.runs)}")
    data, sentence, split = translator.config.data, arguments.sentence, arguments.aer
    if split is None and data.name == "captions":
        split = data.validation_split
    rate = None if split is None else caption_alignment(translator, split)
    if sentence is None:
        sentence = read_pairs(data, data.validation_split)[0][0]
    drawn = translator.attention(sentence, arguments.target)
    parts = ["attention", arguments.layer, None if arguments.head is None else f"h{arguments.head}"]
    name = f"{'.'.join(part for part in parts if part)}.png"
    path = Path(arguments.output or translator.runs[0].folder / name)
    save_figure(drawn.plot(arguments.layer, arguments.head), path)
    print(f"source       {visible(sentence)}\ntranslation  {visible(drawn.target)}")
    print(f"picture      {path}")
    if rate is not None:
        print(
            f"alignment error rate on {split}: {100 * rate.rate:.1f} % "
            f"(precision {100 * rate.precision:.1f} %, recall {100 * rate.recall:.1f} %)"
        )


def export(arguments: argparse.Namespace) -> None:
    """Write a run into a folder for another runtime."""
    translator = _load(arguments)
    folder = translator.export(arguments.format, arguments.output, arguments.quantization)
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) / 1e6
    print(
        f"{translator.pedigree}\nwritten to {folder} ({size:.1f} MB); README.txt there says how to "
        "use it"
    )
