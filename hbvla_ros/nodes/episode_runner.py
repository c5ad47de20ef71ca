# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Runs episodes on a graph that is up: sets the seed, waits for the end, keeps the record.

A program rather than a node of the robot: it prints one JSON object a line on standard output
(``ready``, ``progress``, ``episode``, ``error``, ``done``) for whoever started the graph, and
writes each episode's motion to an ``.npz`` file.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import UInt64
from std_srvs.srv import Trigger

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes.episode_recorder import EpisodeRecorder

NAME = 'episode_runner'
SIMULATOR = 'sim_robot_node'
_MANAGED = ('policy_node', 'arm_node')
_START_SECONDS = 300.0
_RESET_SECONDS = 15.0
# A runner that is held up while the scene settles has missed the start, and begins once more.
_RESETS = 3
# For the last joint states of an episode to arrive after the news that it is over.
_LAST_SECONDS = 5.0
# Without a tick of simulated time for so long, nothing will come any more.
_STALL_SECONDS = 15.0
# Simulated time in which a policy must have sent its first chunk.
_FIRST_CHUNK_SECONDS = 5.0


class EpisodeRunner(Node):
    """Talks to the simulated robot, the policy and the arms over DDS."""

    def __init__(self, robot: str, max_seconds: float, report: Callable[..., None]) -> None:
        """Subscribe.

        Args:
            robot: profile name or path.
            max_seconds: simulated time after which an episode has failed.
            report: called with an event name and its values.
        """
        super().__init__(NAME)
        self._max_seconds, self._report = max_seconds, report
        self._recorder = EpisodeRecorder(self, RobotProfile.load(robot))
        self._status: dict[str, str] = {}
        self._states: dict[str, str] = {}
        self._messages: dict[str, str] = {}
        self.checkpoint = ''
        self._wanted = ''
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(
            DiagnosticStatus, f'{SIMULATOR}/status', self._receive_status, latched
        )
        self.create_subscription(DiagnosticArray, '/diagnostics', self._receive_diagnostics, 10)
        self._seeds = self.create_publisher(UInt64, f'{SIMULATOR}/episode', 5)
        self._arms = self.create_client(Trigger, 'arm_node/reset')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

    def wait_until_ready(self) -> None:
        """Wait for a running simulation, an active policy and active arms.

        Raises:
            HbvlaError: one of them does not come.
        """

        def ready() -> bool:
            active = all(self._states.get(name) == 'active' for name in _MANAGED)
            known = self._seeds.get_subscription_count() > 0 and self._arms.service_is_ready()
            return active and bool(self._status) and known

        if not self._wait(ready, _START_SECONDS):
            late = [name for name in _MANAGED if self._states.get(name) != 'active']
            name = (late or [SIMULATOR])[0]
            said = self._messages.get(name, 'nothing was heard from it')
            raise HbvlaError(f'{name}: not running after {_START_SECONDS:.0f} s ({said})')

    def run(self, seed: int, folder: Path) -> dict[str, Any]:
        """One episode; its motion goes to ``folder``.

        Raises:
            HbvlaError: the simulation stands still or the policy sends nothing.
        """
        self._begin(seed)
        start = float(self._status['time']) - float(self._status['elapsed'])
        began, since = self._recorder.clock, self._recorder.clock_heard
        self._wait(self._is_over, None)
        status, recorder = self._status, self._recorder
        end = float(status['time'])
        path = folder / f'episode_{seed}.npz'
        result = {
            'seed': seed,
            'instruction': status['instruction'],
            'success': status['success'] == '1',
            'stage': int(status['stage']),
            'duration': end - start,
            'chunks': recorder.chunks,
            'latencies': list(recorder.latencies),
            'trace': str(path),
            'real_time_factor': (recorder.clock - began) / max(recorder.clock_heard - since, 1e-6),
        }
        self._wait(lambda: recorder.has_heard_until(end), _LAST_SECONDS)
        np.savez(path, **recorder.trace(start, end))  # type: ignore[arg-type]
        return result

    def _begin(self, seed: int) -> None:
        """Reset the simulation and wait until its scene has settled."""
        wanted = self._wanted = str(seed)

        def settling() -> bool:
            return self._status['seed'] == wanted and not self._status['instruction']

        def settled() -> bool:
            return self._status['seed'] == wanted and bool(self._status['instruction'])

        for _ in range(_RESETS):
            self._seeds.publish(UInt64(data=seed))
            heard = self._wait(settling, _RESET_SECONDS) and self._rest_the_arms()
            if heard and settling():
                # From here on everything heard belongs to this episode, but for the last of the
                # settling, which the trace leaves out.
                self._recorder.clear()
                self._wait(settled, None)
                return
        raise HbvlaError(f'{SIMULATOR}: does not start the episode of seed {seed}')

    def _rest_the_arms(self) -> bool:
        """The reset moved the arms as a hand would: what they held before no longer counts."""
        answer = self._arms.call_async(Trigger.Request())
        return self._wait(answer.done, _RESET_SECONDS)

    def _is_over(self) -> bool:
        elapsed = float(self._status['elapsed'])
        if not self._recorder.chunks and elapsed > _FIRST_CHUNK_SECONDS:
            said = self._messages.get('policy_node', 'it reports nothing')
            raise HbvlaError(f'policy_node: no chunk in {elapsed:.0f} s ({said})')
        return self._status['success'] == '1' or elapsed >= self._max_seconds

    def _wait(self, condition: Callable[[], bool], seconds: float | None) -> bool:
        """Spin until the condition holds; False after ``seconds``, never without them."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not condition():
            self._executor.spin_once(timeout_sec=0.1)
            now = time.monotonic()
            if deadline is not None and now > deadline:
                return False
            if deadline is None and now - self._recorder.clock_heard > _STALL_SECONDS:
                raise HbvlaError(f'{SIMULATOR}: no /clock for {_STALL_SECONDS:.0f} s')
        return True

    def _receive_status(self, message: DiagnosticStatus) -> None:
        self._status = {pair.key: pair.value for pair in message.values}
        if self._status['instruction'] and self._status['seed'] == self._wanted:
            self._report(
                'progress',
                seed=int(self._status['seed']),
                elapsed=float(self._status['elapsed']),
                stage=int(self._status['stage']),
            )

    def _receive_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            name = status.name.strip('/')
            self._messages[name] = status.message
            for pair in status.values:
                if pair.key == 'state':
                    self._states[name] = pair.value
                elif pair.key == 'checkpoint':
                    self.checkpoint = pair.value


def report(event: str, **values: Any) -> None:
    """Print one event."""
    print(json.dumps({'event': event, **values}), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the episodes that the command line names; 0 when all were run, 2 after an error."""
    parser = argparse.ArgumentParser(prog=NAME, description=__doc__)
    parser.add_argument('--seeds', type=int, nargs='+', required=True, help='one an episode')
    parser.add_argument('--folder', type=Path, required=True, help='where the motion goes')
    parser.add_argument('--robot', default='aloha_sim', help='profile name or path')
    parser.add_argument('--max-seconds', type=float, default=16.0, help='limit of an episode')
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    rclpy.init(args=[])
    try:
        runner = EpisodeRunner(options.robot, options.max_seconds, report)
        runner.wait_until_ready()
        report('ready', checkpoint=runner.checkpoint)
        for seed in options.seeds:
            report('episode', **runner.run(seed, options.folder))
        report('done')
    except HbvlaError as error:
        report('error', message=str(error))
        return 2
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
