# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Time and memory of the quantization of a network with OpenVLA-OFT's widths."""

from __future__ import annotations

import dataclasses
import multiprocessing
import resource
import signal
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from hbvla_ros.errors import HbvlaError
from hbvla_ros.packed.accounting import folder_bytes, packed_report
from hbvla_ros.packed.reader import PackedFolder
from hbvla_ros.quantization.calibration import CalibrationSet, load_calibration
from hbvla_ros.quantization.memory import needed_bytes
from hbvla_ros.quantization.method_spec import MethodSpec
from hbvla_ros.quantization.pipeline import quantize_checkpoint
from hbvla_ros.quantization.random_checkpoint import (
    DECODER_LAYERS,
    TOWER_BLOCKS,
    RandomRecording,
    RandomShape,
    write_random_checkpoint,
)
from hbvla_ros.quantization.request import Request
from hbvla_ros.quantization.stage_clock import Clock, Tell, extrapolate
from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.consistency import build_empty

_STATUS_FILE = Path('/proc/self/status')


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
