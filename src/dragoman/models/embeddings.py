"""Token embeddings and the output layer, tied or not (Press and Wolf 2017)."""

from __future__ import annotations

from torch import Tensor, nn

from dragoman.models.fast import drop


class Embedding(nn.Embedding):
    """Vectors of tokens, of which ``word_dropout`` are left out while training.

    Gal and Ghahramani 2016, section 4.2, but drawn for each token of a sentence, not each type.
    Tags and the marks of beginning and end are tokens like any other.
    """

    word_dropout = 0.0

    def forward(self, tokens: Tensor) -> Tensor:
        """Map token ids (...) to (..., D)."""
        vectors = super().forward(tokens)
        if self.training and self.word_dropout:
            vectors = vectors * drop(vectors.new_ones(*tokens.shape, 1), self.word_dropout)
        return vectors


def build_embeddings(
    tie: str, d_embed: int, d_out: int, src_vocab: int, tgt_vocab: int, word_dropout: float = 0.0
) -> tuple[Embedding, Embedding, nn.Linear]:
    """Return source embedding, target embedding and output layer.

    ``two_way`` shares the target embedding with the output layer, ``three_way`` the source
    embedding too; the output bias is never shared. Embeddings start at N(0, 1 / d_embed), so that
    tied logits start at about unit variance.
    """
    tgt = Embedding(tgt_vocab, d_embed)
    nn.init.normal_(tgt.weight, std=d_embed**-0.5)
    if tie == "three_way":
        assert src_vocab == tgt_vocab, "three-way tying needs one joint vocabulary"
        src = tgt
    else:
        src = Embedding(src_vocab, d_embed)
        nn.init.normal_(src.weight, std=d_embed**-0.5)
    src.word_dropout = tgt.word_dropout = word_dropout
    output = nn.Linear(d_out, tgt_vocab)
    if tie != "none":
        assert d_out == d_embed, "a tied output layer is as wide as the embeddings"
        output.weight = tgt.weight
    else:
        nn.init.xavier_uniform_(output.weight)
    nn.init.zeros_(output.bias)
    return src, tgt, output
