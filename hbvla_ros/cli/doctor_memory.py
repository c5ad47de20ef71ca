# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""``hbvla doctor --checkpoint``: does the policy fit into the memory that is free?

Weights are counted, to the byte, from what the folder says and the residency keeps. Activations are
an estimate: the widest moment of one inference with a prompt of 64 tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbvla_ros.cli.doctor_rows import Row, available_memory
from hbvla_ros.cli.doctor_torch import probe_torch
from hbvla_ros.cli.info import readable

if TYPE_CHECKING:
    from hbvla_ros.packed.manifest import LayerEntry
    from hbvla_ros.vla.config import NetworkConfig
    from hbvla_ros.vla.network import OpenVLANetwork
    from hbvla_ros.vla.platform import Platform

_WHY = 'a policy that does not fit is not loaded, or is killed when it first computes'
_PROMPT_TOKENS = 64
# What a process with torch and ROS has taken before it holds any weight, bytes.
_PROCESS = {'cpu': 450e6, 'cuda': 600e6}
_ITEM_BYTES = {'cpu': 4, 'cuda': 2}
FULL_PRECISION = 'full precision'


@dataclass(frozen=True)
class Need:
    """Bytes that a policy needs on one kind of device.

    Attributes:
        residency: how packed layers sit in memory, or :data:`FULL_PRECISION`.
        weights: parameters and buffers.
        activations: estimate of what one inference needs on top.
        process: what the process has taken before.
        host: main memory that loading needs where the device is a GPU, else 0.
    """

    residency: str
    weights: int
    activations: int
    process: int
    host: int = 0

    @property
    def total(self) -> int:
        """All of it on the device, bytes."""
        return self.weights + self.activations + self.process


def needs(folder: Path, platform: str | None, device: str) -> list[Need]:
    """What the policy of a folder needs, one entry a residency, the default one first.

    Args:
        folder: full-precision or deployed folder.
        platform: platform name or file where the folder has none.
        device: ``cpu`` (float32) or ``cuda`` (bfloat16).

    Raises:
        HbvlaError: no such folder, or something is wrong with it.
    """
    from hbvla_ros.packed.linear import RESIDENCIES
    from hbvla_ros.packed.manifest import MANIFEST_NAME
    from hbvla_ros.vla.consistency import build_empty
    from hbvla_ros.vla.platform import resolve_platform

    constants = resolve_platform(folder, platform)
    item, process = _ITEM_BYTES[device], int(_PROCESS[device])
    if not (folder / MANIFEST_NAME).is_file():
        from hbvla_ros.vla.checkpoint import Checkpoint

        config = Checkpoint.open(folder, constants).config
        weights = _weights(build_empty(config, constants), {}, '', item)
        activations = activation_bytes(config, constants, item)
        return [Need(FULL_PRECISION, weights, activations, process)]
    config, layers = _deployed(folder)
    network = build_empty(config, constants)
    result = []
    for residency in sorted(RESIDENCIES, key=lambda name: name != 'bf16'):
        weights = _weights(network, layers, residency, item)
        activations = activation_bytes(config, constants, item)
        if residency == 'packed':
            activations += _expansion(layers, item)
        # A deployed network is put together in main memory first, whatever its device.
        host = 0 if device == 'cpu' else weights + int(_PROCESS['cpu'])
        result.append(Need(residency, weights, activations, process, host))
    return result


def _deployed(folder: Path) -> tuple[NetworkConfig, Mapping[str, LayerEntry]]:
    """Network configuration and quantized layers of a deployed folder, digests not compared."""
    from hbvla_ros.packed.reader import PackedFolder
    from hbvla_ros.vla.config import NetworkConfig, read_config
    from hbvla_ros.vla.consistency import head_kind, uses_film

    packed = PackedFolder.open(folder, verify=False)
    shapes = packed.shapes()
    config = NetworkConfig.from_json(
        read_config(folder),
        head=head_kind(shapes),
        film=uses_film(shapes),
        shapes=shapes,
        source=str(folder / 'config.json'),
    )
    return config, packed.manifest.layers


def _weights(
    network: OpenVLANetwork, layers: Mapping[str, LayerEntry], residency: str, item: int
) -> int:
    """Bytes of all parameters; packed layers count as they are stored."""
    total = 0
    for name, parameter in network.named_parameters():
        layer = layers.get(name.removesuffix('.weight')) if residency == 'packed' else None
        total += layer.bytes if layer is not None else parameter.numel() * item
    return total


def _expansion(layers: Mapping[str, LayerEntry], item: int) -> int:
    """What the reference expands while it multiplies: the largest layer's signs, once as bytes."""
    return max(layer.rows * layer.columns for layer in layers.values()) * (item + 1)


def activation_bytes(config: NetworkConfig, platform: Platform, item: int) -> int:
    """Estimate of the memory of one inference besides the weights, bytes.

    The widest moment is inside a block: the residual stream with queries, keys and values, or the
    stream with what the gate and the up projection made. Towers and language model do not run at
    the same time, so the larger counts, with the image tokens that both leave behind.

    Args:
        config: the network.
        platform: its cameras, chunk and slots.
        item: bytes of one number.
    """
    cameras, language = len(platform.cameras), config.language
    image_tokens = cameras * config.patches
    towers = 0
    for tower in (config.featurizer, config.fused_featurizer):
        tokens = cameras * (tower.patches + tower.prefix_tokens)
        towers = max(towers, tokens * (3 * tower.embed_dim + 2 * tower.mlp_dim))
        towers = max(towers, tokens * 6 * tower.embed_dim)
    sequence = image_tokens + _PROMPT_TOKENS + platform.action_slots + 3
    width = max(3 * language.hidden_size + 3 * language.intermediate_size, 8 * language.hidden_size)
    left_behind = image_tokens * (config.vision_dim + language.hidden_size)
    pixels = cameras * 6 * config.image_size[0] * config.image_size[1]
    return item * (max(towers, sequence * width) + left_behind + pixels)


def memory_row(folder: Path, platform: str | None) -> Row:
    """Compare the need of a checkpoint with the GPU that has most free memory, or main memory.

    Raises:
        HbvlaError: no such folder, or something is wrong with it.
    """
    found, error = probe_torch()
    name = 'checkpoint'
    if not found:
        return Row(name, 'fault', f'{folder}: not looked at, torch fails: {error}', _WHY,
                   'pip install torch')  # fmt: skip
    return compare(folder.name, lambda device: needs(folder, platform, device), found['gpus'])


def compare(name: str, needs_on: Any, gpus: list[dict[str, Any]]) -> Row:
    """The finding on a checkpoint.

    Args:
        name: of the checkpoint.
        needs_on: gives the needs on ``cpu`` or ``cuda``.
        gpus: as :func:`hbvla_ros.cli.doctor_torch.probe_torch` finds them.
    """
    memory = available_memory()
    if gpus:
        gpu = max(gpus, key=lambda each: int(each['free']))
        wanted, free = needs_on('cuda'), int(gpu['free'])
        place = f'{gpu["name"]} has {readable(free)} of {readable(gpu["total"])} free'
        fits = [need.total <= free and need.host <= memory for need in wanted]
    else:
        wanted, free = needs_on('cpu'), memory
        place = f'no GPU; {readable(free)} of main memory available'
        fits = [need.total <= free for need in wanted]
    parts = [
        f'{need.residency} {readable(need.total)} (weights {readable(need.weights)}, activations '
        f'about {readable(need.activations)}, process {readable(need.process)})'
        for need in wanted
    ]
    state, fix = 'ok', 'none'
    if not any(fits):
        state, fix = 'fault', _remedy(wanted, gpus, free)
    elif not fits[0]:
        fitting = [need.residency for need, fit in zip(wanted, fits, strict=True) if fit]
        state, fix = 'warning', f'run it with residency:={fitting[0]}'
    return Row('checkpoint', state, f'{name} needs {"; ".join(parts)}; {place}', _WHY, fix)


def _remedy(wanted: list[Need], gpus: list[dict[str, Any]], free: int) -> str:
    least = min(wanted, key=lambda need: need.total)
    if least.total <= free:
        return (
            f'free {readable(least.host)} of main memory: the network is put together there first'
        )
    if least.residency == FULL_PRECISION:
        return 'quantize it: hbvla quantize; or use a machine with more memory'
    where = 'of GPU memory (nvidia-smi lists who holds it)' if gpus else 'of main memory'
    return f'free {readable(least.total - free)} {where}, or quantize to fewer bits'
