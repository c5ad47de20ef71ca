# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A process that only sleeps and publishes: when it is late, the machine stood still.

Whoever measures how quickly nodes react needs to know what the machine did meanwhile. Each message
holds its number and when it was sent, s on the monotonic clock, which is one for all processes.
"""

from __future__ import annotations

import signal
import sys
import time
from array import array

import rclpy
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import Float64MultiArray

from hbvla_ros.evaluation.wire import CANARY_PERIOD

TOPIC = 'canary'


def main() -> int:
    """Publish until a signal comes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node('canary')
    publisher = node.create_publisher(Float64MultiArray, TOPIC, 500)
    number = 0
    while True:
        publisher.publish(Float64MultiArray(data=array('d', [float(number), time.monotonic()])))
        number += 1
        time.sleep(CANARY_PERIOD)


if __name__ == '__main__':
    sys.exit(main())
