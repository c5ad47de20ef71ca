# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The processes of a rehearsal: guard, arm node, policy node, drivers, and the canary."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import yaml

from hbvla_ros.evaluation.over_ros import node_arguments
from hbvla_ros.evaluation.processes import Child, Supervisor, free_domain, ros_environment
from hbvla_ros.resources import share_path

GUARD, ARMS, POLICY, ROBOT, CANARY = (
    'guard_node', 'arm_node', 'policy_node', 'faulty_robot', 'canary',
)  # fmt: skip
# The shipped profile watches for what a simulation needs. These are the times of a robot that is to
# hold within 0.25 s: what is found late, is found at most so late.
STRICT = {
    'joint_state_timeout': 0.15,
    'image_timeout': 0.15,
    'frozen_timeout': 0.06,
    'clamp_stop': 0.15,
    # After a hold the arms are led to the motion, or catching up with it would count as clamping.
    'start_mismatch': 0.1,
    'ramp_velocity': 2.0,
    # At full speed the pose that was measured two control periods ago is as far away as the shipped
    # bound: a hold would go back to it.
    'lag_bound': 0.5,
}
_DIAGNOSTICS_RATE = 10.0
# Shorter than the 2 s that an inference is to be late by.
_DEADLINE = 1.0


def strict_profile(folder: Path, robot: str = 'aloha_sim') -> Path:
    """A copy of a shipped profile with the times of :data:`STRICT`."""
    text = (share_path('config', 'robots') / f'{robot}.yaml').read_text(encoding='utf-8')
    content = yaml.safe_load(text)
    content['safety'].update(STRICT)
    path = folder / f'{robot}.yaml'
    path.write_text(yaml.safe_dump(content), encoding='utf-8')
    return path


class Cast:
    """Starts the processes in a ROS domain of their own, and does to them what befalls them.

    Args:
        folder: logs go there.
        robot: profile, a path.
        time_scale: simulated seconds a second; 0 for real time.
        hold_on_loss: the parameter of the policy node.

    Attributes:
        domain: the ROS domain.
        children: those that run, by name.
    """

    def __init__(
        self, folder: Path, robot: Path, time_scale: float = 0.0, hold_on_loss: bool = True
    ) -> None:
        """Prepare; nothing is started before :meth:`start`."""
        self.domain = free_domain()
        environment = dict(ros_environment(self.domain), OMP_NUM_THREADS='1')
        self.supervisor = Supervisor(folder, environment)
        self.children: dict[str, Child] = {}
        self._starts = 0
        common = {
            'robot': str(robot), 'use_sim_time': time_scale > 0.0,
            'diagnostics_rate': _DIAGNOSTICS_RATE,
        }  # fmt: skip
        managed = {**common, 'autostart': True}
        self._parts: dict[str, tuple[str, dict[str, Any]]] = {
            GUARD: ('guard_node', common),
            ARMS: ('arm_node', {**managed, 'require_guard': True}),
            POLICY: (
                'faults.policy',
                {**managed, 'hold_on_loss': hold_on_loss, 'inference_deadline': _DEADLINE,
                 'instruction': 'swing the arms'},
            ),
            ROBOT: ('faults.robot', {'robot': str(robot), 'time_scale': time_scale}),
        }  # fmt: skip
        self._robot = robot

    def start(self) -> None:
        """Start what does not run."""
        for name in (CANARY, ROBOT, GUARD, ARMS, POLICY):
            if not self.runs(name):
                self.bring(name)

    def bring(self, name: str) -> None:
        """Start one process."""
        self._starts += 1
        if name == CANARY:
            arguments = ['-m', 'hbvla_ros.nodes.faults.canary']
        else:
            arguments = node_arguments(*self._parts[name])
        self.children[name] = self.supervisor.start(f'{name}.{self._starts}', arguments)

    def intrude(self) -> None:
        """Start a second writer."""
        self._starts += 1
        self.children['intruder'] = self.supervisor.start(
            f'intruder.{self._starts}',
            ['-m', 'hbvla_ros.nodes.faults.intruder', '--robot', str(self._robot)],
        )

    def runs(self, name: str) -> bool:
        """Whether a process runs."""
        return name in self.children and self.children[name].process.poll() is None

    def nodes(self) -> dict[str, int]:
        """Process numbers of what runs, without the canary."""
        running = list(self.children.items())
        return {name: child.process.pid for name, child in running if name != CANARY}

    def kill(self, name: str) -> float:
        """Kill a process as the kernel would when memory runs out; when that was, s monotonic."""
        return self._end(name, signal.SIGKILL)

    def dismiss(self, name: str) -> float:
        """Ask a process to leave and wait until it has; when it was asked, s monotonic."""
        return self._end(name, signal.SIGTERM)

    def _end(self, name: str, number: int) -> float:
        child = self.children.pop(name)
        self.supervisor.forget(child)
        moment = time.monotonic()
        child.process.send_signal(number)
        child.process.wait()
        return moment

    def pause(self, name: str) -> float:
        """Let a process get no further, alive as it is; when that was, s monotonic."""
        moment = time.monotonic()
        self.children[name].process.send_signal(signal.SIGSTOP)
        return moment

    def resume(self, name: str) -> None:
        """Let it go on."""
        self.children[name].process.send_signal(signal.SIGCONT)

    def check(self) -> None:
        """Raise for the first process that ended although nobody ended it."""
        self.supervisor.check()

    def close(self) -> None:
        """End all of them; the first that did not leave as it should is an error."""
        for name in list(self.children):
            if self.runs(name):
                self.resume(name)
        failures = self.supervisor.stop()
        if failures:
            raise failures[0]
