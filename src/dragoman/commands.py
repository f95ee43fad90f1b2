"""The commands of ``dragoman``, a function each, which takes the parsed command line.

A command imports what it needs: ``dragoman --help`` waits for neither PyTorch nor Matplotlib.
"""

from __future__ import annotations

import argparse
import io
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from dragoman import settings
from dragoman.config import Config
from dragoman.errors import DragomanError, nearest, one_of
from dragoman.runs import Run, find_run


def split_words(words: Sequence[str]) -> tuple[list[Run], list[str]]:
    """Part a command's words into runs and ``key=value`` overrides."""
    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    runs = [find_run(word) for word in words if word not in overrides]
    if not runs:
        raise DragomanError("name a run: a folder under checkpoints, or its path")
    return runs, overrides


def override_decoding(config: Config, overrides: Sequence[str]) -> Config:
    """Return a config with ``decode.key=value`` overrides applied and checked.

    Raises:
        DragomanError: for any other section, an unknown key, or a value of the wrong type.
    """
    known = [key for key in settings.known_keys(config) if key.startswith("decode.")]
    for override in overrides:
        path = override.partition("=")[0]
        if path in known:
            continue
        if path in settings.known_keys(config):
            raise DragomanError(
                f"{path}: is part of the trained run; only decode.* keys can be changed here"
            )
        raise DragomanError(f"there is no key '{path}'{nearest(path, known)}")
    data = settings.to_dict(config)
    for override in overrides:
        path, _, value = override.partition("=")
        try:
            data["decode"][path.removeprefix("decode.")] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise DragomanError(f"{path}: '{value}' is not a value") from None
    changed = settings.from_dict(data, origin="command line")
    method = changed.decode.method
    for override in overrides:
        path = override.partition("=")[0]
        methods = SEARCHES.get(path.removeprefix("decode."), (method,))
        if method not in methods:
            raise DragomanError(f"{path}: is for decode.method={one_of(methods)}, not {method}")
    return changed


# Keys that do nothing in another search.
SEARCHES = {
    "beam_size": ("beam",),
    "length_penalty": ("greedy", "beam", "sample"),
    "length_penalty_form": ("greedy", "beam", "sample"),
    "stopping": ("beam",),
    "temperature": ("sample", "mbr"),
    "top_k": ("sample", "mbr"),
    "top_p": ("sample", "mbr"),
    "seed": ("sample", "mbr"),
    "samples": ("mbr",),
}


def _load(arguments: argparse.Namespace) -> tuple[Any, list[Run], Config]:
    """Return the translator, runs and config that the common arguments describe."""
    from dragoman.decoding.translator import load_translator

    runs, overrides = split_words(arguments.words)
    settings.check_device(arguments.device)
    translator = load_translator(runs, arguments.checkpoint, arguments.weights, arguments.device)
    config = override_decoding(translator.config, overrides)
    if arguments.root is not None:
        config.data.root = arguments.root
    if arguments.pair is not None:
        for run in runs:
            trained = {f"{src}-{tgt}": (src, tgt) for src, tgt in run.trained_pairs()}
            if arguments.pair not in trained:
                raise DragomanError(
                    f"--pair: {run.name} was not trained to translate {arguments.pair}, expected "
                    f"{one_of(trained)}"
                )
        data = config.data
        data.columns = data.columns or [data.src, data.tgt]  # the files are as they were
        data.src, data.tgt = trained[arguments.pair]
    translator.config = config
    return translator, runs, config


def _only_run(runs: Sequence[Run], command: str) -> Run:
    """Return the run; refuse several."""
    if len(runs) > 1:
        raise DragomanError(f"{command}: one run at a time, not {len(runs)}")
    return runs[0]


def _rival(name: str, split: str, references: Sequence[str], config: Config) -> Any:
    """Return a run to compare with, as it was evaluated.

    Raises:
        DragomanError: if it translates another pair of languages, or other lines.
    """
    from dragoman.evaluation.scores import Evaluated, read_scores

    run, pair = find_run(name), (config.data.src, config.data.tgt)
    theirs = run.trained_pairs()
    if pair not in theirs:
        raise DragomanError(
            f"--compare: {run.name} was trained to translate "
            f"{one_of('-'.join(other) for other in theirs)}, not {'-'.join(pair)}"
        )
    label = _label(run, split, "-".join(pair))
    hypotheses = _translations(run, label, references)
    return Evaluated(run.name, read_scores(run.folder, label), hypotheses)


def _translations(run: Run, label: str, references: Sequence[str]) -> list[str]:
    """Return what was written when a run was evaluated, one line for each reference."""
    from dragoman.evaluation.scores import read_hypotheses

    path = run.folder / f"hypotheses.{label}.txt"
    found = read_hypotheses(path)
    if len(found) != len(references):
        raise DragomanError(
            f"{path}: {len(found)} translations for {len(references)} references; evaluate it again"
        )
    return found


def _label(run: Run, split: str, pair: str | None) -> str:
    """Return what files about a split are named after: it, and the pair if not the run's own."""
    data = settings.load(run.folder / "config.yaml").data
    return split if pair in (None, f"{data.src}-{data.tgt}") else f"{split}.{pair}"


def _origin(arguments: argparse.Namespace, runs: Sequence[Run]) -> dict[str, Any]:
    """Return which weights translations come from."""
    return {
        "runs": [run.name for run in runs],
        "checkpoint": [run.checkpoint(arguments.checkpoint).name for run in runs],
        "weights": arguments.weights or "as validated",
    }


def evaluate(arguments: argparse.Namespace) -> None:
    """Score runs on a split, and compare with another run if asked to."""
    from dragoman.data.sources import read_pairs
    from dragoman.evaluation.evaluate import evaluate as run_evaluation
    from dragoman.evaluation.evaluate import write_evaluation
    from dragoman.evaluation.scores import format_scores, search_words
    from dragoman.evaluation.significance import compare, format_comparison

    translator, runs, config = _load(arguments)
    split = arguments.split or config.data.validation_split
    if len(runs) > 1 and arguments.output is None:
        raise DragomanError("--output: name a folder for the scores of an ensemble")
    folder = Path(arguments.output) if arguments.output else runs[0].folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise DragomanError(f"{folder}: cannot be made ({problem.strerror})") from None
    label = _label(runs[0], split, arguments.pair)
    references = read_pairs(config.data, split)[1] if arguments.compare else []
    rivals = [_rival(name, split, references, config) for name in arguments.compare or []]
    with tqdm(unit=" sentences", desc=f"translating {split}", disable=None, leave=False) as bar:
        done = run_evaluation(translator, split, config.decode, bar.update)
    origin = _origin(arguments, runs)
    write_evaluation(folder, label, done, config.decode, origin)
    decoding = asdict(config.decode)
    print(
        f"{', '.join(origin['runs'])} on {split}: {len(done.sources)} sentences, "
        f"{search_words(decoding)}"
    )
    if done.empty:
        warnings.warn(f"{done.empty} of {len(done.sources)} translations are empty", stacklevel=2)
    print(format_scores(done.scores))
    print(f"written to {folder}/scores.{label}.json and hypotheses.{label}.txt")
    for number in range(min(arguments.samples, len(done.sources))):
        print(f"\n  source       {done.sources[number].strip()}")
        print(f"  translation  {done.hypotheses[number]}")
        print(f"  reference    {done.references[number].strip()}")
    found: list[dict[str, Any]] = []
    for rival in rivals:
        tests = compare(done.hypotheses, rival.hypotheses, done.references, config.data.tgt)
        found.append({"run": rival.name, "decoding": rival.scores["decoding"], "tests": tests})
        print(f"\npaired against {rival.beside(decoding)}")
        print(format_comparison(tests))
        write_evaluation(folder, label, done, config.decode, origin, found)
    if rivals:
        print("p: how often chance alone, over these sentences, makes so large a difference")


def _same_file(one: Path, other: Path) -> bool:
    return other.exists() and one.samefile(other)


def translate(arguments: argparse.Namespace) -> None:
    """Translate standard input or a file, line by line."""
    from dragoman.data.formats import check_file, decode_lines, read_lines
    from dragoman.decoding.translator import stream

    translator, _, config = _load(arguments)
    if arguments.input is None:
        lines: Iterator[str] = decode_lines(sys.stdin.buffer, "standard input")
    else:
        source = check_file(Path(arguments.input))  # before --output is emptied
        lines = read_lines(source)
        if arguments.output is not None and _same_file(source, Path(arguments.output)):
            raise DragomanError(f"--output: {source} is the input, expected another file")
    with ExitStack() as files:
        out = sys.stdout
        if arguments.output is not None:
            try:
                out = files.enter_context(open(arguments.output, "w", encoding="utf-8"))
            except OSError as problem:
                raise DragomanError(
                    f"{arguments.output}: cannot be written ({problem.strerror})"
                ) from None
        elif isinstance(out, io.TextIOWrapper):
            out.reconfigure(encoding="utf-8")
        several = config.decode.nbest > 1
        for number, found in enumerate(stream(translator, lines, config.decode), start=1):
            for best in found:
                cells = (str(number), f"{best.score:.6f}", best.text) if several else (best.text,)
                print(*cells, sep="\t", file=out)
            out.flush()


def backtranslate(arguments: argparse.Namespace) -> None:
    """Make sentence pairs of monolingual text."""
    from dragoman.decoding.synthetic import write_pairs

    translator, runs, config = _load(arguments)
    output = Path(arguments.output)
    origin = _origin(arguments, runs)
    with tqdm(unit=" sentences", desc="translating", disable=None, leave=False) as bar:
        inputs = [Path(name) for name in arguments.input]
        write_pairs(translator, inputs, output, config.decode, origin, print, bar.update)
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
    from dragoman.data.sources import read_pairs
    from dragoman.evaluation.scores import read_scores
    from dragoman.files import write_atomic
    from dragoman.reporting.breakdown import sentences_of
    from dragoman.reporting.report import report_page

    runs, overrides = split_words(arguments.words)
    run = _only_run(runs, "report")
    if overrides:
        raise DragomanError(
            f"report: shows translations that are there; `dragoman evaluate` takes {overrides[0]}"
        )
    split = arguments.split or settings.load(run.folder / "config.yaml").data.validation_split
    label = _label(run, split, arguments.pair)
    scores = read_scores(run.folder, label)
    counts = scores["counts"]  # attention is drawn with the weights that were scored
    arguments.checkpoint = "best" if run.exported else counts["checkpoint"][0]
    arguments.weights = None if counts["weights"] == "as validated" else counts["weights"]
    translator, _, config = _load(arguments)
    sources, references = read_pairs(config.data, split)
    other = None
    if arguments.compare is not None:
        rival = _rival(arguments.compare, split, references, config)
        there = sentences_of(sources, rival.hypotheses, references)
        other = (rival.name, rival.beside(scores["decoding"]), there)
    found = sentences_of(sources, _translations(run, label, references), references)
    path = Path(arguments.output or run.folder / f"report.{label}.html")
    write_atomic(path, report_page(translator, run.folder, split, scores, found, other))
    print(f"written to {path}")


def attention(arguments: argparse.Namespace) -> None:
    """Draw the attention of a sentence, or measure its alignments on the embedded corpus."""
    from dragoman.data.sources import read_pairs
    from dragoman.reporting.attention import caption_alignment, draw_attention

    translator, runs, config = _load(arguments)
    run = _only_run(runs, "attention")
    split = arguments.aer
    if split is None and config.data.name == "captions":
        split = config.data.validation_split
    rate = None if split is None else caption_alignment(translator, split)
    sentence = arguments.sentence
    if sentence is None:
        sentence = read_pairs(config.data, config.data.validation_split)[0][0]
    parts = ["attention", arguments.layer, None if arguments.head is None else f"h{arguments.head}"]
    path = Path(arguments.output or run.folder / f"{'.'.join(p for p in parts if p)}.png")
    target = draw_attention(
        translator,
        sentence,
        config.decode,
        path,
        target=arguments.target,
        name=arguments.layer,
        head=arguments.head,
    )
    print(f"source       {sentence}\ntranslation  {target}\npicture      {path}")
    if rate is not None:
        print(
            f"alignment error rate on {split}: {100 * rate.rate:.1f} % "
            f"(precision {100 * rate.precision:.1f} %, recall {100 * rate.recall:.1f} %)"
        )


def export(arguments: argparse.Namespace) -> None:
    """Write a run into a folder for another runtime."""
    from dragoman.evaluation.scores import read_scores, search_words
    from dragoman.export.export import export as run_export
    from dragoman.export.export import write_export

    translator, runs, config = _load(arguments)
    made = _origin(arguments, runs)
    origin = f"run {runs[0].name}, {made['checkpoint'][0]}, weights: {made['weights']}"
    split = config.data.validation_split
    label = _label(runs[0], split, arguments.pair)
    with suppress(DragomanError):  # not evaluated
        scores = read_scores(runs[0].folder, label)
        counts, bleu = scores["counts"], scores["bleu"]
        if all(counts[key] == made[key] for key in ("checkpoint", "weights")):
            search = search_words(scores["decoding"])
            origin += f"\nBLEU {bleu['score']:.2f} on {split} ({search}; {bleu['signature']})"
    files = run_export(translator, arguments.format, arguments.quantization, origin)
    suffix = "" if arguments.quantization == "float32" else f"-{arguments.quantization}"
    folder = Path(arguments.output or runs[0].folder / f"{arguments.format}{suffix}")
    write_export(folder, files)
    size = sum(len(content) for content in files.values()) / 1e6
    print(f"{origin}\nwritten to {folder} ({size:.1f} MB); README.txt there says how to use it")
