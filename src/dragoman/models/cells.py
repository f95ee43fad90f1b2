"""LSTM and GRU cells over a decoder's steps (Hochreiter and Schmidhuber 1997; Cho et al. 2014).

Shapes: B rows, T steps, I width of the input, D width of the state, G width of the gates.

``nn.LSTMCell`` and ``nn.GRUCell`` hold the weights. Where a decoder feeds its own output back there
is no way around one step after another, but there is around one gradient of the weights a step:
``Unrolled`` keeps what each step multiplied them with and makes one product of all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# (input (B, I), hidden (B, D), cell (B, D)) -> (hidden, cell); a GRU passes its cell through.
Step = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def one_step(module: nn.LSTMCell | nn.GRUCell) -> Step:
    """Return the cell as PyTorch has it."""
    if isinstance(module, nn.LSTMCell):
        return lambda x, hidden, cell: module(x, (hidden, cell))
    return lambda x, hidden, cell: (module(x, hidden), cell)


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


class _Deferred:
    """x W^T + b for one step after the other; W's gradient is one product over all steps."""

    def __init__(self, weight: Tensor, bias: Tensor, steps: int, rows: int) -> None:
        self.weight, self.inputs = weight.detach(), list[Tensor]()
        biases: Tensor = _Products.apply(weight, bias, self.inputs, steps, rows)  # type: ignore[no-untyped-call]
        self.biases = biases.unbind(0)

    def __call__(self, x: Tensor) -> Tensor:
        step = len(self.inputs)
        self.inputs.append(x.detach())
        return torch.addmm(self.biases[step], x, self.weight.t())


class Unrolled:
    """A cell over the steps of one batch. Call it once a step, ``steps`` times in all."""

    def __init__(self, module: nn.LSTMCell | nn.GRUCell, steps: int, rows: int) -> None:
        self.lstm = isinstance(module, nn.LSTMCell)
        self.of_input = _Deferred(module.weight_ih, module.bias_ih, steps, rows)
        self.of_hidden = _Deferred(module.weight_hh, module.bias_hh, steps, rows)

    def __call__(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Return the new hidden state and cell."""
        if self.lstm:
            gates = self.of_input(x) + self.of_hidden(hidden)
            write, keep, content, read = gates.chunk(4, -1)
            cell = keep.sigmoid() * cell + write.sigmoid() * content.tanh()
            return read.sigmoid() * cell.tanh(), cell
        of_input, of_hidden = self.of_input(x), self.of_hidden(hidden)
        d = hidden.shape[-1]
        reset, update = (of_input[:, : 2 * d] + of_hidden[:, : 2 * d]).sigmoid().chunk(2, -1)
        content = torch.tanh(of_input[:, 2 * d :] + reset * of_hidden[:, 2 * d :])
        return torch.lerp(content, hidden, update), cell
