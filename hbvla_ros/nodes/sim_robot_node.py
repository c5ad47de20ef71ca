# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The simulated two-arm robot as a robot: same topics, same commands, its own clock.

Besides what a robot has, it publishes ``/clock`` and how the episode goes, and starts another
episode on request. Each reset clears the instruction until the scene has settled, so that nobody
acts on the episode before.
"""

from __future__ import annotations

from concurrent.futures import TimeoutError as ResetTimeout
from functools import partial
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Bool, Int32, String, UInt64
from std_srvs.srv import Trigger

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes import diagnostics
from hbvla_ros.nodes.adapters import CommandAdapter, make_adapter
from hbvla_ros.nodes.conversions import encode_jpeg, joint_state, raw_image, to_time
from hbvla_ros.nodes.parameters import Parameter, declare, read
from hbvla_ros.nodes.run import main as run_main
from hbvla_ros.nodes.world import Episode, Images, Pace, Vector, World

NAME = 'sim_robot_node'
TABLE = (
    Parameter('robot', 'aloha_sim', 'Robot profile: a name or the path of a profile .yaml.'),
    Parameter('task', 'pick_place', 'Task of all episodes.'),
    Parameter('seed', 0, 'Seed of the first episode.', low=0, high=2**31 - 1),
    Parameter('camera_size', 128, 'Height and width of the images, pixels.', low=32, high=960),
    Parameter('camera_rate', 0.0, "Images per second, Hz; 0 is the profile's.", low=0.0, high=60.0),
    Parameter('jpeg_quality', 95, 'Quality of compressed images.', low=10, high=100),
    Parameter(
        'real_time_factor',
        1.0,
        'Simulated seconds per second; 0 runs as fast as it can.',
        low=0.0,
        high=100.0,
    ),
    Parameter(
        'settle',
        1.0,
        'Simulated seconds after a reset before commands and the instruction count, s.',
        low=0.0,
        high=10.0,
    ),
    Parameter(
        'status_rate', 5.0, 'Messages on ~/status per simulated second, Hz.', low=0.1, high=50.0
    ),
)
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
# Drivers that are told one pose at a time.
_SIMULATED = ('forward_command', 'joint_state')
_RESET_TIMEOUT = 10.0
_STOP_TIMEOUT = 1.0


class SimRobotNode(Node):
    """Runs the simulated robot; not a lifecycle node, as a robot is not one either."""

    def __init__(self, **options: Any) -> None:
        """Declare parameters and build every entity; nothing moves before :meth:`start`."""
        super().__init__(NAME, **options)
        declare(self, TABLE)
        self._values = values = read(self, TABLE)
        self.profile = RobotProfile.load(values['robot'])
        self._check_drivers()
        self._frames = {camera.name: camera for camera in self.profile.cameras}
        rates = {camera.rate for camera in self.profile.cameras}
        pace = Pace(
            self.profile.joint_state_rate,
            values['camera_rate'] or max(rates),
            values['real_time_factor'],
            values['settle'],
        )
        self._world = World(self._make_simulation, pace, values['seed'], self)
        self._episode: Episode | None = None
        # While true a signal may end the call; see hbvla_ros.nodes.run.
        self.is_configuring = False
        self._next_status = 0.0
        self._build_robot()
        self._build_episode()

    def _make_simulation(self) -> Any:
        # Imported here, because the renderer is chosen with the import.
        from hbvla_ros.sim.simulation import AlohaSimulation

        values = self._values
        return AlohaSimulation(values['camera_size'], self.profile.joint_state_rate, values['task'])

    def _check_drivers(self) -> None:
        for arm in self.profile.arms:
            if arm.adapter not in _SIMULATED or arm.gripper_adapter != 'arm':
                raise HbvlaError(
                    f'profile {self.profile.name}: arm {arm.name} takes {arm.adapter} with gripper '
                    f'{arm.gripper_adapter}; the simulated robot takes {" or ".join(_SIMULATED)} '
                    'with gripper arm'
                )

    def _build_robot(self) -> None:
        self._clock_publisher = self.create_publisher(ClockMessage, '/clock', 1)
        self._cameras = {
            camera.name: self.create_publisher(
                CompressedImage if camera.type == 'compressed' else Image, camera.topic, 1
            )
            for camera in self.profile.cameras
        }
        self._joints = [
            self.create_publisher(JointState, arm.state_topic, 5) for arm in self.profile.arms
        ]
        first = 0
        for arm in self.profile.arms:
            part, adapter = slice(first, first + len(arm.names)), make_adapter(arm)
            first = part.stop
            self.create_subscription(
                adapter.message_type,
                arm.command_topic,
                partial(self._receive_command, adapter, part),
                1,
            )

    def _build_episode(self) -> None:
        latched = partial(self.create_publisher, qos_profile=_LATCHED)
        self._instructions = latched(String, 'instruction')
        self._successes = latched(Bool, '~/success')
        self._stages = latched(Int32, '~/stage')
        self._statuses = latched(DiagnosticStatus, '~/status')
        self.create_subscription(UInt64, '~/episode', self._receive_episode, 5)
        self.create_service(Trigger, '~/reset', self._reset)
        self._reporter = diagnostics.Reporter(self, self.profile.robot)
        self.create_timer(1.0, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def start(self) -> None:
        """Build the scene and let simulated time run.

        Raises:
            HbvlaError: no renderer on this machine.
        """
        self.is_configuring = True
        try:
            self._world.start()
        finally:
            self.is_configuring = False
        self.get_logger().info(f'simulated {self.profile.robot} is running')

    @property
    def failure(self) -> str:
        """Why the simulation has ended by itself, empty while it runs."""
        return self._world.failure

    def stop(self) -> None:
        """Stop simulated time."""
        self._world.stop(_STOP_TIMEOUT)

    def _receive_command(self, adapter: CommandAdapter, part: slice, message: Any) -> None:
        try:
            self._world.command(part, adapter.parse(message))
        except HbvlaError as error:
            self.get_logger().error(f'command ignored: {error}', throttle_duration_sec=1.0)

    def _receive_episode(self, message: UInt64) -> None:
        self._world.reset(int(message.data))

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            seed = self._world.reset().result(_RESET_TIMEOUT)
        except ResetTimeout:
            response.success, response.message = False, 'the simulation does not answer'
        else:
            response.success, response.message = True, f'seed {seed}'
        return response

    def on_step(self, now: float, positions: Vector, velocities: Vector) -> None:
        """Publish the clock, then every arm's joints as its driver would give them."""
        self._clock_publisher.publish(ClockMessage(clock=to_time(now)))
        arms = zip(
            self.profile.arms,
            self._joints,
            self.profile.split(positions),
            self.profile.split(velocities),
            strict=True,
        )
        for arm, publisher, position, velocity in arms:
            observed = arm.observed
            raw = np.append(position[:-1], observed.from_ratio(position[-1]))
            speed = np.append(velocity[:-1], velocity[-1] * (observed.open - observed.closed))
            publisher.publish(joint_state(arm.names, raw, now, speed))

    def on_images(self, now: float, images: Images) -> None:
        """Publish the cameras of the profile."""
        for name, publisher in self._cameras.items():
            if self._frames[name].type == 'compressed':
                message = encode_jpeg(images[name], now, name, self._values['jpeg_quality'])
            else:
                message = raw_image(images[name], now, name)
            publisher.publish(message)

    def on_episode(self, now: float, episode: Episode) -> None:
        """Publish what changed, and the whole status now and then."""
        before, self._episode = self._episode, episode
        if before is None or before.seed != episode.seed or before.elapsed > episode.elapsed:
            before = Episode(-1, '\0', not episode.success, -1, 0.0)  # differs in everything
        if before.success != episode.success:
            self._successes.publish(Bool(data=episode.success))
        if before.stage != episode.stage:
            self._stages.publish(Int32(data=episode.stage))
        if before.instruction != episode.instruction:
            self._instructions.publish(String(data=episode.instruction))
        elif before.success == episode.success and now < self._next_status:
            return
        self._next_status = now + 1.0 / self._values['status_rate']
        self._statuses.publish(self._status(now, episode))

    def _status(self, now: float, episode: Episode) -> DiagnosticStatus:
        text = 'success' if episode.success else 'running' if episode.instruction else 'settling'
        values = {
            'seed': episode.seed,
            'instruction': episode.instruction,
            'success': int(episode.success),
            'stage': episode.stage,
            'elapsed': episode.elapsed,
            'time': f'{now:.3f}',
        }
        name = self.get_fully_qualified_name()
        return diagnostics.status(name, self.profile.robot, diagnostics.OK, text, values)

    def _report(self) -> None:
        factor, wanted = self._world.achieved_factor, self._values['real_time_factor']
        slow = wanted > 0.0 and factor < 0.9 * wanted
        self._reporter.publish(
            diagnostics.WARN if slow else diagnostics.OK,
            'slower than asked' if slow else 'running',
            {'real time factor': factor, 'wanted': wanted, 'time': self._world.now},
            self._world.now,
        )


def main() -> None:
    """Run the node as a process."""
    run_main(NAME, SimRobotNode)


if __name__ == '__main__':
    main()
