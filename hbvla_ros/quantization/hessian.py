# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Hessians of the layer output error: streaming sums, damping, Cholesky factors."""

from __future__ import annotations

import torch
from torch import Tensor


class HessianAccumulator:
    """Streaming float32 sum of ``s_t x_t x_t^T`` over the tokens of one linear layer.

    Attributes:
        tokens: number of tokens seen.
    """

    def __init__(self, columns: int, device: torch.device | None = None) -> None:
        """Start from zero.

        Args:
            columns: number of inputs of the layer.
            device: where the tokens are; None for torch's default.
        """
        self._total = torch.zeros(columns, columns, device=device)
        self.tokens = 0

    def add(self, inputs: Tensor, token_weights: Tensor | None = None) -> None:
        """Add tokens.

        Args:
            inputs: (..., columns), any float dtype.
            token_weights: one non-negative weight a token in the order of ``inputs``, or None
                for ones.
        """
        flat = inputs.detach().reshape(-1, inputs.shape[-1]).float()
        weighted = flat if token_weights is None else flat * token_weights.reshape(-1, 1)
        self._total.addmm_(weighted.T, flat)
        self.tokens += len(flat)

    def mean(self) -> Tensor:
        """float32 (columns, columns): the mean over the tokens, symmetric to the bit."""
        mean = self._total / max(self.tokens, 1)
        return (mean + mean.T) / 2


def damped(hessian: Tensor, damping: float) -> Tensor:
    """Make a Hessian positive definite (spec 1.8).

    Dead inputs (zero on the diagonal) get a one there; then ``damping`` times the mean of the
    diagonal is added to it.

    Args:
        hessian: (m, m), symmetric, positive semi-definite.
        damping: share of the mean diagonal.

    Returns:
        (m, m), a copy.
    """
    result = hessian.clone()
    diagonal = result.diagonal()
    alive = diagonal > 0
    mean = diagonal[alive].mean() if bool(alive.any()) else result.new_ones(())
    diagonal[~alive] = mean
    diagonal += damping * mean
    return result


def feedback_factor(hessian: Tensor) -> Tensor:
    """Upper Cholesky factor U with ``U^T U = H^-1``, computed in float64, returned in float32.

    Args:
        hessian: (m, m), positive definite.
    """
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian.double()))
    return torch.linalg.cholesky(inverse, upper=True).float()


def error_factor(hessian: Tensor) -> Tensor:
    """Upper R with ``R R^T = H``, computed in float64, returned in float32.

    It is the inverse of :func:`feedback_factor`'s and takes a quarter of its work: the error
    ``tr(E H E^T)`` is ``||E R||^2``, in which column j depends on no later column of E.

    Args:
        hessian: (..., m, m), positive definite.
    """
    return torch.linalg.cholesky(hessian.double().flip(-2, -1)).flip(-2, -1).float()


def relative_error(weight: Tensor, quantized: Tensor, hessian: Tensor | None = None) -> float:
    """``tr(E H E^T) / tr(W H W^T)`` with E = W - Q; plain Frobenius without a Hessian."""
    error = weight - quantized
    if hessian is None:
        numerator, denominator = error.square().sum(), weight.square().sum()
    else:
        numerator = ((error @ hessian) * error).sum()
        denominator = ((weight @ hessian) * weight).sum()
    return float(numerator / denominator) if float(denominator) > 0 else 0.0
