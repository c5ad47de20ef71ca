# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The control tick: chunk clock, safety stage, command adapters.

One single-threaded executor runs the tick and a few tiny callbacks; no image, no model and no
network of its own is ever in this process, so nothing can make a tick late. The node holds when
it has nothing valid to execute, whatever the reason.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.qos import QoSProfile
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from hbvla_ros.control.clock import ChunkClock
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.control.safety import SafetyStage, SafetyState
from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes import diagnostics
from hbvla_ros.nodes.adapters import make_adapter
from hbvla_ros.nodes.conversions import message_to_chunk
from hbvla_ros.nodes.joint_reader import JointReader
from hbvla_ros.nodes.lifecycle import ManagedNode
from hbvla_ros.nodes.parameters import Parameter
from hbvla_ros.nodes.run import main as run_main

NAME = 'arm_node'
TABLE = (
    Parameter('robot', 'aloha_sim', 'Robot profile: a name or the path of a profile .yaml.'),
    Parameter(
        'diagnostics_rate', 1.0, 'Reports on /diagnostics per second, Hz.', low=0.1, high=10.0
    ),
)
_WATCHDOG_RATE = 20.0


class ArmNode(ManagedNode):
    """Executes action chunks on the arms of one robot.

    Subscribes ``action_chunks`` and the profile's joint states, publishes the profile's command
    topics, serves ``~/reset``. Inactive it publishes nothing.
    """

    def __init__(self, **options: Any) -> None:
        """Declare the parameters; see :class:`ManagedNode` for the options."""
        super().__init__(NAME, TABLE, **options)
        self._entities: list[tuple[Any, Any]] = []
        self._tick_timer: Any = None

    def configure(self) -> None:
        """Read the profile and build everything that only listens."""
        values = self.parameters()
        self.profile = RobotProfile.load(values['robot'])
        safety = self.profile.safety
        self._chunk_clock = ChunkClock(self.profile.is_gripper, safety.blend, safety.max_future)
        self._stage, self._state = SafetyStage.of(self.profile), SafetyState()
        self._adapters = [make_adapter(arm) for arm in self.profile.arms]
        self._mode, self._fault, self._refusal = 'holding', '', ''
        self._accepted = self._refused = 0
        self._last_chunk = time.monotonic()
        self._ticks = diagnostics.RateMeter()
        self._joints = JointReader(self, self.profile)
        self._reporter = diagnostics.Reporter(self, self.profile.robot)
        self._publishers_of_arms = [
            self._keep(
                self.create_publisher(adapter.message_type, adapter.arm.command_topic, 1),
                self.destroy_publisher,
            )
            for adapter in self._adapters
        ]
        self._keep(
            self.create_subscription(
                JointTrajectory, 'action_chunks', self._receive_chunk, QoSProfile(depth=5)
            ),
            self.destroy_subscription,
        )
        self._keep(self.create_service(Trigger, '~/reset', self._reset), self.destroy_service)
        self._keep(
            self.create_timer(
                1.0 / values['diagnostics_rate'], self._report, clock=self.steady_clock
            ),
            self.destroy_timer,
        )
        self._keep(
            self.create_timer(1.0 / _WATCHDOG_RATE, self._watch, clock=self.steady_clock),
            self.destroy_timer,
        )

    def activate(self) -> None:
        """Start the tick, holding; chunks that arrived before do not count."""
        self._chunk_clock.flush()
        self._state = SafetyState(interventions=self._state.interventions)
        self._last_chunk = time.monotonic()
        # Now, not at the watchdog's next turn: the first command must not start at an old pose.
        self._check_joints()
        # Simulated time drives the tick itself; real time must not be moved by clock corrections.
        simulated = self.get_parameter('use_sim_time').value
        clock = self.get_clock() if simulated else self.steady_clock
        self._tick_timer = self.create_timer(
            1.0 / self.profile.control_rate, self._tick, clock=clock
        )

    def deactivate(self) -> None:
        """Send one last hold and stop the tick."""
        if self._tick_timer is None:
            return
        self.destroy_timer(self._tick_timer)
        self._tick_timer = None
        self._chunk_clock.flush()
        self._tick()

    def cleanup(self) -> None:
        """Remove what configure built."""
        while self._entities:
            entity, destroy = self._entities.pop()
            destroy(entity)
        for name in ('_joints', '_reporter'):
            if hasattr(self, name):
                getattr(self, name).destroy()
                delattr(self, name)

    def _keep(self, entity: Any, destroy: Any) -> Any:
        self._entities.append((entity, destroy))
        return entity

    def _receive_chunk(self, message: JointTrajectory) -> None:
        if not self.is_active:
            return
        try:
            chunk = message_to_chunk(message, self.profile.action_names)
        except HbvlaError as error:
            self._refuse(str(error))
            return
        if len(chunk.actions) == 0:
            self._chunk_clock.flush()
            return
        if self._fault:
            self._refuse(f'while holding: {self._fault}')
            return
        poses = self.profile.action_to_pose(chunk.actions)
        verdict = self._chunk_clock.offer(replace(chunk, actions=poses), self.now())
        if not verdict.accepted:
            self._refuse(verdict.reason)
            return
        self._accepted += 1
        self._last_chunk = time.monotonic()

    def _refuse(self, reason: str) -> None:
        self._refused += 1
        self._refusal = reason
        self.get_logger().warning(f'chunk refused: {reason}', throttle_duration_sec=1.0)

    def _tick(self) -> None:
        now = self.now()
        measured = None if self._fault else self._joints.newest()
        hold = self._stage.hold(self._state, measured)
        target = None if hold is None or self._fault else self._chunk_clock.target(now, hold)
        command, self._state = self._stage.command(self._state, target, measured, now)
        self._mode = 'holding' if target is None else 'running'
        self._ticks.tick()
        if command is not None:
            self._send(command, now)

    def _send(self, command: NDArray[np.float64], now: float) -> None:
        """Build the messages of all arms, then publish them: all arms or none."""
        parts = self.profile.split(command)
        messages = [a.build(part, now) for a, part in zip(self._adapters, parts, strict=True)]
        for publisher, message in zip(self._publishers_of_arms, messages, strict=True):
            publisher.publish(message)

    def _joint_fault(self) -> str:
        """Why there are no joint states to execute on, empty while there are."""
        age, measured = self._joints.age(), self._joints.newest()
        if measured is None:
            return 'no joint states yet'
        if age > self.profile.safety.joint_state_timeout:
            return f'no joint states for {age:.2f} s'
        doubted = np.flatnonzero(self._stage.doubted(measured))
        if len(doubted) == 0:
            return ''
        name, value = self.profile.action_names[doubted[0]], measured[doubted[0]]
        return f'{name} is measured at {value:.4g}, too far outside its limits to be true'

    def _watch(self) -> None:
        """On the monotonic clock: without joint states there is nothing to execute on."""
        if self.is_active:
            self._check_joints()

    def _check_joints(self) -> None:
        """Take note when joint states are lost and when they are back."""
        fault = self._joint_fault()
        if fault and not self._fault:
            self._chunk_clock.flush()
            self._fault = fault
            # Right after the start it is no fault that the drivers have not been heard. Two calls
            # on two lines: rclpy raises where one line logs at two severities.
            if self._joints.newest() is None:
                self.get_logger().warning(f'{fault}: holding')
            else:
                self.get_logger().error(f'{fault}: holding')
            self._tick()
        elif not fault and self._fault:
            self.get_logger().info('joint states are there: chunks are executed')
        self._fault = fault

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Forget all chunks and hold the measured pose, as after the robot was moved by hand."""
        self._chunk_clock.flush()
        self._state = SafetyState(interventions=self._state.interventions)
        response.success, response.message = True, 'holding'
        return response

    def _report(self) -> None:
        counts = self._state.interventions
        silent = time.monotonic() - self._last_chunk
        level, text = diagnostics.OK, f'{self.state_label}, {self._mode}'
        if self.is_active and silent > self.profile.safety.chunk_timeout:
            level, text = diagnostics.WARN, f'holding: no chunk for {silent:.1f} s'
        if self.is_active and self._fault:
            level, text = diagnostics.ERROR, f'holding: {self._fault}'
        values = {
            'state': self.state_label,
            'mode': self._mode,
            'tick rate': self._ticks.read(),
            'joint state rate': self._joints.rate.read(),
            'joint state age': self._joints.age(),
            'joint states refused': self._joints.refused,
            'chunks accepted': self._accepted,
            'chunks refused': self._refused,
            'last refusal': self._refusal,
            'chunk drained': self._chunk_clock.drained(self.now()),
            'clock jumps': self._chunk_clock.clock_jumps,
            'clamped not finite': counts.not_finite,
            'clamped position': counts.position,
            'clamped velocity': counts.velocity,
        }
        self._reporter.publish(level, text, values, self.now())


def main() -> None:
    """Run the node as a process."""
    run_main(NAME, ArmNode)


if __name__ == '__main__':
    main()
