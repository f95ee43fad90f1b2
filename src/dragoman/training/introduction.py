"""What is about to be trained, in words."""

from __future__ import annotations

from collections import Counter

from dragoman import settings
from dragoman.data.lines import alternatives
from dragoman.data.tokenizers import UNK
from dragoman.data.tokenizers.spacy import SpacyTokenizer
from dragoman.models.seq2seq import count_parameters
from dragoman.reporting.progress import Progress
from dragoman.runs import leaking
from dragoman.training.schedules import learning_rate
from dragoman.training.trainer import Trainer


def introduce(trainer: Trainer, progress: Progress) -> None:
    """Say what is about to be trained, on the terminal and in TensorBoard."""
    config, run, counts = trainer.config, trainer.run, trainer.training_set.counts
    parameters = count_parameters(trainer.module)
    where = f"from step {trainer.state.step}" if trainer.state.step else "from the start"
    src, tgt = trainer.tokenizers
    sizes = f"vocabularies {len(src):,} and {len(tgt):,}"
    if src is tgt:
        sizes = f"one vocabulary of {len(src):,}"
    progress.message(f"run {run.folder} {where} on {trainer.device}")
    left_out = Counter({"empty": counts["empty"]})
    for prepared in trainer.texts:
        left_out.update(prepared.counts.left_out)
    left_out["too long"] = counts["too_long"]
    said = [f"{n:,} {what}" for what, n in left_out.items() if n or what in ("empty", "too long")]
    read = sum(prepared.counts.read for prepared in trainer.texts)
    progress.message(
        f"{config.data.src}->{config.data.tgt}: {counts['kept']:,} of {read:,} training pairs "
        f"({', '.join(said)} left out); {sizes}; {config.model.name} with {parameters:,} parameters"
    )
    for split in dict.fromkeys(split for each in trainer.texts for split in each.counts.leaks):
        if shared := run.leaks(split):
            progress.message(leaking(split, shared))
    for number, tokenizer in enumerate(trainer.tokenizers):
        lines = [line for each in trainer.texts for line in each.text.some(number, 2000)]
        ids = [token for line in lines for token in tokenizer.encode(line)]
        if share := ids.count(UNK) / max(1, len(ids)):
            where = f"of the {('source', 'target')[number]} tokens are unknown to the vocabulary"
            progress.message(f"{'warning: ' * (share > 0.01)}{100 * share:.2f} % {where}")
    if trainer.origin:
        progress.message(f"begins with the weights of {trainer.origin}")
    options, plateau = config.train, trainer.state.plateau
    longer = options.max_steps > options.schedule_steps
    if longer and not learning_rate(options, options.max_steps, plateau):
        progress.message(
            f"after step {options.schedule_steps} the learning rate is 0 and nothing more is "
            f"learnt; another run would, with train.schedule_steps={options.max_steps} or "
            f"train.min_lr above 0 (train.init_from={run.folder} begins it with this one's weights)"
        )
    target = trainer.tokenizers[1]
    if isinstance(target, SpacyTokenizer):
        # Word tokenizers in plain form lose some spaces: BLEU cannot be better than this allows.
        told = trainer.validator.references
        kept = target.restored_fraction(text for each in told for text in alternatives(each))
        progress.message(
            f"spaCy words, {config.data.tokenizer.form} form: {100 * kept:.1f} % of the validation "
            "references come back unchanged from their tokens"
        )
    if trainer.state.step == 0:
        text = f"```yaml\n{settings.as_yaml(config)}\n```"
        trainer.trackers.tell("text", 0, "config", text)
