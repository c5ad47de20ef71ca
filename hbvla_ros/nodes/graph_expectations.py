# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What a robot profile expects on the ROS 2 graph: topics, types, quality of service, rates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rclpy.duration import Infinite
from rclpy.qos import (
    DurabilityPolicy,
    LivelinessPolicy,
    QoSProfile,
    ReliabilityPolicy,
)

from hbvla_ros.control.profile import ArmProfile, RobotProfile

# By name and not by class: the messages of a vendor need not be installed to look for them.
_COMMANDS = {
    'forward_command': 'std_msgs/msg/Float64MultiArray',
    'joint_state': 'sensor_msgs/msg/JointState',
    'joint_trajectory': 'trajectory_msgs/msg/JointTrajectory',
    'interbotix': 'interbotix_xs_msgs/msg/JointGroupCommand',
}
_IMAGES = {'compressed': 'sensor_msgs/msg/CompressedImage', 'raw': 'sensor_msgs/msg/Image'}


@dataclass(frozen=True)
class Expectation:
    """One topic and what our end of it is like.

    Attributes:
        what: in words, such as ``camera cam_high``.
        topic: as the profile has it, relative to the namespace unless it begins with ``/``.
        type: such as ``sensor_msgs/msg/JointState``.
        quality: of our publisher or subscription.
        commanded: whether we publish there and the robot listens.
        required: whether the other side has to be there.
        rate: what it should deliver, Hz; 0 where that is not measured.
        timeout: longest silence that the safety settings allow, s.
    """

    what: str
    topic: str
    type: str
    quality: QoSProfile
    commanded: bool = False
    required: bool = True
    rate: float = 0.0
    timeout: float = 0.0


def expectations(profile: RobotProfile) -> list[Expectation]:
    """All topics between our nodes and a robot, then those where others talk to our nodes."""
    found = [each for arm in profile.arms for each in _of_arm(arm, profile)]
    best_effort = _quality(1, reliability=ReliabilityPolicy.BEST_EFFORT)
    found += [
        Expectation(
            f'camera {camera.name}',
            camera.topic,
            _IMAGES[camera.type],
            best_effort,
            rate=camera.rate,
            timeout=profile.safety.image_timeout,
        )
        for camera in profile.cameras
    ]
    latched = _quality(5, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    string, chunk = 'std_msgs/msg/String', 'trajectory_msgs/msg/JointTrajectory'
    found += [
        Expectation('instructions', 'instruction', string, latched, required=False),
        Expectation('chunks', 'action_chunks', chunk, _quality(5), required=False),
    ]
    return found


def _quality(depth: int, **policies: Any) -> QoSProfile:
    """Quality of service of one of our ends, in full: what is left open counts as 0 s."""
    times = dict.fromkeys(('deadline', 'lifespan', 'liveliness_lease_duration'), Infinite)
    return QoSProfile(depth=depth, liveliness=LivelinessPolicy.AUTOMATIC, **times, **policies)


def _of_arm(arm: ArmProfile, profile: RobotProfile) -> Iterator[Expectation]:
    yield Expectation(
        f'joint states of arm {arm.name}',
        arm.state_topic,
        'sensor_msgs/msg/JointState',
        _quality(5, reliability=ReliabilityPolicy.BEST_EFFORT),
        rate=profile.joint_state_rate,
        timeout=profile.safety.joint_state_timeout,
    )
    commands = _quality(1)
    yield Expectation(
        f'commands of arm {arm.name}',
        arm.command_topic,
        _COMMANDS[arm.adapter],
        commands,
        commanded=True,
    )
    gripper, topic = f'gripper of arm {arm.name}', arm.gripper_command_topic
    if arm.gripper_adapter == 'interbotix_single':
        single = 'interbotix_xs_msgs/msg/JointSingleCommand'
        yield Expectation(gripper, topic, single, commands, commanded=True)
    elif arm.gripper_adapter == 'parallel_gripper_action':
        # Every action server has this topic; its own one tells of the type.
        yield Expectation(
            gripper,
            f'{topic}/_action/feedback',
            'control_msgs/action/ParallelGripperCommand_FeedbackMessage',
            _quality(10),
        )
        yield Expectation(
            gripper,
            f'{topic}/_action/status',
            'action_msgs/msg/GoalStatusArray',
            _quality(1, durability=DurabilityPolicy.TRANSIENT_LOCAL),
        )
