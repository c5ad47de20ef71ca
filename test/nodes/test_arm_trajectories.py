# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The arm node before controllers that take trajectories, and how it comes to rest."""

from __future__ import annotations

import signal

import numpy as np
import pytest
import yaml
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.nodes.arm_node import ArmNode
from hbvla_ros.nodes.conversions import to_seconds
from hbvla_ros.resources import share_path

SPEED, ACCELERATION, JERK = 1.5, 6.0, 120.0


def write_profile(path, adapter, suffix):
    """The simulated robot with slow arms and another kind of driver."""
    content = yaml.safe_load(share_path('config', 'robots', 'aloha_sim.yaml').read_text())
    for arm in content['arms']:
        arm['adapter'], arm['command_topic'] = adapter, f'{arm["name"]}{suffix}'
        arm['gripper']['velocity'] = 5.0
        for kind, value in (
            ('velocity', SPEED),
            ('acceleration', ACCELERATION),
            ('jerk', JERK),
        ):
            arm[f'{kind}_limits']['joints'] = [value] * 6
    path.write_text(yaml.safe_dump(content))
    return str(path)


class Controllers(Node):
    """joint_trajectory_controllers of Humble and Jazzy with the desired state as their start.

    A new trajectory replaces the old one at once. Before its first point a cubic leads there from
    where the controller is; points that are past are jumped to; after the last it rests.
    """

    def __init__(self, profile, robot, **options):
        super().__init__('controllers', **options)
        self.robot, self.messages, self.late = robot, [], 0
        self._knots, self._parts = {}, {}
        self.trace = []
        parts = np.split(np.arange(14), 2)
        for arm, part in zip(profile.arms, parts, strict=True):
            self._parts[arm.name] = (arm, part)
            self.create_subscription(
                JointTrajectory, arm.command_topic, lambda m, n=arm.name: self._replace(n, m), 20
            )
        self.create_timer(0.01, self._turn)

    def _replace(self, name, message):
        arm, _ = self._parts[name]
        assert message.points and list(message.joint_names) == list(arm.names)
        start = to_seconds(message.header.stamp)
        now = self.robot.now()
        before = self._sample(name, now)
        knots = [(now, *before)] if before is not None else []
        for point in message.points:
            at = start + to_seconds(point.time_from_start)
            if at <= now:
                self.late += 1
                continue
            knots.append((at, np.array(point.positions), np.array(point.velocities)))
        self._knots[name] = knots
        self.messages.append((name, now, message))

    def _sample(self, name, now):
        """Position and velocity at ``now``, None before the first trajectory."""
        knots = self._knots.get(name)
        if not knots:
            return None
        if now >= knots[-1][0] or len(knots) == 1:
            return knots[-1][1], np.zeros(7)
        index = max(i for i, knot in enumerate(knots) if knot[0] <= now or i == 0)
        (t0, p0, v0), (t1, p1, v1) = knots[index], knots[index + 1]
        width = t1 - t0
        s = min(max((now - t0) / width, 0.0), 1.0)
        position = (
            (2 * s**3 - 3 * s**2 + 1) * p0 + (s**3 - 2 * s**2 + s) * width * v0
            + (3 * s**2 - 2 * s**3) * p1 + (s**3 - s**2) * width * v1
        )  # fmt: skip
        velocity = (
            (6 * s**2 - 6 * s) / width * (p0 - p1)
            + (3 * s**2 - 4 * s + 1) * v0 + (3 * s**2 - 2 * s) * v1
        )  # fmt: skip
        return position, velocity

    def _turn(self):
        now, row = self.robot.now(), []
        for name, (arm, part) in self._parts.items():
            sample = self._sample(name, now)
            if sample is None:
                return
            row += sample[0].tolist()
            pose = sample[0].copy()
            pose[-1] = arm.command.to_ratio(pose[-1])
            self.robot.pose[part] = pose
        if not self.trace or now > self.trace[-1][0]:
            self.trace.append((now, *row))


@pytest.fixture
def slow(tmp_path):
    return write_profile(tmp_path / 'jtc.yaml', 'joint_trajectory', '_controller/joint_trajectory')


@pytest.fixture
def controllers(graph, robot, slow, wait):
    """Controllers under an active arm node in simulated time."""
    robot.simulate()
    profile = RobotProfile.load(slow)
    node = graph.add(lambda **options: Controllers(profile, robot, **options))
    arms = graph.add(ArmNode, robot=slow, diagnostics_rate=10.0, use_sim_time=True)
    arms.start()
    assert wait(lambda: len(node.messages) >= 2)
    node.arms = arms
    return node


def ramp(profile, rise, rows=50):
    """A chunk that moves both waists apart, and then rests."""
    actions = np.tile(profile.start_pose, (rows + 10, 1))
    way = np.append(np.linspace(0.0, rise, rows), np.full(10, rise))
    actions[:, 0] += way
    actions[:, 7] -= way
    return actions


def points(message):
    stamp = to_seconds(message.header.stamp)
    return [stamp + to_seconds(point.time_from_start) for point in message.points]


def test_a_hold_is_single_points_at_rest_again_and_again(controllers, robot, profile, wait):
    assert wait(lambda: len(controllers.messages) > 8)
    for _, now, message in controllers.messages:
        (point,) = message.points
        assert points(message)[0] > now and list(point.velocities) == [0.0] * 7
        np.testing.assert_allclose(point.positions[:6], profile.arms[0].start_pose[:6], atol=1e-9)


def test_short_trajectories_that_lie_ahead_and_end_at_rest(controllers, robot, profile, wait):
    controllers.messages.clear()
    controllers.trace.clear()
    robot.send(ramp(profile, 1.5), delay=0.1)
    assert wait(lambda: robot.pose[0] > 1.49)
    robot.live(1.0)
    moving = [one for one in controllers.messages if len(one[2].points) > 1]
    assert len(moving) > 10
    period = 1.0 / profile.control_rate
    for _, _, message in moving:
        times = points(message)
        stamp = to_seconds(message.header.stamp)
        assert times[0] == pytest.approx(stamp + period)
        assert (np.diff(times) > 0.0).all() and list(message.points[-1].velocities) == [0.0] * 7
        step = np.diff([point.positions[0] for point in message.points], n=1)
        assert np.abs(step).max() <= SPEED * period * 1.001
        assert np.abs(np.diff(step)).max(initial=0.0) <= ACCELERATION * period**2 * 1.001
        # Four targets, and the way to rest from full speed with these limits.
        assert times[-1] - stamp < 0.16 + SPEED / ACCELERATION + ACCELERATION / JERK + 0.16
    trace = np.array(controllers.trace)
    times, path = trace[:, 0], trace[:, [1, 8]]
    assert path[-1] == pytest.approx([1.5, -1.5], abs=1e-6)
    speed = np.diff(path, axis=0) / np.diff(times)[:, np.newaxis]
    # The controller's own velocity is continuous: no message makes it jump. Where the machine held
    # up a message for longer than targets reach, the controller had begun to brake.
    assert np.percentile(np.abs(speed), 98) < SPEED * 1.1
    change = np.abs(np.diff(speed, axis=0)) / np.diff(times)[1:, np.newaxis]
    assert np.percentile(change, 98) < 1.5 * ACCELERATION
    assert controllers.late <= len(controllers.messages) // 20


def test_no_more_messages_means_rest_at_the_last_point(controllers, robot, profile, wait):
    """What a controller does when arm_node dies in the middle of a motion."""
    robot.send(ramp(profile, 1.5))
    assert wait(lambda: robot.pose[0] > 0.5)
    controllers.arms.executor.remove_node(controllers.arms)
    robot.live(0.1)
    left = [m for name, _, m in controllers.messages if name == 'left'][-1]
    assert wait(lambda: robot.now() > points(left)[-1] + 0.05)
    assert robot.pose[0] == pytest.approx(left.points[-1].positions[0])
    assert points(left)[-1] - to_seconds(left.header.stamp) < 0.75


def test_a_stop_replaces_the_trajectory_by_the_way_to_rest(controllers, robot, profile, wait):
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    guard = robot.create_publisher(String, 'stop', latched)
    assert wait(lambda: guard.get_subscription_count() == 1)
    robot.send(ramp(profile, 1.5))
    assert wait(lambda: robot.pose[0] > 0.3)
    guard.publish(String(data='button'))
    assert wait(lambda: robot.reported('arm_node', 'stopped'))
    robot.live(1.0)
    left = [message for name, _, message in controllers.messages if name == 'left']
    assert len(left[-1].points) == 1 and robot.pose[0] < 1.3
    # The last trajectory with a way is that of the stop: no target is followed in it any more.
    way = [message for message in left if len(message.points) > 1][-1]
    braking = SPEED / ACCELERATION + ACCELERATION / JERK + 3.0 / profile.control_rate
    assert points(way)[-1] - to_seconds(way.header.stamp) < braking
    assert way.points[-1].positions[0] == pytest.approx(robot.pose[0], abs=1e-6)


def test_nothing_is_cut_off_when_it_is_told_to_leave(graph, robot, tmp_path, wait, profile):
    """With drivers that take single positions it goes on until the arms are at rest."""
    slow = write_profile(tmp_path / 'stream.yaml', 'forward_command', '/commands')
    process = graph.process('arm_node', autostart=True, robot=slow)
    assert wait(lambda: len(robot.recorded()) > 2)

    def is_moving():
        recorded = robot.recorded()
        return recorded[-1][0] - recorded[-2][0] > 0.02

    # Again and again: on a machine that stood still a chunk is past before it is heard.
    for _ in range(20):
        robot.send(ramp(profile, 2.0))
        if wait(is_moving, 1.0):
            break
    assert is_moving()
    process.process.send_signal(signal.SIGTERM)
    assert process.wait_at_most(2.0) == 0
    robot.live(0.2)
    steps = np.diff(robot.recorded()[-30:, 0])
    period = 1.0 / profile.control_rate
    assert abs(steps[-1]) < 1e-6, 'the last command does not move'
    assert np.abs(np.diff(steps)).max() <= ACCELERATION * period**2 * 1.01
