# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A cast on its feet and a drill that watches it, for as long as a context lasts."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.evaluation.processes import ros_environment
from hbvla_ros.nodes.faults.cast import Cast, strict_profile
from hbvla_ros.nodes.faults.drill import Drill

# What keeps DDS on this machine.
_VARIABLES = ('ROS_AUTOMATIC_DISCOVERY_RANGE', 'ROS_LOCALHOST_ONLY')


@contextmanager
def on_stage(folder: Path, time_scale: float = 0.0, hold_on_loss: bool = True) -> Iterator[Drill]:
    """Make a cast and a drill in a ROS domain of their own; nothing has been started yet.

    Args:
        folder: profile and logs go there.
        time_scale: simulated seconds a second; 0 for real time.
        hold_on_loss: the parameter of the policy node.

    Raises:
        HbvlaError: a process did not leave as it should.
    """
    robot = strict_profile(folder)
    cast = Cast(folder, robot, time_scale, hold_on_loss)
    environment = ros_environment(cast.domain)
    os.environ.update({name: environment[name] for name in _VARIABLES if name in environment})
    context = Context()
    rclpy.init(
        context=context, domain_id=cast.domain, signal_handler_options=SignalHandlerOptions.NO
    )
    simulated = Parameter('use_sim_time', value=time_scale > 0.0)
    node = rclpy.create_node('fault_drill', context=context, parameter_overrides=[simulated])
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    over = threading.Event()

    def spin() -> None:
        while not over.is_set():
            executor.spin_once(timeout_sec=0.05)

    spinner = threading.Thread(target=spin, name='recorder', daemon=True)
    spinner.start()
    drill = Drill(node, RobotProfile.load(robot), cast, time_scale or 1.0)
    try:
        yield drill
    finally:
        over.set()
        spinner.join()
        drill.close()
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)
        cast.close()
