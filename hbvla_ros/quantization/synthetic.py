# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Synthetic linear layers with the statistics of real ones (spec section 6).

White Gaussian weights with white inputs hide what a quantizer has to cope with, so methods are
compared on layers with structured weights and inputs: a mixture of visual, text and action tokens,
each with a mean and a rotated power-law spectrum of its own, channels of unequal size, a few
outlier channels, and rare sink tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hbvla_ros.errors import HbvlaError
from hbvla_ros.quantization.hessian import relative_error

TOKENS = 6144
# Share of the tokens and standard deviation of the mean: visual, text, action.
_TOKEN_TYPES = ((0.88, 0.5), (0.07, 0.5), (0.05, 0.8))
_SINK_SHARE, _SINK_GAIN, _SINK_BOOST = 0.004, 3.0, 10.0
_ROW_SPREAD, _COLUMN_SPREAD, _WEIGHT_STD = 0.35, 0.3, 0.02


@dataclass(frozen=True)
class SyntheticLayer:
    """A linear layer with the second moments of its inputs in two separate draws.

    Attributes:
        kind: one of ``KINDS``.
        weight: float32 (rows, columns).
        calibration: float32 (columns, columns), mean of x x^T over the calibration tokens.
        test: the same over as many held-out tokens.
    """

    kind: str
    weight: Tensor
    calibration: Tensor
    test: Tensor

    def to(self, device: str) -> SyntheticLayer:
        """The same layer on another device; what is drawn is always drawn on the CPU."""
        moved = [t.to(device) for t in (self.weight, self.calibration, self.test)]
        return SyntheticLayer(self.kind, *moved)


def output_error(layer: SyntheticLayer, reconstruction: Tensor) -> float:
    """``tr(E C E^T) / tr(W C W^T)`` with E = W - reconstruction and C of the held-out tokens."""
    return relative_error(layer.weight, reconstruction, layer.test)


def make_layer(
    kind: str, rows: int, columns: int, seed: int, tokens: int = TOKENS
) -> SyntheticLayer:
    """A synthetic layer; same arguments, same numbers.

    Args:
        kind: one of ``KINDS``.
        rows: outputs.
        columns: inputs.
        seed: seed of weights and tokens.
        tokens: tokens of each of the two draws.

    Raises:
        HbvlaError: unknown kind, or a layer without weights or tokens.
    """
    if kind not in _RECIPES:
        raise HbvlaError(f'synthetic layer {kind!r} is unknown; use one of {", ".join(KINDS)}')
    if min(rows, columns) < 1 or tokens < 100:
        raise HbvlaError(
            f'synthetic layer of {rows} x {columns} with {tokens} tokens: it needs at least one '
            'row, one column and 100 tokens'
        )
    recipe = _RECIPES[kind]
    generator = torch.Generator().manual_seed(seed)
    source = _Tokens(columns, recipe, generator)
    weight = recipe.weight(rows, columns, generator)
    if recipe.structured:
        weight *= (_ROW_SPREAD * _normal(generator, rows, 1)).exp()
        weight *= (_COLUMN_SPREAD * _normal(generator, 1, columns)).exp() / source.gains.sqrt()
    weight *= _WEIGHT_STD / weight.square().mean().sqrt()
    return SyntheticLayer(kind, weight, source.second_moment(tokens), source.second_moment(tokens))


@dataclass(frozen=True)
class _Recipe:
    """How one kind of layer is made.

    Attributes:
        weight: (rows, columns, generator) -> the weight before rows and columns are scaled.
        power: the spectrum of the tokens falls as i^-power.
        channel_spread: standard deviation of the logarithm of the channel gains.
        outlier: further gain of the outlier channels.
        gated: inputs are multiplied by sign(N) |N|^1.5, as behind a gated MLP.
        structured: False for white inputs and unscaled weights.
    """

    weight: Callable[[int, int, torch.Generator], Tensor]
    power: float = 0.0
    channel_spread: float = 0.0
    outlier: float = 1.0
    gated: bool = False
    structured: bool = True


class _Tokens:
    """Source of the inputs of one layer."""

    def __init__(self, columns: int, recipe: _Recipe, generator: torch.Generator) -> None:
        """Draw means, rotations and channel gains."""
        self.columns, self.recipe, self.generator = columns, recipe, generator
        self.gains = torch.ones(columns)
        if not recipe.structured:
            return
        spectrum = torch.arange(1, columns + 1, dtype=torch.float32).pow(-recipe.power)
        self.roots = (spectrum / spectrum.mean()).sqrt()
        self.means = [std * _normal(generator, columns) for _, std in _TOKEN_TYPES]
        self.rotations = [_orthonormal(columns, columns, generator) for _ in _TOKEN_TYPES]
        self.gains = (recipe.channel_spread * _normal(generator, columns)).exp()
        self.outliers = torch.randperm(columns, generator=generator)[: max(2, columns // 256)]
        self.gains[self.outliers] *= recipe.outlier

    def second_moment(self, count: int) -> Tensor:
        """(columns, columns) mean of x x^T over ``count`` fresh tokens."""
        tokens = self._structured(count) if self.recipe.structured else self._white(count)
        return tokens.T @ tokens / len(tokens)

    def _white(self, count: int) -> Tensor:
        return _normal(self.generator, count, self.columns)

    def _structured(self, count: int) -> Tensor:
        """(about count, columns): tokens of all types, visual ones first."""
        parts = []
        for (share, _), mean, rotation in zip(
            _TOKEN_TYPES, self.means, self.rotations, strict=True
        ):
            number = max(1, int(share * count))
            part = (_normal(self.generator, number, self.columns) * self.roots) @ rotation.T
            parts.append(part + mean)
        sinks = torch.rand(len(parts[0]), generator=self.generator) < _SINK_SHARE
        tokens = torch.cat(parts)
        visual = tokens[: len(sinks)]  # a view
        visual[sinks] *= _SINK_GAIN
        tokens *= self.gains
        visual[sinks.nonzero(), self.outliers] += _SINK_BOOST * self.gains[self.outliers]
        if self.recipe.gated:
            gate = _normal(self.generator, *tokens.shape)
            tokens *= gate.sign() * gate.abs().pow(1.5)
        return tokens


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator)


def _orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """(rows, columns) with orthonormal columns; rows >= columns."""
    return torch.linalg.qr(_normal(generator, rows, columns))[0]


def _student_t(rows: int, columns: int, degrees: int, generator: torch.Generator) -> Tensor:
    """Student-t noise of unit variance."""
    chi = _normal(generator, degrees, rows, columns).square_().mean(dim=0)
    noise = _normal(generator, rows, columns) / chi.sqrt()
    return noise / noise.square().mean().sqrt()


def _gaussian(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return _normal(generator, rows, columns)


def _query_key(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """A power-law spectrum of singular values and heavy-tailed noise."""
    rank = min(rows, columns)
    values = torch.arange(1, rank + 1, dtype=torch.float32).pow(-0.45)
    left, right = (_orthonormal(size, rank, generator) for size in (rows, columns))
    spectral = (left * values) @ right.T
    spectral /= spectral.square().mean().sqrt()
    return 0.8 * spectral + 0.6 * _student_t(rows, columns, 8, generator)


def _value_output(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Gaussian with a little heavy-tailed noise."""
    return _normal(generator, rows, columns) + 0.3 * _student_t(rows, columns, 8, generator)


def _clustered(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Columns near one of a few shared ones."""
    shared = _normal(generator, rows, max(1, columns // 8))
    chosen = torch.randint(shared.shape[1], (columns,), generator=generator)
    return 0.85 * shared[:, chosen] + 0.53 * _student_t(rows, columns, 8, generator)


_RECIPES = {
    'gauss_white': _Recipe(_gaussian, structured=False),
    'attn_qk': _Recipe(_query_key, 1.0, 0.5, 12.0),
    'attn_vo': _Recipe(_value_output, 0.7, 0.4, 6.0),
    'mlp_up': _Recipe(lambda rows, columns, g: _student_t(rows, columns, 7, g), 0.9, 0.6, 12.0),
    'mlp_down': _Recipe(
        lambda rows, columns, g: _student_t(rows, columns, 8, g), 0.4, 0.6, 6.0, gated=True
    ),
    'colclust': _Recipe(_clustered, 0.8, 0.4, 6.0),
}
KINDS = tuple(_RECIPES)
STRUCTURED_KINDS = tuple(kind for kind, recipe in _RECIPES.items() if recipe.structured)
