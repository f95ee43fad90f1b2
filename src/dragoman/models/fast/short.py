"""Scaled dot-product attention over short rows on a CPU, with its gradient by hand.

Shapes: B batch, H heads, T queries, S keys, A width of a head.

The fused kernels are made for long rows. At the length of sentences the time goes into passes over
small tensors, so what can share a pass does: the scale is part of both products, the mask is a sum,
and the backward pass goes from the weights' gradient to the scores' in two passes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dragoman.models.fast.dropout import draw, keep, keep_mask

# Keys up to which matrix products beat the fused kernel on a CPU.
SHORT = 64


def hiding(mask: Tensor, scores: Tensor) -> Tensor:
    """Return what to add to scores so that softmax gives nothing where ``mask`` is False.

    Masks are small and broadcast: hiding by a sum spares a slow fill of all scores.
    """
    hide = torch.zeros(mask.shape, dtype=scores.dtype, device=scores.device)
    return hide.masked_fill_(~mask, torch.finfo(scores.dtype).min)


class _Short(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, dropout: float
    ) -> Tensor:
        shape = (*query.shape[:3], keys.shape[2])
        q, k, v = (x.flatten(0, 1) for x in (query, keys, values))
        scale = q.shape[-1] ** -0.5
        scores = torch.baddbmm(q.new_empty(()), q, k.transpose(1, 2), beta=0, alpha=scale)
        scores = scores.view(shape)
        if mask is not None:
            scores += hiding(mask, scores)
        weights = scores.softmax(-1)
        if mask is not None and not bool((seen := mask.any(-1, keepdim=True)).all()):
            weights *= seen  # a query that may see nothing gets zeros
        draws = draw(weights) if dropout else None
        ctx.save_for_backward(q, k, v, weights, draws)
        ctx.scale, ctx.dropout, ctx.shape = scale, dropout, shape
        dropped = weights
        if draws is not None:
            dropped = keep(weights, *keep_mask(draws, dropout, weights.dtype))
        context = torch.bmm(dropped.flatten(0, 1), v)
        return context.view(*query.shape[:3], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights, draws = ctx.saved_tensors
        heads = ctx.shape[:2]
        grad = grad.flatten(0, 1)
        d_weights = torch.bmm(grad, v.transpose(1, 2)).view(ctx.shape)
        dropped = weights
        if draws is not None:  # made again: that costs less than the memory to keep it
            drawn = keep_mask(draws, ctx.dropout, weights.dtype)
            dropped, d_weights = keep(weights, *drawn), keep(d_weights, *drawn)
        d_scores = torch.ops.aten._softmax_backward_data(d_weights, weights, -1, weights.dtype)
        d_scores = d_scores.flatten(0, 1)
        nothing, scaled = q.new_empty(()), {"beta": 0, "alpha": ctx.scale}
        # Behind one another: packing then takes them back to rows without joining them first.
        places = q.new_empty(q.numel() + k.numel() + v.numel())
        d_query, d_keys, d_values = (
            place.view(x.shape)
            for place, x in zip(
                places.split([q.numel(), k.numel(), v.numel()]), (q, k, v), strict=True
            )
        )
        torch.baddbmm(nothing, d_scores, k, **scaled, out=d_query)
        torch.baddbmm(nothing, d_scores.transpose(1, 2), q, **scaled, out=d_keys)
        torch.bmm(dropped.flatten(0, 1).transpose(1, 2), grad, out=d_values)
        return (
            d_query.unflatten(0, heads),
            d_keys.unflatten(0, heads),
            d_values.unflatten(0, heads),
            None,
            None,
        )


def short_attention(
    query_BHTA: Tensor,
    keys_BHSA: Tensor,
    values_BHSA: Tensor,
    mask: Tensor | None,
    dropout: float = 0.0,
) -> Tensor:
    """Return the context (B, H, T, A): Vaswani et al. 2017, equation 1.

    ``mask`` is bool, True where a query may see a key, and broadcasts to (B, H, T, S).
    """
    out: Tensor = _Short.apply(query_BHTA, keys_BHSA, values_BHSA, mask, dropout)  # type: ignore[no-untyped-call]
    return out


def scaled_dot_attention(
    query_BHTA: Tensor,
    keys_BHSA: Tensor,
    values_BHSA: Tensor,
    mask: Tensor | None,
    dropout: float = 0.0,
) -> Tensor | None:
    """Return the context (B, H, T, A) from the quickest kernel, or None where none is quicker."""
    if query_BHTA.device.type != "cpu" or keys_BHSA.shape[2] > SHORT:
        return F.scaled_dot_product_attention(query_BHTA, keys_BHSA, values_BHSA, mask, dropout)
    if torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu"):
        return short_attention(query_BHTA, keys_BHSA, values_BHSA, mask, dropout)
    return None
