"""The door: what ``import dragoman`` offers. The command line is thin over it."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dragoman import settings
from dragoman.compose import compose_config
from dragoman.config import Config, DataConfig, DecodeConfig
from dragoman.data import memory
from dragoman.data.corpora import read_pairs, use_kept
from dragoman.data.lines import Reference
from dragoman.data.preparation import count_pairs
from dragoman.decoding.translator import Translator as Engine
from dragoman.decoding.translator import load_translator
from dragoman.errors import DragomanError, check_text, nearest, one_of
from dragoman.evaluation.evaluate import Evaluation, write_evaluation
from dragoman.evaluation.evaluate import evaluate as evaluate_lines
from dragoman.evaluation.metrics import check_tokens
from dragoman.evaluation.robustness import robustness
from dragoman.evaluation.scores import Evaluated, read_evaluated, read_scores, search_words
from dragoman.evaluation.significance import compare as compare_systems
from dragoman.files import check_writable, write_atomic
from dragoman.runs import Run as RunFolder
from dragoman.runs import find_run, leaking, read_log, read_state, run_name, run_of
from dragoman.search_path import shipped_configs

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


def searching(config: Config, search: Mapping[str, Any]) -> DecodeConfig:
    """Return the search of a config with some keys of ``decode`` changed, and checked.

    Raises:
        DragomanError: for an unknown key, a wrong value, or a key that the search does not use.
    """
    if not search:
        return config.decode
    known = [item.name for item in fields(DecodeConfig)]
    for name in search:
        if name not in known:
            raise DragomanError(f"there is no key 'decode.{name}'{nearest(name, known)}")
    data = settings.to_dict(config)
    data["decode"].update(search)
    decode = settings.from_dict(data, origin="search").decode
    for name in search:
        methods = SEARCHES.get(name, (decode.method,))
        if decode.method not in methods:
            raise DragomanError(
                f"decode.{name}: is for decode.method={one_of(methods)}, not {decode.method}"
            )
    return decode


@dataclass
class Translator(Engine):
    """One run, or several as an ensemble, ready to translate; ``load`` returns it.

    ``config`` is what the first run was trained with, ``config.decode`` the search that is used
    where a call names no other.
    """

    runs: Sequence[RunFolder] = ()
    checkpoint: str = "best"
    weights: str | None = None

    def translate(
        self,
        text: str | Iterable[str],
        *,
        details: bool = False,
        progress: Callable[[int], object] | None = None,
        **search: Any,
    ) -> Any:
        """Translate one line, or many.

        Args:
            text: a string, or any iterable of strings, each a line of its own.
            details: return a ``Translation`` (text, score, log_prob, tokens) for each string.
            progress: called with the number of lines that have been translated since the last call.
            **search: keys of the section ``decode``, such as ``beam_size=8`` or ``nbest=3``.

        Returns:
            A string for a string, a list for an iterable. With ``nbest`` above 1, a list of so many
            stands in the place of each translation.

        Raises:
            DragomanError: for what is not text, an unknown key or an impossible value.
        """
        decode = searching(self.config, search)
        if one := isinstance(text, str):
            lines = [check_text(text, "text")]
        elif isinstance(text, Iterable):
            lines = [check_text(line, f"line {n}") for n, line in enumerate(text, start=1)]
        else:
            raise DragomanError(f"text: {text!r:.40} is neither a string nor a list of them")
        found = self.translate_lines(lines, decode, progress=progress)
        for remark in self.remarks():
            warnings.warn(remark, stacklevel=2)
        rows: list[Any] = [best if details else [t.text for t in best] for best in found]
        if decode.nbest == 1:
            rows = [row[0] for row in rows]
        return rows[0] if one else rows

    def attention(self, source: str, target: str | None = None, **search: Any) -> Any:
        """Return where the (first) model looks while it writes a translation.

        The result is a mapping from names such as ``decoder.2.cross`` to matrices of shape (heads,
        rows, columns), with ``labels(name)`` and ``plot(layer=None, head=None)``.

        Args:
            source: the sentence.
            target: its translation; by default the model's own.
            **search: as in ``translate``.
        """
        from dragoman.reporting.attention import attention_of

        source = check_text(source, "source")
        if not source.strip():
            raise DragomanError("source: is empty")
        if target is None:
            target = self.translate(source, **{**search, "nbest": 1})
        return next(attention_of(self, [(source, check_text(target, "target"))]))

    @property
    def origin(self) -> dict[str, Any]:
        """Which weights translations come from."""
        return {
            "runs": [run.name for run in self.runs],
            "checkpoint": [run.checkpoint(self.checkpoint).name for run in self.runs],
            "weights": self.weights or "as validated",
        }

    def label(self, split: str, decode: DecodeConfig | None) -> str:
        """Return what files about a split are named after.

        It is the split, and the pair of languages if that is not the run's own. In the run folder,
        where ``decode`` is given, so are another checkpoint, other weights and other keys of the
        search than the run's own.
        """
        run = self.runs[0]
        usual = settings.load(run.folder / "config.yaml")
        parts, pair = [split], (self.config.data.src, self.config.data.tgt)
        if pair != (usual.data.src, usual.data.tgt):
            parts.append("-".join(pair))
        if decode is None:
            return ".".join(parts)
        used = run.checkpoint(self.checkpoint)
        with suppress(DragomanError):  # no best yet: every checkpoint is another one
            if run.checkpoint().name != used.name:
                parts.append(used.name)
        if self.weights not in (None, read_state(used).get("scored", "raw")):
            parts.append(str(self.weights))
        for item in fields(decode):
            value = getattr(decode, item.name)
            if value != getattr(usual.decode, item.name):
                parts.append(f"{item.name}={value}")
        return ".".join(parts)

    def evaluate(
        self,
        split: str | None = None,
        *,
        folder: str | Path | None = None,
        compare: Sequence[str | RunFolder] = (),
        robust: bool = False,
        progress: Callable[[int], object] | None = None,
        **search: Any,
    ) -> Evaluation:
        """Score the translations of a split, and write scores and translations down.

        Args:
            split: name of the split; by default the validation split.
            folder: where the files go. By default the run folder, where an evaluation with another
                search or checkpoint than the run's own gets file names of its own.
            compare: evaluated runs to test the difference with.
            robust: whether the split is also scored in capitals, with typos and so on
                (``dragoman.evaluation.robustness``), which takes ten times as long.
            progress: as in ``translate``.
            **search: as in ``translate``.

        Raises:
            DragomanError: if the split or a rival's evaluation is not there, or the folder cannot
                be written; before anything is translated.
        """
        decode, data = searching(self.config, search), self.config.data
        split = split or data.validation_split
        if folder is None and len(self.runs) != 1:
            raise DragomanError("--output: name a folder for the scores of an ensemble")
        place = self.runs[0].folder if folder is None else Path(os.path.expanduser(folder))
        label = self.label(split, None if folder is not None else decode)
        check_writable(place)
        sources, references = read_pairs(data, split)
        tokens = check_tokens(settings.tokens_of(self.config))
        rivals = [self.rival(other, split, len(references)) for other in compare]
        done = evaluate_lines(self, sources, references, decode, progress)
        for remark in self.remarks():
            warnings.warn(f"{split}: {remark}", stacklevel=2)
        if shared := self.runs[0].leaks(split):
            warnings.warn(leaking(split, shared), stacklevel=2)
        for rival in rivals:
            tests = compare_systems(
                done.hypotheses, rival.hypotheses, references, data.tgt, tokenize=tokens
            )
            done.comparisons.append({"run": rival.name, "scores": rival.scores, "tests": tests})
        if robust:
            done.robustness = robustness(self, done, progress)
        write_evaluation(place, label, done, self.origin)
        return done

    def rival(self, other: str | RunFolder, split: str, sentences: int) -> Evaluated:
        """Return another run as it was last evaluated in its usual way, to compare with.

        Raises:
            DragomanError: if it translates another pair of languages, or other lines.
        """
        run = other if isinstance(other, RunFolder) else find_run(str(other))
        pair, theirs = (self.config.data.src, self.config.data.tgt), run.trained_pairs()
        if pair not in theirs:
            raise DragomanError(
                f"--compare: {run.name} was trained to translate "
                f"{one_of('-'.join(each) for each in theirs)}, not {'-'.join(pair)}"
            )
        usual = settings.load(run.folder / "config.yaml").data
        own = pair == (usual.src, usual.tgt)
        label = split if own else f"{split}.{'-'.join(pair)}"
        return read_evaluated(run.folder, label, run.name, sentences)

    def report(
        self,
        split: str | None = None,
        compare: str | RunFolder | None = None,
        path: str | Path | None = None,
    ) -> Path:
        """Write one HTML page about the run and its translations of a split; return its path.

        Args:
            split: an evaluated split; by default the validation split.
            compare: another evaluated run to stand beside it.
            path: where the page goes; by default ``report.<split>.html`` in the run folder.

        Raises:
            DragomanError: if the split has not been evaluated, or the page cannot be written.
        """
        from dragoman.reporting.breakdown import sentences_of
        from dragoman.reporting.report import report_page

        run, data = self.runs[0], self.config.data
        split = split or data.validation_split
        label = self.label(split, self.config.decode)
        sources, references = read_pairs(data, split)
        mine = read_evaluated(run.folder, label, run.name, len(references))
        counts = mine.scores["counts"]  # attention is drawn with the weights that were scored
        checkpoint = "best" if run.exported else counts["checkpoint"][0]
        weights = None if counts["weights"] == "as validated" else counts["weights"]
        scored: Engine = self
        if (run.checkpoint(self.checkpoint), self.weights) != (run.checkpoint(checkpoint), weights):
            scored = load_translator([run], checkpoint, weights, str(self.device))
            scored.config = self.config
        other, tokens = None, settings.tokens_of(self.config)
        if compare is not None:
            rival = self.rival(compare, split, len(references))
            there = sentences_of(sources, rival.hypotheses, references, tokens)
            other = (rival.name, rival.beside(mine.scores["decoding"]), there)
        found = sentences_of(sources, mine.hypotheses, references, tokens)
        place = Path(os.path.expanduser(path or run.folder / f"report.{label}.html"))
        write_atomic(place, report_page(scored, run.folder, split, mine.scores, found, other))
        return place

    def export(
        self, format: str, folder: str | Path | None = None, quantization: str = "float32"
    ) -> Path:
        """Write the model into a folder for another runtime, or to hand on; return the folder.

        Args:
            format: ``dragoman``, ``ctranslate2``, ``onnx`` or what a plug-in registered.
            folder: by default one in the run folder, named after the format.
            quantization: of the weights: ``float32``, ``float16`` or ``int8``.

        Raises:
            DragomanError: if the format cannot express the model, or the folder holds other files.
        """
        from dragoman.export.export import export, write_export

        if len(self.runs) != 1:
            raise DragomanError("export: name one run; an ensemble has no single model to write")
        files = export(self, format, quantization, self.pedigree)
        suffix = "" if quantization == "float32" else f"-{quantization}"
        place = Path(os.path.expanduser(folder or self.runs[0].folder / f"{format}{suffix}"))
        write_export(place, files)
        return place

    @property
    def pedigree(self) -> str:
        """The run, checkpoint and weights in words, with the validation BLEU if they have one."""
        made, split = self.origin, self.config.data.validation_split
        said = f"run {made['runs'][0]}, {made['checkpoint'][0]}, weights: {made['weights']}"
        with suppress(DragomanError):  # not evaluated
            scores = read_scores(self.runs[0].folder, self.label(split, self.config.decode))
            counts, bleu = scores["counts"], scores["bleu"]
            if all(counts[key] == made[key] for key in ("checkpoint", "weights")):
                search = search_words(scores["decoding"])
                said += f"\nBLEU {bleu['score']:.2f} on {split} ({search}; {bleu['signature']})"
        return said


def load(
    *names: str | Path | RunFolder,
    checkpoint: str = "best",
    weights: str | None = None,
    device: str = "auto",
    pair: str | None = None,
    root: str | Path | None = None,
    **search: Any,
) -> Translator:
    """Load a run, an export of Dragoman's own format, or several as an ensemble.

    Args:
        *names: folders, or names of runs under ``checkpoints``.
        checkpoint: ``best``, ``last`` or ``step-<n>``.
        weights: ``raw``, ``ema`` or ``average``; by default the ones that validation scored.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:<n>``.
        pair: another pair of languages that the run was trained on, such as ``fr-en``.
        root: folder of the data, if it is not where training found it.
        **search: keys of ``decode`` that are to hold for everything this translator does.

    Raises:
        DragomanError: if a run, checkpoint or file is missing, corrupt or does not fit.
    """
    if not names:
        raise DragomanError("name a run: a folder under checkpoints, or its path")
    found = [name if isinstance(name, RunFolder) else find_run(str(name)) for name in names]
    settings.check_device(device)
    engine = load_translator(found, checkpoint, weights, device)
    config = engine.config
    config.decode = searching(config, search)
    if config.data.name == "memory":  # its pairs lie in the run, wherever that is now
        config.data.root = str(found[0].folder / "pairs")
    use_kept(config.data, found[0].folder)
    if root is not None:
        config.data.root = str(root)
    if pair is not None:
        for run in found:
            trained = {f"{src}-{tgt}": (src, tgt) for src, tgt in run.trained_pairs()}
            if pair not in trained:
                raise DragomanError(
                    f"--pair: {run.name} was not trained to translate {pair}, expected "
                    f"{one_of(trained)}"
                )
        data = config.data
        data.columns = data.columns or [data.src, data.tgt]  # the files are as they were
        if trained[pair][1] != data.tgt:
            config.evaluation.tokenize = None  # as suits the other language
        data.src, data.tgt = trained[pair]
    return Translator(**vars(engine), runs=found, checkpoint=checkpoint, weights=weights)


def evaluate(
    translator: Translator,
    sources: Iterable[str],
    references: Iterable[str | Sequence[str]],
    **search: Any,
) -> Evaluation:
    """Score the translations of any lines, as ``dragoman evaluate`` scores a split.

    Args:
        translator: what ``load`` returned.
        sources: lines to translate.
        references: what each should have become, raw: a string, or a list where there are several.
        **search: as in ``Translator.translate``.

    Returns:
        Scores by metric: ``evaluate(...).bleu.score``, ``.bleu.signature``, ``.bleu.interval``.
    """
    src = [check_text(line, f"sources: line {n}") for n, line in enumerate(sources, start=1)]
    tgt = [_checked(each, f"references: line {n}") for n, each in enumerate(references, start=1)]
    return evaluate_lines(translator, src, tgt, searching(translator.config, search))


def _checked(reference: str | Sequence[str], where: str) -> Reference:
    if reference and isinstance(reference, list | tuple):
        return tuple(check_text(text, where) for text in reference)
    return check_text(reference, where)


class Run(RunFolder):
    """A trained run: its folder, how it went, and what it can do."""

    @property
    def best_score(self) -> float | None:
        """The best score on validation: BLEU, or the loss with its sign turned."""
        score: float | None = read_state(self.checkpoint("last"))["best_score"]
        return score

    @property
    def history(self) -> list[dict[str, Any]]:
        """What was logged, a flat dict for each step that was: ready for ``pandas.DataFrame``."""
        return [
            {
                f"{name}/{key}" if isinstance(entry, dict) else name: value
                for name, entry in line.items()
                for key, value in (entry.items() if isinstance(entry, dict) else [("", entry)])
            }
            for line in read_log(self.folder / "train.jsonl")
        ]

    def translator(self, **options: Any) -> Translator:
        """Load the run's model; ``options`` are those of ``load``."""
        return load(self, **options)

    def evaluate(self, split: str | None = None, **options: Any) -> Evaluation:
        """Score the run on a split; ``options`` are those of ``Translator.evaluate``."""
        return self.translator().evaluate(split, **options)


def _override(name: str, value: Any) -> str:
    """Return a keyword of ``train`` as the word of the command line that means the same."""
    if name == "experiment":
        return f"+experiment={value}"
    if value is None or isinstance(value, bool):
        return f"{name}={'null' if value is None else str(value).lower()}"
    if isinstance(value, (str, os.PathLike)):
        text = str(value).replace("\\", "\\\\").replace('"', '\\"')
        plain = "." not in name and (shipped_configs() / name).is_dir()  # a group is a bare name
        return f"{name}={value}" if plain else f'{name}="{text}"'
    if isinstance(value, (dict, list, tuple)):
        return f"{name}={json.dumps(value, ensure_ascii=False)}"
    return f"{name}={value}"


def train(*words: str, pairs: Mapping[str, Iterable[Any]] | None = None, **keys: Any) -> Run:
    """Train a run to its end, or go on with it; return it.

    The same call goes on from the last checkpoint, as the same command does.

    Args:
        *words: what one would type after ``dragoman train``: ``"+experiment=demo"``,
            ``"data=mine"``, ``"train.max_steps=2000"``.
        pairs: sentence pairs in memory by split; ``train`` and ``val`` are needed, others are
            welcome. Each is an iterable of (source, target) tuples, of dicts with the language
            codes as keys, of rows like ``{"translation": {"de": ..., "en": ...}}``, or a pandas
            frame with such columns. Validation and test pairs are kept in the run; training pairs
            are given again to resume.
        **keys: the same keys as keywords: ``seed=2``, ``experiment="demo"``, and with a dot
            ``**{"train.lr": 1e-3}``.

    Raises:
        DragomanError: for everything that can be put right.
        KeyboardInterrupt: after Ctrl-C, when the run is saved.
    """
    from dragoman.training.loop import Stopped
    from dragoman.training.loop import train as run_training

    for word in words:
        if word.startswith("-"):
            raise DragomanError(f"{word}: is an option of the command line; call train once a run")
    overrides = [*words, *(_override(name, value) for name, value in keys.items())]
    given: dict[str, list[tuple[str, str]]] = {}

    def count(data: DataConfig) -> int:
        if pairs is None:
            return count_pairs(data)
        given.update(memory.read(pairs, data.src, data.tgt))
        return len(given["train"])

    config, experiment = compose_config(shipped_configs(), overrides, count)
    if pairs is not None:
        given = given or memory.read(pairs, config.data.src, config.data.tgt)
        memory.configured(config.data, given)
        settings.validate(config)
        if config.run_name is None:  # other pairs, another run
            config.run_name = f"{run_name(config, experiment)}-{memory.digest(given)[:8]}"
    run = Run(run_of(config, experiment).folder)
    if given:
        config.data.root = str(run.folder / "pairs")
        memory.keep(run.folder / "pairs", config.data, given)
    try:
        with memory.holding(given):
            run_training(config, run)
    except Stopped as stop:
        raise KeyboardInterrupt(str(stop)) from None
    return run
