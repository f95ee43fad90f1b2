"""A run in progress: what a step is, and how it is validated, saved and resumed.

Order of a step: forward, loss over the whole step's target tokens, backward, sum over ranks, clip,
refuse a non-finite norm, update. Every random draw is seeded by (seed, step, micro-batch), so a run
that was killed goes on as if nothing had happened, and ranks draw what one process would.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NoReturn, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import record_function

from dragoman import settings
from dragoman.config import Config, CorpusConfig
from dragoman.data.batching import Batch, BatchOrder, BatchStream, Bucket
from dragoman.data.corpora import check_texts, corpus_fingerprint, use_kept
from dragoman.data.draws import seed_of
from dragoman.data.preparation import (
    build_training_set,
    prepare_texts,
    train_or_load_tokenizers,
)
from dragoman.data.resident import MOST_TOKENS, ResidentRows
from dragoman.data.sources import where_text_is
from dragoman.data.tokenizers import load_tokenizers
from dragoman.decoding.sentences import usual_count
from dragoman.decoding.translator import choose_device, load_translator, same_tokens
from dragoman.errors import DragomanError, memory_needed, visible
from dragoman.evaluation.metrics import check_tokens
from dragoman.models.seq2seq import Seq2Seq, build_model
from dragoman.models.weights import Tensors, load_weights, weights_of
from dragoman.reporting.trackers import Trackers
from dragoman.runs import Run, check_resume, find_run, read_state, verify
from dragoman.training.checkpoint import TrainState, restore, save_checkpoint
from dragoman.training.distributed import Ranks, local_device
from dragoman.training.loss import loss_and_gradient
from dragoman.training.optimisation import OPTIMIZERS, MovingAverage, average, clip_gradients
from dragoman.training.risk import candidates, risk_backward, sampling
from dragoman.training.schedules import learning_rate, teacher_forcing_ratio
from dragoman.training.selection import averaged_steps, judge, needed_steps, note
from dragoman.training.validation import Figures, Validator, weights_in


class Trainer:
    """A run in progress: its model, data, optimiser and state."""

    def __init__(self, config: Config, run: Run, ranks: Ranks) -> None:
        self.config, self.run, self.ranks = config, run, ranks
        if config.threads:
            torch.set_num_threads(config.threads)
        self.device = local_device(choose_device(config.device))
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            tf32 = config.train.precision == "tf32"
            torch.set_float32_matmul_precision("high" if tf32 else "highest")
            torch.backends.cudnn.allow_tf32 = tf32
        use_kept(config.data, run.folder)
        check_texts(config.data)
        if not ranks.main:
            ranks.wait()  # rank 0 fills the caches; the others read them
        self.texts = prepare_texts(config.data)
        if run.has_checkpoint():  # learnt anew by other versions, they might not be the same
            folder = run.checkpoint("last")
            verify(folder)
            check_resume(settings.load(folder / "config.yaml"), config, run)
            self.tokenizers = load_tokenizers(folder, config.data.tokenizer)
        else:
            self.tokenizers = train_or_load_tokenizers(config.data, self.texts)
        self._fix_tokens()
        self.training_set = build_training_set(
            config.data, self.texts, *self.tokenizers, config.seed
        )
        if ranks.main:
            ranks.wait()
        train = config.train
        self.order = BatchOrder(
            self.training_set, train.batch_type, train.batch_size, train.sort_by_length, config.seed
        )
        on_device = self.device.type == "cuda" and self.training_set.num_tokens <= MOST_TOKENS
        self.rows = ResidentRows(self.training_set, self.device) if on_device else self.order
        sizes = (len(self.tokenizers[0]), len(self.tokenizers[1]))
        self.module = build_model(config.model, *sizes, seed=seed_of(config.seed, "weights"))
        self.module.to(self.device)
        self.model = cast(Seq2Seq, self.module)
        self.model.fast = train.fast
        self.origin: str | None = None  # of the first weights, in words
        if train.init_from and not run.has_checkpoint():
            self.origin = self._begin_with(find_run(train.init_from))
        # Lengths differ from batch to batch: one kernel for all of them, not one for each.
        compiled = torch.compile(self.module, dynamic=True) if train.compile else self.module
        self.forward = cast(Seq2Seq, compiled)
        self.optimizer = OPTIMIZERS[train.optimizer](self.module, train)
        self.moving = MovingAverage(self.module, train.ema_decay) if train.ema_decay else None
        data = {name: corpus_fingerprint(config.data, c) for name, c in self._corpora().items()}
        self.state = TrainState(data=data, world=ranks.world, scored=self.usual)
        if not run.has_checkpoint():
            lines = [line for prepared in self.texts for line in prepared.text.some(0, 2000)]
            self.state.sentences = usual_count(lines, config.data.src)
        if run.has_checkpoint():
            self._resume()
        self._note_hardware()
        self.stream = BatchStream(self.order, self.state.epoch, self.state.consumed)
        self.validator = Validator(config, self.module, self.tokenizers, self.device)
        self.trackers = Trackers(run.folder, self.state.step, config, ranks.main)

    def _corpora(self) -> dict[str, CorpusConfig]:
        """Return what is trained on, and what is validated, each with its name."""
        data = self.config.data
        validation = CorpusConfig(data.name, data.src, data.tgt, split=data.validation_split)
        return {f"{c.source}.{c.split}.{c.src}-{c.tgt}": c for c in [*data.corpora, validation]}

    def _fix_tokens(self) -> None:
        """Have the run scored with the same tokens from its begin to its end."""
        evaluation, run = self.config.evaluation, self.run
        if run.has_checkpoint():
            kept = settings.load(run.checkpoint("last") / "config.yaml").evaluation.tokenize
            if evaluation.tokenize not in (None, kept):
                raise DragomanError(
                    f"evaluation.tokenize: {run.folder} is scored with {kept} tokens, not "
                    f"{evaluation.tokenize}; restore it or choose another run_name"
                )
            evaluation.tokenize = kept
        evaluation.tokenize = check_tokens(settings.tokens_of(self.config))

    def _note_hardware(self) -> None:
        """Remember on what the run is trained from here on."""
        kept: list[Any] = self.state.threads
        now: Any = torch.get_num_threads()
        if self.device.type == "cuda":
            kept, now = self.state.gpus, torch.cuda.get_device_name(self.device)
        kept += [now] if kept[-1:] != [now] else []

    def _begin_with(self, other: Run) -> str:
        """Take over the weights of another run, those that validation scored; say which."""
        theirs = load_translator([other], device="cpu")
        if not all(map(same_tokens, self.tokenizers, (theirs.src_tokenizer, theirs.tgt_tokenizer))):
            raise DragomanError(
                f"train.init_from: {other.folder} has another vocabulary; "
                f"data.tokenizer.from_run={other.folder} takes over that one"
            )
        mine, dropouts = self.config.model, [n for n in asdict(self.config.model) if "dropout" in n]
        if wrong := settings.differences(theirs.config.model, mine, dropouts):
            raise DragomanError(
                f"train.init_from: {other.folder} has another model: {', '.join(wrong)}"
            )
        load_weights(self.module, weights_of(cast(nn.Module, theirs.models[0])), other.folder)
        checkpoint, data = other.checkpoint(), theirs.config.data
        scored = read_state(checkpoint).get("scored")
        return f"{other.folder} ({data.src}->{data.tgt}, {checkpoint.name}, weights {scored})"

    def _resume(self) -> None:
        fresh = self.state
        self.state = restore(self.run.checkpoint("last"), self.module, self.optimizer, self.moving)
        if self.state.world != fresh.world:
            raise DragomanError(
                f"{self.run.folder}: this run was trained by {self.state.world} ranks, now there "
                f"are {fresh.world}, which is another batch size; use as many or another run_name"
            )
        for name, corpus in self._corpora().items():
            # Older states say nothing of the validation split: it is what it is today.
            if self.state.data.setdefault(name, fresh.data[name]) != fresh.data[name]:
                data, what = self.config.data, name
                if corpus.source == "files":
                    what = where_text_is(data, corpus.split)
                raise DragomanError(
                    f"{self.run.folder}: {what} has changed since this run began; restore it or "
                    "choose another run_name"
                )

    def step(self, buckets: list[Bucket]) -> dict[str, Tensor]:
        """Do one update with the batches of the whole step, this rank's share of them."""
        train, number = self.config.train, self.state.step + 1
        total = sum(bucket.tgt_tokens for bucket in buckets)
        tokens = total / (1 - train.risk) if train.risk < 1 else math.inf  # the loss is divided by
        sums = torch.zeros(4, device=self.device)  # loss, its cross-entropy, right words, risk
        if not self.module.training:  # to look takes less time than to tell every layer again
            self.module.train()
        for index in range(self.ranks.rank, len(buckets), self.ranks.world):
            with record_function("input"):
                batch = self.fetch(buckets[index])
                forcing = self.draw(batch, number, index)
            with record_function("forward"), self.autocast():
                states = self.forward(batch, forcing)
            with record_function("loss"), self.autocast():
                loss, gradient = loss_and_gradient(
                    self.model, states, batch.targets_N, train.label_smoothing, tokens, train.r_drop
                )
            with record_function("backward"):
                states.backward(gradient)
            sums[:3] += torch.stack([loss.smoothed, loss.nll, loss.correct.float()])
            if train.risk:
                with record_function("risk"):
                    risk = self.risk(buckets, index) * total
                sums[3] += risk
                sums[0] += train.risk * (risk - loss.smoothed)
        with record_function("update"):
            norm = self.update(number, buckets, sums)
        self.state.step = number
        self.state.target_tokens += total
        return {"sums": sums / total, "norm": norm}

    def risk(self, buckets: list[Bucket], index: int) -> Tensor:
        """Add the gradient of a micro-batch's risk; return its part of the mean of the step."""
        train, sentences = self.config.train, sum(len(bucket.pairs) for bucket in buckets)
        batch = self.rows.fetch(buckets[index]).to(self.device)
        seed = seed_of(self.config.seed, "samples", self.state.step + 1, index)
        decode = sampling(self.config.decode, train, seed)
        self.module.eval()
        tokens = settings.tokens_of(self.config)
        drawn = candidates(self.model, batch, self.tokenizers[1], decode, tokens)
        self.module.train()
        with self.autocast():
            risk = risk_backward(
                self.model, self.forward, *drawn, train.risk_sharpness, sentences / train.risk
            )
        return risk / sentences

    def fetch(self, bucket: Bucket) -> Batch:
        """Return a batch on the device; with R-Drop its sentences come twice."""
        batch = self.rows.fetch(bucket).to(self.device)
        return batch.twice() if self.config.train.r_drop else batch

    def update(self, number: int, buckets: list[Bucket], sums: Tensor) -> Tensor:
        """Sum gradients and figures over ranks, clip, and move the weights; return the norm."""
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        self.ranks.sum([*gradients, sums])
        norm = clip_gradients(self.module, self.config.train.clip_norm)
        if not torch.isfinite(norm):
            self.refuse(buckets, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config.train, number, self.state.plateau)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.moving:
            self.moving.update(number)
        return norm

    def autocast(self) -> torch.autocast:
        """Return the context of forward passes."""
        bf16 = self.config.train.precision == "bf16"
        # PyTorch 2.6 would keep copies of weights that a pass without gradients made, and the pass
        # with gradients would then reach no weight. Each is used once a pass: little is lost.
        return torch.autocast(self.device.type, torch.bfloat16, bf16, cache_enabled=False)

    def draw(self, batch: Batch, step: int, index: int) -> Tensor | None:
        """Seed dropout and toss the teacher-forcing coins of one micro-batch, (B, T) or None."""
        torch.manual_seed(seed_of(self.config.seed, "dropout", step, index))
        ratio = teacher_forcing_ratio(self.config.train, step)
        if ratio >= 1:
            return None
        coins = torch.Generator().manual_seed(seed_of(self.config.seed, "coins", step, index))
        rows, length = batch.tgt_in_BT.shape
        passes = 2 if self.config.train.r_drop else 1  # they differ in dropout alone
        whole = self.config.train.teacher_forcing_draw == "batch"
        forced = torch.rand(1 if whole else rows // passes, length, generator=coins) < ratio
        forced = forced.to(self.device)
        return forced.expand(rows, length) if whole else forced.repeat(passes, 1)

    def refuse(self, buckets: list[Bucket], norm: Tensor) -> NoReturn:
        """Stop at a gradient that is not a number; show the pairs it came from."""
        self.optimizer.zero_grad(set_to_none=True)
        entries, shown = buckets[0].pairs[:3], []
        for rows, tokenizer in zip(
            self.training_set.rows(entries, buckets[0].epoch), self.tokenizers, strict=True
        ):
            ids = np.split(rows.flat, np.cumsum(rows.lengths)[:-1])
            texts = [visible(tokenizer.decode(row.tolist())) for row in ids]
            shown.append([f"{text[:60]}..." if len(text) > 60 else text for text in texts])
        pairs = "; ".join(f"'{src}' - '{tgt}'" for src, tgt in zip(*shown, strict=True))
        raise self.diverged(
            f"the gradient norm of step {self.state.step + 1} is {float(norm)}; its batch begins "
            f"with the pairs {pairs}"
        )

    def diverged(self, what: str) -> DragomanError:
        """Return the end of a run whose numbers are none: ``last`` is a step that was sound.

        Nothing is saved. If the weights that gave no number were saved a step ago and not
        validated, ``last`` goes back to the checkpoint before them.
        """
        folder, step, kept = self.run.folder, self.state.step, ""
        if sound := [s for s in self.run.steps() if s < step or str(s) in self.state.scores]:
            kept = f"; train.init_from={folder}/step-{sound[-1]} begins it with sound weights"
            if self.ranks.main:
                self.run.point("last", sound[-1])
        return DragomanError(
            f"{folder}: {what}; begin another run (under another run_name, if you give one) with a "
            f"lower train.lr, a longer train.warmup_steps or a train.clip_norm{kept}"
        )

    def dry_run(self) -> None:
        """Run the largest batch forward and back, so that too little memory shows at once."""
        largest = self.order.largest()
        batch = self.fetch(largest)
        advice = (
            f"train.batch_size: the largest batch ({tuple(batch.src_BS.shape)} source, "
            f"{tuple(batch.tgt_in_BT.shape)} target tokens) does not fit into memory; lower it "
            "and raise train.accumulate"
        )
        torch.manual_seed(0)
        with memory_needed(lambda: advice):
            with self.autocast():
                states = self.forward(batch)
                _, gradient = loss_and_gradient(
                    self.model, states, batch.targets_N, 0.0, 1.0, self.config.train.r_drop
                )
            states.backward(gradient)
            if self.config.train.risk:
                self.risk([largest], 0)
        self.optimizer.zero_grad(set_to_none=True)

    def save(self, average_weights: Tensors | None = None) -> None:
        """Write a checkpoint, on rank 0; never one of weights that are not numbers.

        Trackers have written their part before: none is ahead of the other.
        """
        if not all(bool(torch.isfinite(p).all()) for p in self.module.parameters()):
            raise self.diverged(f"the weights of step {self.state.step} are not finite numbers")
        if not self.ranks.main:
            return
        extra = {"ema": self.moving.tensors} if self.moving else {}
        if average_weights:
            extra["average"] = average_weights
        save_checkpoint(
            self.run, self.config, self.state, self.module, self.optimizer, self.tokenizers, extra
        )
        needed = needed_steps(self.state, self.run.steps(), self.config.train)
        self.run.prune(self.config.train.keep, needed)

    def validate(self) -> Figures:
        """Score the validation split on rank 0, tell the others, and remember the best."""
        figures = Figures(0.0, 0.0, 0.0, 0.0, 0.0)
        if self.ranks.main:
            with weights_in(self.module, self.moving.tensors if self.moving else None):
                figures, texts = self.validator.score()
                self.validator.show(self.trackers, self.state.step, texts)
        figures = Figures(*self.ranks.from_main(list(figures), self.device))
        if not math.isfinite(figures.loss):
            raise self.diverged(
                f"the loss on the validation split is {figures.loss} after step {self.state.step}"
            )
        self.state.scored = self.usual
        note(self.state, figures, self.config.train)
        self.report("validation", figures._asdict(), seconds=self.state.seconds)
        return figures

    @property
    def usual(self) -> str:
        """Which weights are validated during training."""
        return "ema" if self.moving else "raw"

    def finish(self) -> str | None:
        """Average checkpoints, if asked for, keep the average if it is better, and end.

        Returns what became of the average, in words.
        """
        train, weights, said = self.config.train, None, None
        if not self.ranks.main:
            return said
        if train.average_last or train.average_best:
            self.save()
        if steps := averaged_steps(self.state, self.run.steps(), train):
            name = f"{'ema' if self.moving else 'model'}.safetensors"  # those that were scored
            weights = average([self.run.folder / f"step-{step}" / name for step in steps])
            with weights_in(self.module, weights):
                figures, _ = self.validator.score()
            better = judge(self.state, figures, train)
            if better:
                self.state.scored = "average"
            self.report("validation_average", figures._asdict())
            said = (
                f"average of steps {', '.join(map(str, steps))}: loss {figures.loss:.3f}  BLEU "
                f"{figures.bleu:.2f}, {'kept' if better else 'not better than the best, left out'}"
            )
        elif train.average_last or train.average_best:
            said = "no average: not one checkpoint was due (train.checkpoint_every)"
        self.state.finished = True  # not before the average: killed in between, it is made again
        keys = settings.fixed_keys(self.config).items()
        shown = ("seed", "model.", "train.", "data.tokenizer.")
        self.trackers.tell(
            "hparams",
            {name: value for name, value in keys if name.startswith(shown)},
            {f"best_{train.metric}": abs(self.state.best_score or 0.0)},
        )
        self.save(weights)
        return said

    def report(self, kind: str, figures: Mapping[str, float], **clock: float) -> None:
        """Tell the trackers figures of this step."""
        values = {f"{kind}/{name}": value for name, value in figures.items()}
        self.trackers.tell("scalars", self.state.step, {**values, **clock})
