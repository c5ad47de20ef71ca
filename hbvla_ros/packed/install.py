# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Put the content of a deployed folder into a network."""

from __future__ import annotations

import torch
from torch import nn

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.layer import QuantizedLayer
from hbvla_ros.packed.linear import PackedLinear, check_residency
from hbvla_ros.packed.reader import PackedFolder


def replace_linear(
    network: nn.Module, name: str, layer: QuantizedLayer, residency: str, dtype: torch.dtype
) -> PackedLinear:
    """Replace one ``nn.Linear`` by its quantized form; its bias stays.

    Args:
        network: changed in place.
        name: module name of the linear layer.
        layer: its quantized weight.
        residency: 'packed' or 'bf16'.
        dtype: dtype of the dequantized weight and of the bias.

    Raises:
        HbvlaError: the network has no such linear layer, or of another shape.
    """
    parent_name, _, child = name.rpartition('.')
    try:
        linear = network.get_submodule(name)
    except AttributeError as error:
        raise HbvlaError(f'{name}: the network has no such layer') from error
    if not isinstance(linear, nn.Linear):
        raise HbvlaError(f'{name}: is no linear layer of the network')
    if (linear.out_features, linear.in_features) != (layer.rows, layer.columns):
        raise HbvlaError(
            f'{name}: the network has {linear.out_features} x {linear.in_features}, the deployed '
            f'checkpoint {layer.rows} x {layer.columns}'
        )
    packed = PackedLinear(layer, linear.bias, residency, dtype)
    packed.train(linear.training)
    setattr(network.get_submodule(parent_name), child, packed)
    return packed


def install_folder(
    network: nn.Module,
    folder: PackedFolder,
    residency: str = 'bf16',
    dtype: torch.dtype = torch.float32,
) -> None:
    """Fill a network, which may be on the meta device, from a deployed folder.

    Every quantized linear layer becomes a PackedLinear, every other tensor is read and cast.

    Args:
        network: changed in place.
        folder: opened deployed folder.
        residency: 'packed' or 'bf16' (dequantized to ``dtype``).
        dtype: dtype of all floating point tensors.

    Raises:
        HbvlaError: the folder and the network do not match; the tensor is named.
    """
    check_residency(residency)
    for name, layer in folder.layers.items():
        replace_linear(network, name, layer, residency, dtype)
    tensors = {}
    for name in folder.names():
        tensor = folder.tensor(name)
        tensors[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    result = network.load_state_dict(tensors, strict=False, assign=True)
    packed = tuple(f'{name}.' for name in folder.layers)
    missing = [name for name in result.missing_keys if not name.startswith(packed)]
    missing += [f'{n}.bias' for n in folder.layers if f'{n}.bias' in set(result.missing_keys)]
    if missing:
        raise HbvlaError(f'{folder.folder}: no tensor {missing[0]}; quantize the checkpoint again')
    if result.unexpected_keys:
        raise HbvlaError(
            f'{folder.folder}: tensor {result.unexpected_keys[0]} has no place in the network'
        )
