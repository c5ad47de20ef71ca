# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Digests by which two evaluations are told to be of the same task."""

from __future__ import annotations

import hashlib
import inspect

import numpy as np

from hbvla_ros.sim.seeds import seed_range

# So many episodes stand for all of them.
_EPISODES = 8


def task_digest(name: str) -> str:
    """SHA-256 over what a task is: the same digest, the same episodes from the same seeds.

    Over the compiled scene, instructions and first poses of a few evaluation seeds, the time
    limit, and the source of the task's own module, which decides stages and success.

    Args:
        name: of the task.

    Raises:
        HbvlaError: unknown task, or no simulator.
    """
    from hbvla_ros.sim.engine import mujoco
    from hbvla_ros.sim.simulation import AlohaSimulation

    simulation = AlohaSimulation(task=name)
    task = simulation.task
    digest = hashlib.sha256(repr((name, task.stages, task.max_seconds, task.stay_seconds)).encode())
    source = inspect.getsource(inspect.getmodule(type(task)) or type(task))
    digest.update(source.encode())
    model = np.empty(mujoco.mj_sizeModel(simulation.model), dtype=np.uint8)
    mujoco.mj_saveModel(simulation.model, None, model)
    digest.update(model.tobytes())
    for seed in seed_range('evaluation', _EPISODES):
        simulation.reset(seed, name)
        digest.update(simulation.instruction.encode())
        digest.update(np.round(simulation.data.qpos, 9).tobytes())
        digest.update(np.round(simulation.data.mocap_pos, 9).tobytes())
    simulation.close()
    return digest.hexdigest()
