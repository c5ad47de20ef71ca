# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A second program that commands the first arm: what a leader arm does that nobody unplugged."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.signals import SignalHandlerOptions

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.nodes.adapters import make_adapter

NAME = 'leader_arm'


def intrusion(profile: RobotProfile) -> NDArray[np.float64]:
    """What it sends (n + 1,) to the first arm, always; nobody else sends just that."""
    start = profile.start_pose
    return profile.split(np.where(profile.is_gripper, start, start + np.pi * 1e-3))[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command the arm until a signal comes."""
    parser = argparse.ArgumentParser(prog=NAME, description=__doc__)
    parser.add_argument('--robot', required=True, help='profile name or path')
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    profile = RobotProfile.load(options.robot)
    adapter, pose = make_adapter(profile.arms[0]), intrusion(profile)
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(NAME)
    publisher = node.create_publisher(adapter.message_type, profile.arms[0].command_topic, 5)
    while True:
        publisher.publish(adapter.build(pose, time.time()))
        time.sleep(1.0 / profile.control_rate)


if __name__ == '__main__':
    sys.exit(main())
