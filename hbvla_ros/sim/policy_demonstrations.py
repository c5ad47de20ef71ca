# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Demonstration episodes on a policy's own states: the policy drives, the expert labels.

Dataset aggregation (Ross et al. 2011, DAgger): a policy trained on the expert's states alone meets
others once its errors add up, and has no labels there. Here the states are those that the policy
leads to, and each label is what the undisturbed expert would do in that very state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hbvla_ros.sim import scene
from hbvla_ros.sim.demonstrations import LABEL_EVERY, REST_STEPS, Episode, Recorder, max_steps
from hbvla_ros.sim.experts.base import Expert
from hbvla_ros.sim.experts.registry import make_expert
from hbvla_ros.sim.simulation import AlohaSimulation

# Share of the episodes that the policy drives from start to end.
ALONE_SHARE = 1 / 3
# Control steps of a span of the policy and of one of the expert in the other episodes, both ends
# included. The expert takes over so that a policy that fails early visits late stages as well.
POLICY_SPAN = (10, 60)
EXPERT_SPAN = (10, 40)


class Render(Protocol):
    """Images of now, with the arguments of ``AlohaSimulation.render``."""

    def __call__(
        self, size: tuple[int, int] | None = None, cameras: tuple[str, ...] = scene.CAMERAS
    ) -> dict[str, NDArray[np.uint8]]:
        """Camera name to (H, W, 3) RGB."""
        ...


class Actor(Protocol):
    """What drives the robot: a policy, or something that stands in for one."""

    def start(self, seed: int) -> None:
        """Forget what was before: whatever is drawn from now on is decided by ``seed``."""
        ...

    def chunk(self, simulation: AlohaSimulation, render: Render) -> NDArray[np.float64]:
        """The (rows, 14) commands to execute from now on before it is asked again.

        Args:
            simulation: as it is now; must be left so.
            render: to be used in place of ``simulation.render``: it draws no image twice.
        """
        ...


class ActorSource(Protocol):
    """Makes an actor in each worker process; it must survive pickling."""

    @property
    def identity(self) -> str:
        """Names the policy in the manifest; not empty."""
        ...

    def __call__(self) -> Actor:
        """A new actor, of this process."""
        ...


class StepImages:
    """Images of a simulation, each drawn once at an instant.

    Args:
        simulation: must not be reset meanwhile.
    """

    def __init__(self, simulation: AlohaSimulation) -> None:
        """Nothing is drawn before it is asked for."""
        self._simulation = simulation
        self._time = simulation.time
        self._kept: dict[tuple[str, int, int], NDArray[np.uint8]] = {}

    def render(
        self, size: tuple[int, int] | None = None, cameras: tuple[str, ...] = scene.CAMERAS
    ) -> dict[str, NDArray[np.uint8]]:
        """As ``AlohaSimulation.render``; the images must not be written to."""
        simulation = self._simulation
        if simulation.time != self._time:
            self._kept.clear()
            self._time = simulation.time
        height, width = size or (simulation.camera_size, simulation.camera_size)
        missing = tuple(name for name in cameras if (name, height, width) not in self._kept)
        if missing:
            for name, image in simulation.render((height, width), missing).items():
                self._kept[name, height, width] = image
        return {name: self._kept[name, height, width] for name in cameras}


class Turns:
    """Who drives at each control step of an episode: the policy alone, or policy and expert.

    Args:
        random: of the episode; drawn from here and on every change.
    """

    def __init__(self, random: np.random.Generator) -> None:
        """Draw whether the policy drives alone, and else who begins."""
        self._random = random
        self.alone = bool(random.random() < ALONE_SHARE)
        # The first call of `next` changes turns.
        self._policy = self.alone or bool(random.random() < 0.5)
        self._left = 0

    def next(self) -> tuple[bool, bool]:
        """Of the next step: whether the policy drives, and whether a span begins with it."""
        if self.alone:
            begins, self._left = self._left == 0, 1
            return True, begins
        begins = self._left == 0
        if begins:
            self._policy = not self._policy
            low, high = POLICY_SPAN if self._policy else EXPERT_SPAN
            self._left = int(self._random.integers(low, high + 1))
        self._left -= 1
        return self._policy, begins


def record_policy_episode(
    simulation: AlohaSimulation, seed: int, actor: Actor, images: bool = True
) -> Episode:
    """Let a policy drive one episode, label it by the undisturbed expert.

    Args:
        simulation: reset here, in its present task; its camera size is the image size.
        seed: decides the layout, the start pose and who drives when.
        actor: the policy.
        images: False leaves the recorded images out.

    Returns:
        The episode; its labels are right whether it succeeded or not.
    """
    simulation.reset(seed)
    shared = StepImages(simulation)
    recorder = Recorder(simulation, images, shared.render)
    _drive(simulation, seed, actor, shared.render, recorder.label)
    return recorder.episode(seed)


def _drive(
    simulation: AlohaSimulation,
    seed: int,
    actor: Actor,
    render: Render,
    label: Callable[[Expert], NDArray[np.float64]],
) -> None:
    """Run the episode from its start; ``label`` as in ``demonstrations.roll_out``."""
    random = np.random.default_rng((seed, 2))
    turns = Turns(random)
    # The first label falls on any of the first steps, so that labels cover all of them.
    first = int(random.integers(LABEL_EVERY))
    actor.start(seed)
    expert = make_expert(simulation)
    rows: list[NDArray[np.float64]] = []
    rest = REST_STEPS
    for step in range(max_steps(simulation)):
        policy_drives, span_begins = turns.next()
        command = label(expert) if step % LABEL_EVERY == first else None
        if policy_drives:
            if span_begins or not rows:
                rows = list(actor.chunk(simulation, render))
            command = rows.pop(0)
        elif command is None:
            command = expert.command()
        simulation.command(command)
        simulation.step()
        if simulation.success():
            rest -= 1
            if rest == 0:
                break
