# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Time and memory of the quantization of a network with OpenVLA-OFT's widths."""

from __future__ import annotations

import dataclasses
import multiprocessing
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.accounting import folder_bytes, packed_report
from hbvla_ros.packed.manifest import LayerEntry
from hbvla_ros.packed.reader import PackedFolder
from hbvla_ros.quantization.calibration import CalibrationSet, load_calibration
from hbvla_ros.quantization.layer_benchmark import MethodSpec
from hbvla_ros.quantization.memory import needed_bytes
from hbvla_ros.quantization.pipeline import quantize_checkpoint
from hbvla_ros.quantization.random_checkpoint import (
    DECODER_LAYERS,
    TOWER_BLOCKS,
    RandomRecording,
    RandomShape,
    write_random_checkpoint,
)
from hbvla_ros.quantization.request import Request
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.consistency import build_empty

# Chain of blocks: how tables call it, and how many blocks of it run in the whole network.
_CHAINS = {
    'vision_backbone.featurizer.blocks': ('DINOv2', TOWER_BLOCKS[0]),
    'vision_backbone.fused_featurizer.blocks': ('SigLIP', TOWER_BLOCKS[1]),
    'language_model.model.layers': ('decoder', DECODER_LAYERS),
}
_QUANTIZING, _WRITING = 'quantizing', 'last block and writing'
_STATUS_FILE = Path('/proc/self/status')
ASSUMPTIONS = (
    'seconds of a block times the number of its kind, all other stages in proportion to the '
    'quantized weights; memory is that of one block and stays, but for the activations that a '
    'probe keeps of every block, unless these are so many that they wait on disk'
)

# Told the stage, how many of its steps are done, and how many there are.
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class QuantizeBenchmark:
    """What is quantized, and how.

    Attributes:
        shape: how much of the network is built.
        method: ``NAME[:BITS][:PRESET][:SETTING=VALUE...]``.
        frames: calibration frames.
        probe: as ``hbvla quantize --probe``.
        device: where it computes.
        dtype: type of the forward passes.
        seed: of weights, frames and method.
    """

    shape: RandomShape = field(default_factory=RandomShape)
    method: str = 'signplane'
    frames: int = 8
    probe: str = 'action'
    device: str = 'cpu'
    dtype: str = 'float32'
    seed: int = 0

    def check(self) -> None:
        """Refuse what cannot be run, before anything is written.

        Raises:
            HbvlaError: a number out of its range, or a request the pipeline would refuse.
        """
        self.shape.check()
        if self.frames < 1:
            raise HbvlaError(f'--frames {self.frames}: at least 1 is needed')
        self.request().resolve()

    def request(self) -> Request:
        """What the pipeline is asked for.

        Raises:
            HbvlaError: no such method, preset or setting.
        """
        spec = MethodSpec.parse(self.method)
        return Request(
            method=spec.method.name,
            bits=spec.bits,
            seed=self.seed,
            probe=self.probe,
            options=spec.options,
            device=self.device,
            dtype=self.dtype,
        )

    def run(self, folder: Path, tell: Tell = lambda title, done, steps: None) -> dict[str, Any]:
        """Build the network, quantize it in a process of its own, and measure both.

        Args:
            folder: an empty folder for the network and the result; both stay in it.
            tell: told about the progress.

        Returns:
            Plain values for JSON; times in seconds, sizes in bytes.

        Raises:
            HbvlaError: see :meth:`check`, the disk is full, or the process has died.
        """
        self.check()
        tell('writing random weights', 0, 1)
        start = time.perf_counter()
        source = write_random_checkpoint(folder / 'random', self.shape, self.seed)
        built = time.perf_counter() - start
        measured = _in_a_process_of_its_own(self, folder, tell)
        return {
            'benchmark': 'quantize',
            **dataclasses.asdict(self),
            'options': dataclasses.asdict(self.request().resolve().options),
            'checkpoint_bytes': folder_bytes(source),
            'building_seconds': round(built, 2),
            **measured,
        }

    def measure(self, folder: Path, tell: Tell) -> dict[str, Any]:
        """Quantize ``folder / 'random'`` in this process; the peak of memory is this process's."""
        platform = self.shape.platform
        start = time.perf_counter()
        tell('frames', 0, self.frames)
        checkpoint = Checkpoint.open(folder / 'random', platform)
        recording = RandomRecording(platform, self.frames, self.seed)
        calibration = load_calibration([recording], checkpoint, self.frames, self.seed, pictures=0)
        clock = Clock(tell)
        loaded = time.perf_counter()
        out = folder / 'quantized'
        manifest = quantize_checkpoint(checkpoint, self.request(), out, calibration, clock).manifest
        clock.stop()
        seconds = time.perf_counter() - loaded
        report = packed_report(PackedFolder.open(out))
        weights = sum(entry.rows * entry.columns for entry in manifest.layers.values())
        measured = {
            'threads': torch.get_num_threads(),
            'frames_seconds': round(loaded - start, 2),
            'seconds': round(seconds, 2),
            'stages': {title: round(value, 2) for title, value in clock.stages.items()},
            'layer_types': clock.layer_types(),
            'blocks': clock.blocks(),
            'peak_resident_bytes': peak_resident_bytes(),
            'peak_device_bytes': None,
            'quantized_weights': weights,
            'stored_bits': report.stored_bits_per_weight,
            'nominal_bits': manifest.nominal_bits_per_weight,
            'folder_bytes': report.total_bytes,
        }
        if torch.device(self.device).type == 'cuda':
            measured['peak_device_bytes'] = torch.cuda.max_memory_allocated(self.device)
        further = self._activation_bytes(calibration, whole=True)
        further -= self._activation_bytes(calibration, whole=False)
        return measured | {'extrapolation': extrapolate(measured, manifest.layers, further)}

    def _activation_bytes(self, calibration: CalibrationSet, whole: bool) -> int:
        """The pipeline's own estimate of what waits between blocks, in all layers or the built."""
        shape = self.shape
        if whole:
            shape = dataclasses.replace(
                shape, decoder_layers=DECODER_LAYERS, tower_blocks=max(TOWER_BLOCKS)
            )
        skeleton = build_empty(shape.config, shape.platform, inference_only=True)
        return needed_bytes(skeleton, calibration, self.request().resolve()).activations


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


def peak_resident_bytes() -> int:
    """The most memory this process has had, pages of mapped files included.

    The kernel's own line is preferred: getrusage also counts the process that started this one.
    """
    if _STATUS_FILE.exists():
        for line in _STATUS_FILE.read_text(encoding='ascii').splitlines():
            if line.startswith('VmHWM:'):
                return 1024 * int(line.split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def markdown_report(result: dict[str, Any]) -> str:
    """Tables of a result of :meth:`QuantizeBenchmark.run`."""
    shape, whole = result['shape'], result['extrapolation']
    gigabytes = 1e9
    rows = [
        ('decoder layers', shape['decoder_layers'], whole['decoder_layers']),
        (
            'tower blocks',
            ' + '.join(str(row['built']) for row in result['blocks'][:2]),
            ' + '.join(str(count) for count in whole['tower_blocks']),
        ),
        ('quantized weights', *(f'{r["quantized_weights"] / 1e6:.1f} M' for r in (result, whole))),
        ('seconds', *(f'{r["seconds"]:.1f}' for r in (result, whole))),
        (
            'peak memory, GB',
            *(f'{r["peak_resident_bytes"] / gigabytes:.2f}' for r in (result, whole)),
        ),
        ('folder, GB', *(f'{r["folder_bytes"] / gigabytes:.3f}' for r in (result, whole))),
        ('stored bits', *[f'{result["stored_bits"]:.4f}'] * 2),
    ]
    if shape['width_divisor'] != 1:
        rows.append(('widths', *[f'1/{shape["width_divisor"]}'] * 2))
    parts = [
        _table(['', 'measured', 'extrapolated'], rows),
        _table(['stage', 'seconds'], [(k, f'{v:.1f}') for k, v in result['stages'].items()]),
        _table(
            ['layer type', 'layers', 'seconds each'],
            [
                (row['type'], row['layers'], f'{row["seconds"] / row["layers"]:.2f}')
                for row in result['layer_types']
            ],
        ),
        'The first layer of a block (qkv, q_proj) carries the pass through the block before and '
        f'the Hessians of its own. Extrapolated: {whole["assumes"]}.',
    ]
    return '\n\n'.join(parts)


def _table(heading: list[str], rows: list[Any]) -> str:
    lines = [heading, ['---'] * len(heading), *rows]
    return '\n'.join(f'| {" | ".join(str(cell) for cell in cells)} |' for cells in lines)


def _chain(name: str) -> str:
    return next(chain for chain in _CHAINS if name.startswith(f'{chain}.'))


def _block(name: str) -> str:
    chain = _chain(name)
    return f'{chain}.{name.removeprefix(f"{chain}.").partition(".")[0]}'


def _in_a_process_of_its_own(
    benchmark: QuantizeBenchmark, folder: Path, tell: Tell
) -> dict[str, Any]:
    """:meth:`QuantizeBenchmark.measure` where the memory of nothing else counts."""
    context = multiprocessing.get_context('spawn')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, benchmark, folder), daemon=True)
    process.start()
    sender.close()
    try:
        while True:
            kind, *values = receiver.recv()
            if kind == 'result':
                result: dict[str, Any] = values[0]
                return result
            if kind == 'error':
                raise HbvlaError(values[0])
            tell(*values)
    except EOFError:
        process.join()
        reason = f'ended with status {process.exitcode}'
        if process.exitcode == -signal.SIGKILL:
            reason = 'was killed, as the kernel does for want of memory; ask for fewer --frames'
        raise HbvlaError(f'the quantizing process {reason}') from None
    finally:
        if process.is_alive():
            process.terminate()
        process.join()


def _child(sender: Connection, benchmark: QuantizeBenchmark, folder: Path) -> None:
    """Measure and send what comes of it."""

    def tell(title: str, done: int, steps: int) -> None:
        sender.send(('progress', title, done, steps))

    try:
        sender.send(('result', benchmark.measure(folder, tell)))
    except HbvlaError as error:
        sender.send(('error', str(error)))
    except (KeyboardInterrupt, BrokenPipeError):
        # The parent has been interrupted as well and says so.
        return
