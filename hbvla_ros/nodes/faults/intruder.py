# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A second program that commands the first arm: what a leader arm does that nobody unplugged."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

import rclpy
from rclpy.signals import SignalHandlerOptions

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.nodes.adapters import ForwardCommand

NAME = 'leader_arm'
# Who publishes a message does not travel with it. This does, and nobody reads it.
MARK = 77


def is_intrusion(message: Any) -> bool:
    """Whether a command is this program's."""
    return bool(message.layout.data_offset == MARK)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command the arm until a signal comes."""
    parser = argparse.ArgumentParser(prog=NAME, description=__doc__)
    parser.add_argument('--robot', required=True, help='profile name or path, with forward_command')
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    profile = RobotProfile.load(options.robot)
    adapter, pose = ForwardCommand(profile.arms[0]), profile.split(profile.start_pose)[0]
    message = adapter.build(pose, time.time())
    message.layout.data_offset = MARK
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(NAME)
    publisher = node.create_publisher(adapter.message_type, profile.arms[0].command_topic, 5)
    while True:
        publisher.publish(message)
        time.sleep(1.0 / profile.control_rate)


if __name__ == '__main__':
    sys.exit(main())
