# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Takes the time of a quantization's stages and layers, and extrapolates to the whole network."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from hbvla_ros.packed.manifest import LayerEntry
from hbvla_ros.quantization.random_checkpoint import DECODER_LAYERS, TOWER_BLOCKS

# Chain of blocks: how tables call it, and how many blocks of it run in the whole network.
_CHAINS = {
    'vision_backbone.featurizer.blocks': ('DINOv2', TOWER_BLOCKS[0]),
    'vision_backbone.fused_featurizer.blocks': ('SigLIP', TOWER_BLOCKS[1]),
    'language_model.model.layers': ('decoder', DECODER_LAYERS),
}
_QUANTIZING, _WRITING = 'quantizing', 'last block and writing'
ASSUMPTIONS = (
    'seconds of a block times the number of its kind, all other stages in proportion to the '
    'quantized weights; memory is that of one block and stays, but for the activations that a '
    'probe keeps of every block, unless these are so many that they wait on disk'
)

# Told the stage, how many of its steps are done, and how many there are.
Tell = Callable[[str, int, int], None]


class Clock:
    """Takes the time of the pipeline's stages and layers.

    The time of a layer begins when the one before is finished: the first layer of a block carries
    the pass through the block before and all Hessians of its own block.

    Attributes:
        stages: title to seconds, in their order.
        layers: layer name to seconds.
    """

    def __init__(self, tell: Tell, now: Callable[[], float] = time.perf_counter) -> None:
        """Start.

        Args:
            tell: told what happens.
            now: gives the time in seconds.
        """
        self.stages: dict[str, float] = {}
        self.layers: dict[str, float] = {}
        self._tell, self._now = tell, now
        self._title, self._steps, self._done = 'checking the request', 0, 0
        self._last = now()

    def stage(self, title: str, steps: int) -> None:
        """A stage begins, the one before is over."""
        self._lap()
        self._title, self._steps, self._done = title, steps, 0
        self._tell(title, 0, steps)

    def step(self, name: str = '', entry: LayerEntry | None = None) -> None:
        """A step is over; in the stage of quantizing a layer."""
        seconds = self._lap()
        self._done += 1
        if self._title == _QUANTIZING:
            self.layers[name] = seconds
            if self._done == self._steps:
                self._title = _WRITING
        self._tell(self._title, self._done, self._steps)

    def stop(self) -> None:
        """The last stage is over."""
        self._lap()

    def layer_types(self) -> list[dict[str, Any]]:
        """``type``, number of ``layers`` and all their ``seconds``, in the network's order."""
        rows: dict[str, dict[str, Any]] = {}
        for name, seconds in self.layers.items():
            kind = f'{_CHAINS[_chain(name)][0]} {name.rpartition(".")[2]}'
            row = rows.setdefault(kind, {'type': kind, 'layers': 0, 'seconds': 0.0})
            row['layers'] += 1
            row['seconds'] = round(row['seconds'] + seconds, 3)
        return list(rows.values())

    def blocks(self) -> list[dict[str, Any]]:
        """Each kind of block with the ``built`` ones, their ``seconds``, and the real ``count``."""
        rows = []
        for chain, (kind, count) in _CHAINS.items():
            names = [name for name in self.layers if _chain(name) == chain]
            built = len({_block(name) for name in names})
            seconds = round(sum(self.layers[name] for name in names), 3)
            rows.append({'kind': kind, 'built': built, 'seconds': seconds, 'count': count})
        return rows

    def _lap(self) -> float:
        """Seconds since the last call, which the present stage is charged with."""
        now = self._now()
        seconds, self._last = now - self._last, now
        self.stages[self._title] = self.stages.get(self._title, 0.0) + seconds
        return seconds


def extrapolate(
    measured: dict[str, Any], layers: dict[str, LayerEntry], activation_bytes: int = 0
) -> dict[str, Any]:
    """What the whole network would take, from what a part of it took.

    Args:
        measured: ``blocks``, ``stages``, ``peak_resident_bytes`` and ``folder_bytes`` of the part.
        layers: its quantized layers.
        activation_bytes: what further activations take that wait between blocks.

    Returns:
        ``seconds``, of which ``quantizing_seconds`` in the blocks; ``quantized_weights``,
        ``folder_bytes`` and ``peak_resident_bytes``; the counts, and what is assumed.
    """
    blocks = {row['kind']: row for row in measured['blocks']}
    weights, size = 0.0, float(measured['folder_bytes'])
    for name, entry in layers.items():
        row = blocks[_CHAINS[_chain(name)][0]]
        factor = row['count'] / row['built']
        weights += factor * entry.rows * entry.columns
        size += (factor - 1) * entry.bytes
    quantizing = sum(row['seconds'] * row['count'] / row['built'] for row in blocks.values())
    others = sum(value for title, value in measured['stages'].items() if title != _QUANTIZING)
    others *= weights / sum(entry.rows * entry.columns for entry in layers.values())
    return {
        'decoder_layers': DECODER_LAYERS,
        'tower_blocks': list(TOWER_BLOCKS),
        'quantized_weights': round(weights),
        'quantizing_seconds': round(quantizing, 1),
        'seconds': round(quantizing + others, 1),
        'folder_bytes': round(size),
        'peak_resident_bytes': measured['peak_resident_bytes'] + activation_bytes,
        'assumes': ASSUMPTIONS,
    }


def _chain(name: str) -> str:
    return next(chain for chain in _CHAINS if name.startswith(f'{chain}.'))


def _block(name: str) -> str:
    chain = _chain(name)
    return f'{chain}.{name.removeprefix(f"{chain}.").partition(".")[0]}'
