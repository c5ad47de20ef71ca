# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The simulated world's own thread: physics, cameras and simulated time at one pace."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hbvla_ros.sim.simulation import AlohaSimulation

Vector = NDArray[np.float64]
Images = dict[str, NDArray[np.uint8]]

# Zero means "no time yet" to ROS, so simulated time starts later.
_FIRST_TIME = 1.0


@dataclass(frozen=True)
class Pace:
    """Rates in Hz and times in s of the world.

    Attributes:
        joint_rate: steps of the world; joint states and the clock follow each.
        camera_rate: images per simulated second.
        real_time_factor: simulated seconds per second, 0 for as fast as possible.
        settle: simulated seconds after a reset in which commands are ignored.
    """

    joint_rate: float
    camera_rate: float
    real_time_factor: float
    settle: float


@dataclass(frozen=True)
class Episode:
    """Where the present episode stands; the instruction is empty until the scene has settled."""

    seed: int
    instruction: str
    success: bool
    stage: int
    elapsed: float


class Listener(Protocol):
    """Who is told, on the world's thread, in the order clock, joints, images, episode."""

    def on_step(self, now: float, positions: Vector, velocities: Vector) -> None:
        """Time in s moved on; positions and velocities (14,)."""

    def on_images(self, now: float, images: Images) -> None:
        """Images of this instant by camera."""

    def on_episode(self, now: float, episode: Episode) -> None:
        """The episode's state after this step."""


class World:
    """Owns the simulation and its graphics context on one thread.

    A machine that cannot keep up makes simulated time slower; no step is ever skipped.
    """

    def __init__(
        self, make: Callable[[], AlohaSimulation], pace: Pace, seed: int, listener: Listener
    ) -> None:
        """Prepare; nothing runs before :meth:`start`."""
        self._make, self._pace, self._listener = make, pace, listener
        self._seed, self._wanted = seed, seed
        self._command: Vector | None = None
        self._resets: list[Future[int]] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name='world', daemon=True)
        self._ready: Future[None] = Future()
        self.now = _FIRST_TIME
        self.failure = ''
        self._step_time = 1.0 / pace.joint_rate

    @property
    def achieved_factor(self) -> float:
        """Simulated seconds per second over about the last 20 steps."""
        return 1.0 / (self._pace.joint_rate * max(self._step_time, 1e-6))

    def start(self) -> None:
        """Build the scene and run; returns when the first image has been drawn.

        Raises:
            HbvlaError: no renderer on this machine, or no assets.
        """
        self._thread.start()
        self._ready.result()

    def stop(self, timeout: float) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def command(self, part: slice, values: Vector) -> None:
        """Set the targets of one arm: a slice of the 14 and its values."""
        with self._lock:
            if self._command is not None:
                self._command[part] = values

    def reset(self, seed: int | None = None) -> Future[int]:
        """Start an episode; None repeats the present seed. The future gives the seed."""
        future: Future[int] = Future()
        with self._lock:
            self._wanted = self._wanted if seed is None else seed
            self._resets.append(future)
        return future

    def _run(self) -> None:
        simulation = None
        try:
            simulation = self._make()
            self._begin_episode(simulation, self._seed)
            simulation.render()
            self._ready.set_result(None)
            self._loop(simulation)
        except BaseException as error:
            if self._ready.done():
                self.failure = f'the simulation has failed: {error!r}'
            else:
                self._ready.set_exception(error)
        finally:
            if simulation is not None:
                simulation.close()

    def _begin_episode(self, simulation: AlohaSimulation, seed: int) -> None:
        simulation.reset(seed)
        start = simulation.joint_positions()
        with self._lock:
            self._seed, self._command = seed, start.copy()
        self._start_pose, self._began = start, self.now

    def _loop(self, simulation: AlohaSimulation) -> None:
        pace, period = self._pace, 1.0 / self._pace.joint_rate
        share = period / pace.real_time_factor if pace.real_time_factor > 0.0 else 0.0
        next_camera = self.now
        due = measured = time.monotonic()
        while not self._stopping.is_set():
            self._answer_resets(simulation)
            self._step(simulation, period)
            if self.now >= next_camera - 1e-6:
                self._listener.on_images(self.now, simulation.render())
                next_camera += 1.0 / pace.camera_rate
            self._report(simulation)
            # Steps that draw take longer than those between them: only that is caught up.
            due = max(due + share, time.monotonic() - share)
            time.sleep(max(due - time.monotonic(), 0.0))
            elapsed = time.monotonic() - measured
            measured += elapsed
            self._step_time += 0.05 * (elapsed - self._step_time)

    def _answer_resets(self, simulation: AlohaSimulation) -> None:
        with self._lock:
            waiting, self._resets, seed = self._resets, [], self._wanted
        if waiting:
            self._begin_episode(simulation, seed)
            for future in waiting:
                future.set_result(seed)

    def _step(self, simulation: AlohaSimulation, period: float) -> None:
        settling = self.now - self._began < self._pace.settle
        with self._lock:
            command = None if self._command is None else self._command.copy()
            if settling:
                # The arms still get commands for the episode before; the scene must not see them.
                self._command = self._start_pose.copy()
        simulation.command(self._start_pose if settling or command is None else command)
        simulation.advance(period)
        self.now += period
        self._listener.on_step(
            self.now, simulation.joint_positions(), simulation.joint_velocities()
        )

    def _report(self, simulation: AlohaSimulation) -> None:
        elapsed = self.now - self._began - self._pace.settle
        episode = Episode(
            self._seed,
            simulation.instruction if elapsed >= 0.0 else '',
            simulation.success(),
            simulation.stage(),
            max(elapsed, 0.0),
        )
        self._listener.on_episode(self.now, episode)
