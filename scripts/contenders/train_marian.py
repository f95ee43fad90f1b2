"""Hugging Face transformers: MarianMTModel from scratch under Seq2SeqTrainer.

Marian has no pre-norm, and the vector that it adds to its logits is a buffer that is not trained.
With ``--keep`` it trains 5 epochs and leaves the weights that decoding is compared with.
"""

# ruff: noqa: E402
from __future__ import annotations

from typing import Any

from window import Window, arguments, read

args = arguments("keep")  # before torch is imported: sets the threads

import torch
import transformers
from tokenizers import Tokenizer, models
from transformers import (
    DataCollatorForSeq2Seq,
    MarianConfig,
    MarianMTModel,
    PreTrainedTokenizerFast,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

EOS, UNK, PAD = range(3)
KEPT_UPDATES = 1135  # 5 epochs
SPECIALS = ["</s>", "<unk>", "<pad>"]
window = Window(args.seconds, tool="transformers Marian", version=transformers.__version__)


class WatchedTrainer(Seq2SeqTrainer):
    """The trainer, with every batch counted on its way in."""

    def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        """Count the labels that are not padding, then train as usual."""
        window.batch(int((inputs["labels"] != -100).sum()))
        return super().training_step(model, inputs, *rest, **named)


sources, src_vocab = read(args.data, "de", SPECIALS)
targets, tgt_vocab = read(args.data, "en", SPECIALS)
config = MarianConfig(
    vocab_size=len(src_vocab),
    decoder_vocab_size=len(tgt_vocab),
    share_encoder_decoder_embeddings=False,
    tie_word_embeddings=False,
    scale_embedding=True,
    max_position_embeddings=512,
    d_model=256,
    encoder_layers=3,
    decoder_layers=3,
    encoder_attention_heads=8,
    decoder_attention_heads=8,
    encoder_ffn_dim=512,
    decoder_ffn_dim=512,
    activation_function="relu",
    dropout=0.1,
    attention_dropout=0.1,
    activation_dropout=0.1,
    eos_token_id=EOS,
    forced_eos_token_id=EOS,
    pad_token_id=PAD,
    decoder_start_token_id=PAD,
)
options = Seq2SeqTrainingArguments(
    output_dir=str(args.work),
    use_cpu=True,
    max_steps=KEPT_UPDATES if args.keep else 1_000_000,
    per_device_train_batch_size=128,
    train_sampling_strategy="group_by_length",
    learning_rate=5e-4,
    lr_scheduler_type="constant_with_warmup",
    warmup_steps=200,
    label_smoothing_factor=0.1,
    max_grad_norm=1.0,
    dataloader_pin_memory=False,
    logging_strategy="no",
    save_strategy="no",
    report_to="none",
    disable_tqdm=True,
    seed=1,
)
torch.manual_seed(1)
model = MarianMTModel(config)
# The collator wants a tokenizer, of which it uses the padding alone.
words = Tokenizer(models.WordLevel(src_vocab, unk_token="<unk>"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>")
trainer = WatchedTrainer(
    model=model,
    args=options,
    data_collator=DataCollatorForSeq2Seq(tokenizer, model),
    train_dataset=[
        {"input_ids": [*src, EOS], "labels": [*tgt, EOS]}
        for src, tgt in zip(sources, targets, strict=True)
    ],
)
if not args.keep:
    window.watch(torch.optim.AdamW)
try:
    trainer.train()
    trainer.save_model(str(args.data / "marian"))
except Window.Done:
    window.report(model.num_parameters(only_trainable=True))
