"""LSTM and GRU step by step (Hochreiter and Schmidhuber 1997; Cho et al. 2014), faster to train.

Shapes: B rows, S or T steps, I width of the input, D width of the state, G width of the gates.

PyTorch's own modules hold the weights. There is no way around one step after another, but there is
around one gradient of the weights a step: what each step multiplied them with is kept, and one
product is made of all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dragoman.models.fast.dropout import drop
from dragoman.models.fast.linear import product, suits_onednn

# (input (B, I), hidden (B, D), cell (B, D)) -> (hidden, cell); a GRU passes its cell through.
Step = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class _Products(torch.autograd.Function):
    """The biases of all steps, (T, B, G); backwards, the one place where weights get gradients."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, bias: Tensor, inputs: list[Tensor], steps: int, rows: int
    ) -> Tensor:
        ctx.inputs = inputs
        return bias.expand(steps, rows, -1).contiguous()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        flat = grad.flatten(0, 1)
        inputs = torch.cat(ctx.inputs).to(flat.dtype)
        return flat.t() @ inputs, flat.sum(0), None, None, None


class _Multiplied(torch.autograd.Function):
    """x W^T + b for few rows; the gradient of b is left to each row's own copy, that of W out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, biases: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.weight = weight
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        d_x = product(grad, ctx.weight.t()) if ctx.needs_input_grad[0] else None
        return d_x, grad, None, None


class _Deferred:
    """x W^T + b for one step after the other; W's gradient is one product over all steps."""

    def __init__(self, weight: Tensor, bias: Tensor, steps: int, rows: int) -> None:
        self.weight, self.bias = weight.detach(), bias.detach()
        self.inputs = list[Tensor]()
        biases: Tensor = _Products.apply(weight, bias, self.inputs, steps, rows)  # type: ignore[no-untyped-call]
        self.biases = biases.unbind(0)

    def __call__(self, x: Tensor) -> Tensor:
        step = len(self.inputs)
        self.inputs.append(x.detach())
        if suits_onednn(x):
            out: Tensor = _Multiplied.apply(x, self.biases[step], self.weight, self.bias)  # type: ignore[no-untyped-call]
            return out
        return torch.addmm(self.biases[step], x, self.weight.t())


def _lstm(x: Tensor, h: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Gates from input and from state, (B, 4 D) each -> new hidden state and cell."""
    write, keep, content, read = (x + h).chunk(4, -1)
    cell = keep.sigmoid() * cell + write.sigmoid() * content.tanh()
    return read.sigmoid() * cell.tanh(), cell


def _gru(x: Tensor, h: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Gates from input and from state, (B, 3 D) each -> new hidden state; the cell as it was."""
    (reset_x, update_x, content_x), (reset_h, update_h, content_h) = x.chunk(3, -1), h.chunk(3, -1)
    content = torch.tanh(content_x + (reset_x + reset_h).sigmoid() * content_h)
    update = (update_x + update_h).sigmoid()
    return torch.lerp(content.to(hidden.dtype), hidden, update.to(hidden.dtype)), cell


class Unrolled:
    """A cell over the steps of one batch. Call it once a step, ``steps`` times in all."""

    def __init__(self, module: nn.LSTMCell | nn.GRUCell, steps: int, rows: int) -> None:
        self.gates = _lstm if isinstance(module, nn.LSTMCell) else _gru
        self.of_input = _Deferred(module.weight_ih, module.bias_ih, steps, rows)
        self.of_hidden = _Deferred(module.weight_hh, module.bias_hh, steps, rows)

    def __call__(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Return the new hidden state and cell."""
        return self.gates(self.of_input(x), self.of_hidden(hidden), hidden, cell)


def _sweep(
    rnn: nn.LSTM | nn.GRU, suffix: str, x_BSI: Tensor, mask_BS: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one layer and direction of an encoder, as over packed sequences.

    Args:
        rnn: where the weights are.
        suffix: of their names, ``l0``, ``l0_reverse`` and so on.
        x_BSI: inputs.
        mask_BS: True at real positions, which come first.

    Returns:
        States (B, S, D), zero at padding, and the last real hidden state and cell (B, D).
    """
    w_ih, w_hh, b_ih, b_hh = (
        getattr(rnn, f"{kind}_{suffix}")
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    rows, steps = mask_BS.shape
    gates = _lstm if isinstance(rnn, nn.LSTM) else _gru
    of_input = F.linear(x_BSI, w_ih, b_ih).unbind(1)
    of_hidden = _Deferred(w_hh, b_hh, steps, rows)
    hidden = cell = x_BSI.new_zeros(rows, rnn.hidden_size)
    real, whole = mask_BS.to(x_BSI.dtype)[:, :, None].unbind(1), mask_BS.all(0).tolist()
    states: list[Tensor] = [hidden] * steps
    for t in reversed(range(steps)) if suffix.endswith("reverse") else range(steps):
        after, cell_after = gates(of_input[t], of_hidden(hidden), hidden, cell)
        if whole[t]:
            states[t], hidden, cell = after, after, cell_after
        else:  # at padding a row keeps its state
            states[t] = after * real[t]
            hidden = torch.lerp(hidden, after, real[t])
            cell = torch.lerp(cell, cell_after, real[t])
    return torch.stack(states, 1), hidden, cell


def sweep(rnn: nn.LSTM | nn.GRU, x_BSI: Tensor, mask_BS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run an encoder, as over packed sequences, with gradients that cost less.

    Returns states (B, S, E), and the last hidden states and cells (layers, B, E), those of a GRU of
    width 0.
    """
    hidden, cell = [], []
    directions = ("", "_reverse") if rnn.bidirectional else ("",)
    for layer in range(rnn.num_layers):
        if layer:
            x_BSI = drop(x_BSI, rnn.dropout, rnn.training)
        swept = [_sweep(rnn, f"l{layer}{direction}", x_BSI, mask_BS) for direction in directions]
        x_BSI, last, last_cell = (torch.cat(parts, -1) for parts in zip(*swept, strict=True))
        hidden.append(last)
        cell.append(last_cell)
    last_LBE = torch.stack(hidden)
    return x_BSI, last_LBE, torch.stack(cell) if isinstance(rnn, nn.LSTM) else last_LBE[..., :0]
