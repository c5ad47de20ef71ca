# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The parts of a robot profile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class GripperMap:
    """Straight line between a robot's own gripper number and the ratio 0 closed .. 1 open.

    Attributes:
        closed: the robot's number when closed.
        open: the robot's number when open; may be the smaller one.
        unit: unit of those numbers.
    """

    closed: float
    open: float
    unit: str

    def to_ratio(self, value: ArrayLike) -> NDArray[np.float64]:
        """The robot's number to a ratio; not clipped, so a fault stays visible."""
        return (np.asarray(value, dtype=np.float64) - self.closed) / (self.open - self.closed)

    def from_ratio(self, ratio: ArrayLike) -> NDArray[np.float64]:
        """A ratio to the robot's number."""
        return self.closed + np.asarray(ratio, dtype=np.float64) * (self.open - self.closed)


@dataclass(frozen=True)
class ArmProfile:
    """One arm and its gripper.

    Attributes:
        name: such as ``left``.
        joints: joint names as the state topic gives them, in action order.
        gripper_joint: name of the gripper's joint in the state topic.
        state_topic: sensor_msgs/JointState, relative names honour the namespace.
        command_topic: where the adapter publishes.
        adapter: kind of command message, one of :data:`ADAPTERS`.
        group: joint group that the command names, empty unless the adapter is ``interbotix``.
        state_latency: how far the stamps of the joint states lie behind the measurement, in s.
        gripper_adapter: how the gripper is commanded, one of :data:`GRIPPER_ADAPTERS`.
        gripper_command_topic: topic or action of a gripper of its own, empty for ``arm``.
        gripper_command_name: its joint's name in that command, empty for ``arm``.
        gripper_hysteresis: a goal is sent when the opening moved by more than this ratio.
        observed: gripper as the state topic reports it.
        action: gripper as the policy emits it.
        command: gripper as the command topic expects it.
        lower, upper: position limits in rad.
        velocity: velocity limits in rad/s.
        acceleration: acceleration limits in rad/s^2.
        jerk: jerk limits in rad/s^3.
        gripper_velocity: gripper velocity limit in full travels per second.
        start_pose: joints in rad and gripper ratio.
    """

    name: str
    joints: tuple[str, ...]
    gripper_joint: str
    state_topic: str
    command_topic: str
    adapter: str
    group: str
    state_latency: float
    gripper_adapter: str
    gripper_command_topic: str
    gripper_command_name: str
    gripper_hysteresis: float
    observed: GripperMap
    action: GripperMap
    command: GripperMap
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    velocity: tuple[float, ...]
    acceleration: tuple[float, ...]
    jerk: tuple[float, ...]
    gripper_velocity: float
    start_pose: tuple[float, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Joint names followed by the gripper joint's name."""
        return (*self.joints, self.gripper_joint)


ADAPTERS = ('forward_command', 'joint_state', 'joint_trajectory', 'interbotix')
# ``arm``: the gripper is one more joint of the arm's own message.
GRIPPER_ADAPTERS = ('arm', 'parallel_gripper_action', 'interbotix_single')
ENCODINGS = ('auto', 'rgb8', 'bgr8')
STOP_SERVICE_TYPES = ('std_srvs/Trigger', 'std_srvs/Empty')


@dataclass(frozen=True)
class CameraProfile:
    """One camera: name in the checkpoint, topic, how it publishes.

    ``rate`` in Hz is what it should deliver; ``latency`` in s is how far its stamps lie behind
    the moment of exposure and is subtracted from them. ``encoding`` is the order of colours:
    ``auto`` believes the message, the others are for a driver that names it wrongly.
    """

    name: str
    topic: str
    type: str
    rate: float
    latency: float
    encoding: str


@dataclass(frozen=True)
class StopService:
    """A driver's own stop, called when a stop latches: name, and one of STOP_SERVICE_TYPES."""

    name: str
    type: str


@dataclass(frozen=True)
class SafetyProfile:
    """Bounds of the control loop, rad, ratio and s.

    Attributes:
        position_margin: kept free inside each joint limit.
        lag_bound: joints may differ this much between command and measurement while holding.
        gripper_lag_bound: the same for grippers, as a ratio of full travel.
        joint_state_timeout: older joint states mean: hold.
        chunk_timeout: no accepted chunk for so long means: report the policy as lost.
        image_timeout: older images are not given to the policy.
        image_skew: images of one observation may differ this much.
        blend: cross-fade of joints when a new chunk takes over.
        max_future: chunks that start later than this are refused.
        start_mismatch: a first target farther than this from the measured pose, in rad, is
            approached by the slow ramp.
        ramp_velocity: speed of that ramp in rad/s, of grippers in full travels per second.
        lag_stop: a moving joint this far from its command, in rad, ...
        lag_time: ... for so long, in s: stop.
        clamp_stop: targets clamped without interruption for so long, in s: stop.
        heartbeat_timeout: a node that was heard and is silent for so long, in s, counts as dead.
        horizon: how far ahead of now trajectories are sent to a controller, in s.
        frozen_timeout: the same image under new stamps for so long, in s: the camera is frozen.
    """

    position_margin: float
    lag_bound: float
    gripper_lag_bound: float
    joint_state_timeout: float
    chunk_timeout: float
    image_timeout: float
    image_skew: float
    blend: float
    max_future: float
    start_mismatch: float
    ramp_velocity: float
    lag_stop: float
    lag_time: float
    clamp_stop: float
    heartbeat_timeout: float
    horizon: float
    frozen_timeout: float
