# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Quantizes the linear layers of one block after the other, on what the blocks before put out."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.layer import QuantizedLayer
from hbvla_ros.packed.manifest import LayerEntry
from hbvla_ros.quantization.calibration import Picture
from hbvla_ros.quantization.capture import BlockInputs, Call
from hbvla_ros.quantization.hessian import HessianAccumulator, relative_error
from hbvla_ros.quantization.options import MethodOptions
from hbvla_ros.quantization.probe import TokenWeights
from hbvla_ros.quantization.probe_block import block_token_weights, sign_weight
from hbvla_ros.quantization.probe_options import in_tower, is_attention, probed_layers
from hbvla_ros.quantization.progress import Progress
from hbvla_ros.quantization.request import Plan
from hbvla_ros.quantization.resume import FinishedLayer, WorkFolder
from hbvla_ros.quantization.spectrum import saliency_spectrum
from hbvla_ros.quantization.stream import StreamedNetwork

Hessians = dict[str, HessianAccumulator]


class LayerQuantizer:
    """Quantizes single layers and keeps them in the work folder."""

    def __init__(
        self,
        plan: Plan,
        options: Mapping[str, MethodOptions],
        work: WorkFolder,
        progress: Progress,
    ) -> None:
        """Say what is wanted.

        Args:
            plan: the method and how to run it.
            options: options of each layer.
            work: takes the finished layers.
            progress: told of each of them.
        """
        self.plan, self.work = plan, work
        self._options, self._progress = options, progress

    def quantize(
        self,
        name: str,
        weight: Tensor,
        hessian: Tensor | None,
        rectified: Tensor | None = None,
        importance: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Quantize one layer, or take it as it is if it is finished already.

        Args:
            name: of the layer.
            weight: float32 (rows, columns).
            hessian: float32 (columns, columns) over plain tokens; None where only ``rectified``
                is needed or there is no calibration.
            rectified: the same over weighted tokens, None if tokens are not weighted.
            importance: token weights of single frames, to be kept for the report.

        Raises:
            HbvlaError: a weight or Hessian is not finite.
        """
        options = self._options[name]
        judge = hessian if rectified is None else rectified
        _check_finite(name, weight, judge)
        layer = self.run(weight, hessian, rectified, options)
        rebuilt = layer.reconstruct()
        error = None if judge is None else relative_error(weight, rebuilt, judge)
        plain = dataclasses.asdict(self.plan.options)
        entry = LayerEntry.of(
            layer,
            relative_error(weight, rebuilt),
            error,
            {k: v for k, v in dataclasses.asdict(options).items() if v != plain[k]},
        )
        saliency = None
        if judge is not None:
            columns = weight.square().sum(dim=0) * judge.diagonal()
            saliency = saliency_spectrum(columns.tolist())
        self.work.save_layer(name, layer, FinishedLayer(entry, saliency), importance)

    def run(
        self,
        weight: Tensor,
        hessian: Tensor | None,
        rectified: Tensor | None,
        options: MethodOptions,
    ) -> QuantizedLayer:
        """The method on one layer; arguments as for :meth:`quantize`."""
        method = self.plan.method
        if rectified is None:
            return method.quantize(weight, hessian, options)
        if method.two_hessians:
            return method.quantize(weight, hessian, options, saliency_hessian=rectified)
        return method.quantize(weight, rectified, options)

    def provisional(self, name: str, weight: Tensor, hessian: Tensor) -> Tensor:
        """The weight as the method would make it under the plain Hessian (A-3)."""
        _check_finite(name, weight, hessian)
        return self.run(weight, hessian, None, self._options[name]).reconstruct()

    def tell(self, name: str) -> None:
        """Tell the progress that a layer is finished."""
        self._progress.step(name, self.work.finished[name].entry)


class BlockQuantizer:
    """Visits the blocks of a forward pass and leaves them quantized."""

    def __init__(
        self,
        stream: StreamedNetwork,
        layers: LayerQuantizer,
        linears: Mapping[str, Sequence[str]],
        weights: TokenWeights | None,
        frames: Sequence[int],
        types: Sequence[Tensor] | None = None,
        pictures: Sequence[Picture] = (),
    ) -> None:
        """Say how.

        Args:
            stream: the network that is passed through.
            layers: quantizes the layers.
            linears: layers to quantize by block, or by module outside of the blocks.
            weights: token weights of the action probe; None for no such probe.
            frames: samples of each batch.
            types: token type of each position of the decoder's sequence, batch by batch.
            pictures: frames whose token weights are kept for the report.
        """
        self._stream, self._layers, self._linears = stream, layers, linears
        self._weights, self._frames, self._types = weights, frames, types
        self._pictures = pictures

    def __call__(self, block: str, inputs: BlockInputs) -> None:
        """Quantize what is not finished, then run the block in its quantized form.

        All Hessians of a block are taken before anything in it is quantized (spec 1.0).
        """
        names = self._linears.get(block, [])
        work = self._layers.work
        if any(name not in work.finished for name in names):
            self._quantize(block, names, inputs)
        else:
            for name in names:
                self._layers.tell(name)
        for name in names:
            self._stream.install(name, partial(work.layer, name, self._stream.device))

    def _quantize(self, block: str, names: Sequence[str], inputs: BlockInputs) -> None:
        plan, network = self._layers.plan, self._stream.network
        plain = _Lazy(lambda: inputs.hessians(network, block, names))
        weights = self._token_weights(block, names, inputs, plain)
        if not plan.method.two_hessians and set(weights) >= set(names):
            plain.forget()
        rectified = inputs.hessians(network, block, list(weights), weights) if weights else {}
        for name in names:
            if name not in self._layers.work.finished:
                needs_plain = name not in rectified or plan.method.two_hessians
                self._layers.quantize(
                    name,
                    self._stream.weight(name),
                    plain()[name].mean() if needs_plain else None,
                    rectified[name].mean() if name in rectified else None,
                    self._pictured(name, weights.get(name)),
                )
            self._layers.tell(name)

    def _pictured(self, name: str, calls: Sequence[Tensor] | None) -> dict[str, Tensor]:
        """Token weights of the pictured frames, mean over the denoising steps; decoder only."""
        if calls is None or not name.startswith('language_model.'):
            return {}
        repeats = len(calls) // len(self._frames)
        found = {}
        for number, picture in enumerate(self._pictures):
            first = picture.batch * repeats
            samples = self._frames[picture.batch]
            steps = [
                call.reshape(samples, -1)[picture.sample] for call in calls[first : first + repeats]
            ]
            found[str(number)] = torch.stack(steps).mean(dim=0)
        return found

    def _token_weights(
        self, block: str, names: Sequence[str], inputs: BlockInputs, plain: _Lazy
    ) -> TokenWeights:
        """Token weights of the layers that have any."""
        if self._weights is not None:
            return {name: self._weights[name] for name in names if name in self._weights}
        options = self._layers.plan.probe
        probed = probed_layers(names, options)
        if options.kind != 'block' or not probed or not _has_attention(names):
            return {}
        provisional = {}
        for name in probed:
            weight = self._stream.weight(name)
            if options.provisional == 'rtn':
                provisional[name] = sign_weight(weight)
            else:
                provisional[name] = self._layers.provisional(name, weight, plain()[name].mean())
        module = _in_float32(self._stream.network.get_submodule(block))
        repeats = len(inputs) // len(self._frames)
        types = None
        if self._types is not None and not in_tower(block):
            types = [one for one in self._types for _ in range(repeats)]
        return block_token_weights(
            module,
            _float32_calls(inputs),
            names,
            provisional,
            options,
            types,
            [count for count in self._frames for _ in range(repeats)],
        )


class _Lazy:
    """Hessians that are taken when they are first asked for."""

    def __init__(self, make: Callable[[], Hessians]) -> None:
        self._make = make
        self._made: Hessians | None = None

    def __call__(self) -> Hessians:
        if self._made is None:
            self._made = self._make()
        return self._made

    def forget(self) -> None:
        """Free their memory."""
        self._made = None


def _has_attention(names: Sequence[str]) -> bool:
    """Whether these are layers of a transformer block, which alone can be probed as a block."""
    return any(is_attention(name) for name in names)


def _in_float32(block: nn.Module) -> nn.Module:
    """The block, in float32: gradients of small differences do not survive 16 bits."""
    narrow = any(p.dtype != torch.float32 for p in block.parameters())
    return copy.deepcopy(block).float() if narrow else block


def _float32_calls(inputs: BlockInputs) -> Iterator[Call]:
    for args, kwargs in inputs:
        yield (
            tuple(
                one.float() if isinstance(one, Tensor) and one.is_floating_point() else one
                for one in args
            ),
            kwargs,
        )


def _check_finite(name: str, weight: Tensor, hessian: Tensor | None) -> None:
    if not bool(torch.isfinite(weight).all()):
        raise HbvlaError(f'{name}.weight: holds NaN or infinity; the checkpoint is damaged')
    if hessian is not None and not bool(torch.isfinite(hessian).all()):
        raise HbvlaError(f'{name}: its calibration inputs are not finite; the weights overflow')
