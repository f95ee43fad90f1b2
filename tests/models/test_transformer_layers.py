"""Our Transformer layers and stacks against PyTorch's, with copied weights, in float64."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tiny
from dragoman.config import TransformerConfig
from dragoman.models.attention import Grid, MultiHeadAttention, causal_mask
from dragoman.models.positions import POSITIONS
from dragoman.models.seq2seq import build_model
from dragoman.models.transformer import ACTIVATIONS, NORMS, FeedForward, Layer, Stack

B, T, S, D, HEADS, D_FF = 2, 4, 5, 12, 3, 20

# Our parameter -> theirs, both kinds of layer.
NAMES = {
    "self_attention.qkv.weight": "self_attn.in_proj_weight",
    "self_attention.qkv.bias": "self_attn.in_proj_bias",
    "self_attention.out.weight": "self_attn.out_proj.weight",
    "self_attention.out.bias": "self_attn.out_proj.bias",
    "cross_attention.qkv.weight": "multihead_attn.in_proj_weight",
    "cross_attention.qkv.bias": "multihead_attn.in_proj_bias",
    "cross_attention.out.weight": "multihead_attn.out_proj.weight",
    "cross_attention.out.bias": "multihead_attn.out_proj.bias",
    "feed_forward.inner.weight": "linear1.weight",
    "feed_forward.inner.bias": "linear1.bias",
    "feed_forward.outer.weight": "linear2.weight",
    "feed_forward.outer.bias": "linear2.bias",
}
NORM_NAMES = {
    False: {"self_residual": "norm1", "feed_residual": "norm2"},
    True: {"self_residual": "norm1", "cross_residual": "norm2", "feed_residual": "norm3"},
}


def layers(
    cross: bool, norm: str, activation: str, number: int = 1
) -> tuple[list[Layer], list[nn.Module], list[tuple[nn.Parameter, nn.Parameter]]]:
    """Return layers of ours and theirs with the same weights, and the pairs of parameters."""
    config = tiny.transformer(
        d_model=D, num_heads=HEADS, d_ff=D_FF, norm=norm, activation=activation
    )
    kind = nn.TransformerDecoderLayer if cross else nn.TransformerEncoderLayer
    own, theirs, pairs = [], [], []
    for _ in range(number):
        mine = Layer(config, cross, "here").double()
        other = kind(
            D, HEADS, D_FF, 0.0, activation, batch_first=True, norm_first=norm == "pre"
        ).double()
        names = dict(NAMES)
        for ours, norm_name in NORM_NAMES[cross].items():
            names |= {f"{ours}.norm.{p}": f"{norm_name}.{p}" for p in ("weight", "bias")}
        their_parameters = dict(other.named_parameters())
        for name, parameter in mine.named_parameters():
            with torch.no_grad():
                parameter.add_(0.3 * torch.randn_like(parameter))
                their_parameters[names[name]].copy_(parameter)
            pairs.append((parameter, their_parameters.pop(names[name])))
        assert not their_parameters, "every one of their parameters was copied"
        own.append(mine)
        theirs.append(other)
    return own, theirs, pairs


def assert_same(
    mine: Tensor,
    theirs: Tensor,
    pairs: list[tuple[nn.Parameter, nn.Parameter]],
    inputs: tuple[Tensor, ...],
) -> None:
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-11)
    probe = torch.randn_like(mine)
    own = torch.autograd.grad((mine * probe).sum(), (*inputs, *(p for p, _ in pairs)))
    other = torch.autograd.grad((theirs * probe).sum(), (*inputs, *(p for _, p in pairs)))
    for one, two in zip(own, other, strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)


def double(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


REAL = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]).bool()
NONE = POSITIONS["none"](D, HEADS, 9, False)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_encoder_layer_is_torchs(norm: str, activation: str) -> None:
    (own,), (theirs,), pairs = layers(False, norm, activation)
    x = double(B, S, D)
    mine, _ = own(x, REAL[:, None, None, :], NONE, None, None, Grid())
    other = theirs(x, src_key_padding_mask=~REAL)
    assert_same(mine[REAL], other[REAL], pairs, (x,))


@pytest.mark.parametrize("weighing", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_decoder_layer_is_torchs(norm: str, activation: str, weighing: bool) -> None:
    (own,), (theirs,), pairs = layers(True, norm, activation)
    x, memory = double(B, T, D), double(B, S, D)
    causal = causal_mask(T, x.device)
    weights: dict[str, Tensor] | None = {} if weighing else None
    grid = Grid(weights)
    prepared = own.cross_attention.prepare(memory, grid)
    mine, _ = own(x, causal, NONE, None, (prepared, REAL[:, None, None, :]), grid)
    other = theirs(x, memory, tgt_mask=~causal, memory_key_padding_mask=~REAL)
    assert_same(mine, other, pairs, (x, memory))
    if weights is not None:
        assert {name: tuple(w.shape) for name, w in weights.items()} == {
            "here.self": (B, HEADS, T, T),
            "here.cross": (B, HEADS, T, S),
        }


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_encoder_stack_is_torchs(norm: str) -> None:
    own, theirs, pairs = layers(False, norm, "relu", 2)
    config = tiny.transformer(d_model=D, num_heads=HEADS, d_ff=D_FF, norm=norm, positions="none")
    stack = Stack(config, 2, decoder=False).double()
    stack.layers = nn.ModuleList(own)
    last = nn.LayerNorm(D).double() if norm == "pre" else None
    stack.norm.load_state_dict({} if last is None else last.state_dict())
    reference = nn.TransformerEncoder(theirs[0], 2, norm=last, enable_nested_tensor=False)
    reference.layers = nn.ModuleList(theirs)
    x = double(B, S, D)
    mine, _ = stack(x / D**0.5, REAL[:, None, None, :], None, None, Grid())
    assert_same(mine[REAL], reference(x, src_key_padding_mask=~REAL)[REAL], pairs, (x,))


def test_swiglu_is_its_formula() -> None:
    layer = FeedForward(D, D_FF, "swiglu", 0.0).double()
    x = double(B, T, D)
    gate_weight, hidden_weight = layer.inner.weight.split(D_FF)
    gate = x @ gate_weight.t()
    expected = F.linear(gate * torch.sigmoid(gate) * (x @ hidden_weight.t()), layer.outer.weight)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)


def test_each_dropout_acts_where_its_key_says() -> None:
    config = tiny.transformer(dropout=0.5, attention_dropout=0.0, embedding_dropout=0.25)
    layer = Layer(config, cross=True)
    assert layer.self_attention.dropout == layer.cross_attention.dropout == 0.0
    assert layer.self_residual.dropout == layer.feed_forward.dropout == 0.5
    assert Stack(config, 1, decoder=True).dropout == 0.25
    assert Layer(tiny.transformer(activation_dropout=0.3), cross=False).feed_forward.dropout == 0.3


@pytest.mark.parametrize("score", ["scaled_dot", "general"])
def test_attention_dropout_acts_while_training_only(score: str) -> None:
    attention = MultiHeadAttention(score, D, HEADS, dropout=0.5).double()
    x = double(B, T, D)
    once, twice = (attention.train()(x, None, NONE, None, Grid())[0] for _ in range(2))
    assert not torch.allclose(once, twice)
    once, twice = (attention.eval()(x, None, NONE, None, Grid())[0] for _ in range(2))
    assert torch.equal(once, twice)


def test_a_swapped_norm_order_would_be_noticed() -> None:
    (pre,), _, _ = layers(False, "pre", "relu")
    (post,), _, _ = layers(False, "post", "relu")
    post.load_state_dict(pre.state_dict())
    x = double(B, S, D)
    before, after = (layer(x, None, NONE, None, None, Grid())[0] for layer in (pre, post))
    assert not torch.allclose(before, after, atol=1e-3)


def test_attention_gain_scales_the_first_queries_keys_and_values_alone() -> None:
    plain, gentle = (
        build_model(
            tiny.transformer(attention_gain=gain), tiny.VOCAB, tiny.VOCAB, seed=1
        ).state_dict()
        for gain in (1.0, 0.25)
    )
    scaled = {name for name in plain if not torch.equal(plain[name], gentle[name])}
    assert scaled == {name for name in plain if name.endswith("qkv.weight")}
    for name in scaled:
        assert torch.allclose(gentle[name], 0.25 * plain[name])


@pytest.mark.parametrize(("key", "table"), [("activation", ACTIVATIONS), ("norm", NORMS)])
def test_a_config_may_name_what_is_in_the_tables(key: str, table: dict[str, object]) -> None:
    (item,) = (item for item in dataclasses.fields(TransformerConfig) if item.name == key)
    assert set(item.metadata["choices"]) == set(table)
