# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Demonstration episodes: images of a disturbed rollout, labelled by the undisturbed expert.

Closed-loop specification, section 2: at every third control step the simulator is branched, the
noise-free expert runs for one chunk, and the simulator is restored.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from hbvla_ros.sim import kinematics, scene
from hbvla_ros.sim.arms import ACTION_SIZE, START_ACTION
from hbvla_ros.sim.auxiliary import AUXILIARY_NAMES, auxiliary_targets
from hbvla_ros.sim.experts.base import Expert
from hbvla_ros.sim.experts.registry import make_expert
from hbvla_ros.sim.perturbation import CommandPerturbation
from hbvla_ros.sim.simulation import AlohaSimulation

CHUNK = 16
LABEL_EVERY = 3
# Share of a task's time limit that a demonstration may take: two to three times the expert's time.
LIMIT_SHARE = 0.65
REST_STEPS = 32  # after success: the arm retreats, and stays at rest
JPEG_QUALITY = 95
_MID_AIR_EPISODES = 0.35


@dataclass(frozen=True)
class Episode:
    """One recorded episode of T labelled steps.

    Attributes:
        task: name of the task.
        seed: decides everything.
        instruction: the sentence of the episode.
        success: whether the task was done in the end.
        stage: furthest stage, an index into the task's stages.
        jpegs: T encoded images per camera.
        proprioception: float32 (T, 14), measured.
        chunks: float32 (T, 16, 14); row 0 is the command to send at that very state.
        auxiliary: float32 (T, len(AUXILIARY_NAMES)), NaN where a column says nothing.
    """

    task: str
    seed: int
    instruction: str
    success: bool
    stage: int
    jpegs: dict[str, list[bytes]]
    proprioception: NDArray[np.float32]
    chunks: NDArray[np.float32]
    auxiliary: NDArray[np.float32]

    def write(self, path: Path) -> None:
        """Write an ``.npz`` that loads without pickle; it appears whole or not at all."""
        arrays: dict[str, NDArray[np.generic]] = {
            'proprioception': self.proprioception,
            'chunks': self.chunks,
            'auxiliary': np.nan_to_num(self.auxiliary),
            'auxiliary_known': np.isfinite(self.auxiliary),
            'auxiliary_names': np.array(AUXILIARY_NAMES),
            'task': np.array(self.task),
            'instruction': np.array(self.instruction),
            'seed': np.array(self.seed),
            'success': np.array(self.success),
        }
        for camera, images in self.jpegs.items():
            lengths = [len(image) for image in images]
            arrays[f'jpeg_{camera}'] = np.frombuffer(b''.join(images), dtype=np.uint8)
            arrays[f'offset_{camera}'] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        temporary = path.with_name(f'.{path.name}.{os.getpid()}')
        with temporary.open('wb') as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        temporary.replace(path)


def expert_chunk(
    simulation: AlohaSimulation, expert: Expert, rows: int = CHUNK
) -> NDArray[np.float64]:
    """The (rows, 14) commands of the undisturbed expert from this state, which is kept."""
    chunk = np.empty((rows, ACTION_SIZE))
    state = simulation.save_state()
    for row in range(rows):
        chunk[row] = expert.command()
        if row + 1 < rows:
            simulation.command(chunk[row])
            simulation.step()
    simulation.restore_state(state)
    return chunk


def max_steps(simulation: AlohaSimulation) -> int:
    """Control steps after which a demonstration is given up."""
    return round(LIMIT_SHARE * simulation.task.max_seconds * simulation.control_rate)


def record_episode(simulation: AlohaSimulation, seed: int, images: bool = True) -> Episode:
    """Roll out one disturbed episode and label it.

    Args:
        simulation: reset here, in its present task; its camera size is the image size.
        seed: decides the layout, the start pose and every disturbance.
        images: False leaves the images out.

    Returns:
        The episode, successful or not.
    """
    recorder = Recorder(simulation, images, simulation.render)
    roll_out(simulation, seed, recorder.label)
    return recorder.episode(seed)


def roll_out(
    simulation: AlohaSimulation,
    seed: int,
    label: Callable[[Expert], NDArray[np.float64]] | None = None,
) -> None:
    """Run one disturbed episode of the expert, and a little on after success.

    Args:
        simulation: reset here, in its present task.
        seed: decides the layout, the start pose and every disturbance.
        label: called at every labelled step in place of the expert's ``command``, which it must
            return; it must leave the simulation as it was.
    """
    random = np.random.default_rng((seed, 1))
    simulation.reset(seed, joints=_start_pose(random))
    expert = make_expert(simulation)
    perturbation = CommandPerturbation(random)
    # The first label falls on any of the first steps, so that labels cover all of them.
    first = int(random.integers(LABEL_EVERY))
    rest = REST_STEPS
    for step in range(max_steps(simulation)):
        if label is not None and step % LABEL_EVERY == first:
            command = label(expert)
        else:
            command = expert.command()
        simulation.command(perturbation.apply(command, simulation.joint_positions()))
        simulation.step()
        if simulation.success():
            rest -= 1
            if rest == 0:
                break


def _start_pose(random: np.random.Generator) -> NDArray[np.float64] | None:
    """None for the seed's own start, or arms somewhere in mid-air."""
    if random.random() >= _MID_AIR_EPISODES:
        return None
    pose = START_ACTION.copy()
    for arm in range(2):
        pose[7 * arm : 7 * arm + 6] += random.uniform(-0.1, 0.1, 6)
        pose[7 * arm + 6] = random.uniform(0.0, 1.0)
    arm = int(random.integers(2))
    joints = kinematics.inverse(
        random.uniform(0.17, 0.42), random.uniform(-0.15, 0.15), random.uniform(0.10, 0.30),
        random.uniform(0.3, 1.0) * math.pi / 2,
    )  # fmt: skip
    pose[7 * arm : 7 * arm + 6] = joints + random.uniform(-0.1, 0.1, 6)
    return pose


class Recorder:
    """Collects the labelled steps of one episode.

    Args:
        simulation: in which the episode runs.
        images: False leaves the images out.
        render: gives the images of now, by camera; ``simulation.render`` or one that keeps them.
    """

    def __init__(
        self,
        simulation: AlohaSimulation,
        images: bool,
        render: Callable[[], dict[str, NDArray[np.uint8]]],
    ) -> None:
        """Nothing is stored yet."""
        self._simulation = simulation
        self._render = render
        self._jpegs: dict[str, list[bytes]] = {name: [] for name in scene.CAMERAS if images}
        self._proprioception: list[NDArray[np.float64]] = []
        self._chunks: list[NDArray[np.float64]] = []
        self._auxiliary: list[NDArray[np.float64]] = []

    def label(self, expert: Expert) -> NDArray[np.float64]:
        """Store this instant; returns the expert's command for it."""
        simulation = self._simulation
        self._proprioception.append(simulation.joint_positions())
        self._auxiliary.append(auxiliary_targets(simulation))
        if self._jpegs:
            for name, image in self._render().items():
                self._jpegs[name].append(
                    simplejpeg.encode_jpeg(
                        image, quality=JPEG_QUALITY, colorspace='RGB', colorsubsampling='420'
                    )
                )
        self._chunks.append(expert_chunk(simulation, expert))
        return self._chunks[-1][0]

    def episode(self, seed: int) -> Episode:
        """What has been stored."""
        simulation = self._simulation
        return Episode(
            task=simulation.task.name,
            seed=seed,
            instruction=simulation.instruction,
            success=simulation.success(),
            stage=simulation.stage(),
            jpegs=self._jpegs,
            proprioception=np.asarray(self._proprioception, dtype=np.float32),
            chunks=np.asarray(self._chunks, dtype=np.float32),
            auxiliary=np.asarray(self._auxiliary, dtype=np.float32),
        )
