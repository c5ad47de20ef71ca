# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The stages of ``hbvla demo``, one after the other."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.closed_loop import check_platform, evaluate
from hbvla_ros.evaluation.demo_report import Condition, content, film, media, write_film
from hbvla_ros.evaluation.over_ros import MAX_SECONDS, evaluate_over_ros
from hbvla_ros.evaluation.report import render_report, write_atomically

if TYPE_CHECKING:
    from hbvla_ros.cli.progress import Reporter
    from hbvla_ros.packed.manifest import LayerEntry

# Quantized for the demo: folder name, method, name in the report, whether it is driven.
_QUANTIZED = (
    ('signplane_1bit', 'signplane', '1 bit (signplane)', True),
    ('rtn_1bit', 'rtn', '1 bit (rtn)', False),
)
_CALIBRATION_EPISODES = 20


class Demo:
    """One run of the demo; its methods are called in the order of their names below."""

    def __init__(
        self,
        checkpoint: Path,
        out: Path,
        seeds: Sequence[int],
        reporter: Reporter,
        max_seconds: float = MAX_SECONDS,
    ) -> None:
        """Prepare.

        Args:
            checkpoint: full-precision folder.
            out: where report and quantized checkpoints go.
            seeds: evaluation seeds, one an episode.
            reporter: told what goes on.
            max_seconds: simulated time after which an episode has failed.

        Raises:
            HbvlaError: ``out`` is a file.
        """
        if out.exists() and not out.is_dir():
            raise HbvlaError(f'{out}: is a file; give a folder with --out')
        self._checkpoint, self._out, self._seeds = checkpoint, out, seeds
        self._reporter, self._max_seconds = reporter, max_seconds
        self._sizes: list[dict[str, Any]] = []
        self._driven: list[tuple[Path, dict[str, Any]]] = []
        self._conditions: list[Condition] = []

    def quantize(self, frames: int, refine: int) -> None:
        """Record a few calibration episodes and quantize the policy with every method.

        Args:
            frames: camera frames that are calibrated on.
            refine: steps of the refinement of what is driven.

        Raises:
            HbvlaError: the policy is quantized already, damaged, or for another robot.
        """
        from hbvla_ros.packed.accounting import full_precision_report, packed_report
        from hbvla_ros.packed.manifest import MANIFEST_NAME
        from hbvla_ros.packed.reader import PackedFolder
        from hbvla_ros.quantization.pipeline import Request, quantize_checkpoint
        from hbvla_ros.quantizing import read_calibration
        from hbvla_ros.vla.checkpoint import Checkpoint
        from hbvla_ros.vla.platform import resolve_platform

        if (self._checkpoint / MANIFEST_NAME).exists():
            raise HbvlaError(f'{self._checkpoint}: is quantized; give the full-precision folder')
        platform = resolve_platform(self._checkpoint)
        check_platform(platform)
        checkpoint = Checkpoint.open(self._checkpoint, platform)
        with tempfile.TemporaryDirectory(prefix='hbvla-calibration-') as name:
            self._record_calibration(Path(name))
            calibration = read_calibration(Path(name), checkpoint, frames, 0)
        weights = 0
        for folder_name, method, title, driven in _QUANTIZED:
            folder = self._out / 'checkpoints' / folder_name
            self._reporter.begin(f'quantizing with {method}')
            quantize_checkpoint(
                checkpoint,
                Request(method, 1.0, refine=refine if driven else 0),
                folder,
                # What is not driven is there for its size, which calibration does not change.
                calibration if driven else None,
                _LayerProgress(self._reporter),
                force=True,
            )
            report = packed_report(PackedFolder.open(folder))
            weights = sum(row.quantized_weights for row in report.layer_types)
            stored = sum(row.quantized_bytes for row in report.layer_types)
            size = {
                **report.to_json(),
                'name': title,
                'quantized_bytes': stored,
                'driven': driven,
            }
            self._sizes.append(size)
            if driven:
                self._driven.append((folder, size))
            self._reporter.say(
                f'{title}: {report.stored_bits_per_weight:.3f} stored bits per weight, '
                f'{report.total_bytes:,} bytes'
            )
        full = full_precision_report(self._checkpoint).to_json()
        # What the weights take that the methods above replace.
        replaced = round(full['stored_bits_per_weight'] * weights / 8)
        full = {**full, 'name': 'Full precision', 'quantized_bytes': replaced, 'driven': True}
        self._sizes.insert(0, full)
        self._driven.insert(0, (self._checkpoint, full))

    def drive(self) -> None:
        """Run every seed over ROS 2 and, for comparison, in this process."""
        from hbvla_ros.policy import Policy

        count = len(self._seeds)
        for folder, size in self._driven:
            name = size['name']
            self._reporter.begin(f'{name} over ROS 2', count)
            over_ros = evaluate_over_ros(
                folder,
                self._seeds,
                max_seconds=self._max_seconds,
                progress=self._reporter.episode,
                status=self._reporter.status,
            )
            self._reporter.say(f'{name} over ROS 2: {over_ros.success}')
            self._reporter.begin(f'{name} in one process', count)
            policy = Policy.load(folder)
            in_process = evaluate(
                policy,
                self._seeds,
                max_steps=round(self._max_seconds / policy.platform.step),
                progress=lambda _: self._reporter.advance(),
            )
            self._reporter.say(f'{name} in one process: {in_process.success}')
            self._conditions.append(Condition(name, size, over_ros, in_process))

    def write_report(self, command: str, quick: bool) -> str:
        """Film, plot and write; returns the result in a few lines.

        Args:
            command: the command line that repeats the run.
            quick: whether it was the quick form.
        """
        self._reporter.begin('drawing the report')
        films = film(self._conditions)
        with tempfile.TemporaryDirectory(prefix='hbvla-film-') as name:
            write_film(films, Path(name) / 'episode.mp4')
            video = (Path(name) / 'episode.mp4').read_bytes()
        report = content(self._conditions, self._sizes, films, command, quick)
        page = render_report(report, media(self._conditions, films, video))
        self._out.mkdir(parents=True, exist_ok=True)
        write_atomically(self._out / 'episode.mp4', video)
        write_atomically(self._out / 'report.json', json.dumps(report, indent=2) + '\n')
        write_atomically(self._out / 'report.html', page)
        lines = [
            f'{one.name}: {one.over_ros.success}, '
            f'{one.size["stored_bits_per_weight"]:.2f} stored bits per weight'
            for one in self._conditions
        ]
        return '\n'.join([*lines, f'report: {self._out / "report.html"}'])

    def _record_calibration(self, folder: Path) -> None:
        """A few disturbed expert episodes on validation seeds, which evaluation never uses."""
        from hbvla_ros.evaluation.closed_loop import CAMERA_SIZE
        from hbvla_ros.sim.demonstrations import record_episode
        from hbvla_ros.sim.seeds import seed_range
        from hbvla_ros.sim.simulation import AlohaSimulation

        self._reporter.begin('recording calibration episodes', _CALIBRATION_EPISODES)
        simulation = AlohaSimulation(CAMERA_SIZE)
        try:
            for seed in seed_range('validation', _CALIBRATION_EPISODES):
                record_episode(simulation, seed).write(folder / f'episode_{seed}.npz')
                self._reporter.advance()
        finally:
            simulation.close()


class _LayerProgress:
    """Shows the pipeline's layers on the reporter's live line."""

    def __init__(self, reporter: Reporter) -> None:
        """Show them on ``reporter``."""
        self._reporter = reporter

    def stage(self, title: str, steps: int) -> None:
        """A stage of the pipeline begins."""
        self._reporter.status(title)

    def step(self, name: str = '', entry: LayerEntry | None = None) -> None:
        """A layer is done."""
        if name:
            self._reporter.status(name)
