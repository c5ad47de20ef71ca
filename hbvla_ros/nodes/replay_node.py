# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Plays a bag in the place of a robot: its cameras, joint states, instruction and time.

Commands and chunks that were recorded are left out: ``policy_node`` and ``arm_node`` make their
own. They run with ``use_sim_time``, so that the stamps in the bag are the present.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from builtin_interfaces.msg import Time
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes.bag_player import BagPlayer, Pace
from hbvla_ros.nodes.parameters import Parameter, declare, read
from hbvla_ros.nodes.run import main as run_main
from hbvla_ros.recordings.bag_file import BagFile, RawMessage
from hbvla_ros.recordings.bag_topics import CLOCK_TOPIC, BagTopics, find_topics
from hbvla_ros.recordings.recording import Needs

NAME = 'replay_node'
TABLE = (
    Parameter('bag', '', 'Bag to play: a folder, an .mcap or a .db3 file.'),
    Parameter('robot', 'aloha_sim', 'Robot profile: a name or the path of a profile .yaml.'),
    Parameter('cameras', '', "The policy's cameras, separated by commas; empty for all."),
    Parameter('rate', 1.0, 'Seconds of the bag played a second.', low=0.01, high=100.0),
    Parameter(
        'patience', 120.0, 'Wait so long for a subscriber of every topic, s; 0 starts at once.',
        low=0.0, high=3600.0,
    ),
    Parameter(
        'clock_rate', 100.0, 'Least messages on /clock per second, Hz.', low=1.0, high=1000.0
    ),
    Parameter(
        'linger', 1.0, 'The clock goes on so long after the last message, s.', low=0.0, high=60.0
    ),
)  # fmt: skip
_KINDS = {
    'sensor_msgs/msg/CompressedImage': CompressedImage,
    'sensor_msgs/msg/Image': Image,
    'sensor_msgs/msg/JointState': JointState,
    'std_msgs/msg/String': String,
    'rosgraph_msgs/msg/Clock': Clock,
}
_NANO = 1_000_000_000
_STOP_TIMEOUT = 1.0
# The graph is asked who else publishes no more often than this, s: it takes a while to answer.
_LOOK_PERIOD = 0.5


class ReplayNode(Node):
    """Plays one bag once, then is finished.

    Publishes the cameras and joint states of the profile and the latched ``instruction``, in its
    own namespace, and ``/clock``. It waits until each of them has a subscriber, and ends with an
    error if anybody else publishes joint states or images: that would be a robot.

    Args:
        **options: passed on to rclpy's node.

    Raises:
        HbvlaError: a parameter has the wrong type or range.
    """

    def __init__(self, **options: Any) -> None:
        """Declare the parameters."""
        super().__init__(NAME, **options)
        try:
            declare(self, TABLE)
        except HbvlaError:
            self.destroy_node()
            raise
        self._player: BagPlayer | None = None
        self._names: dict[str, str] = {}
        # ROS topics that only a robot would publish as well.
        self._exclusive: list[str] = []
        self._looked, self._intruder = -float('inf'), ''

    @property
    def finished(self) -> bool:
        """Whether everything has been played."""
        return self._player is not None and self._player.done and not self._player.failure

    @property
    def failure(self) -> str:
        """Why it cannot go on, empty while it can."""
        return self._player.failure if self._player is not None else ''

    @property
    def played(self) -> int:
        """Messages so far."""
        return self._player.played if self._player is not None else 0

    def start(self) -> None:
        """Look into the bag, and begin to wait for subscribers.

        Raises:
            HbvlaError: no bag, not readable, or not of this robot.
        """
        values = read(self, TABLE)
        if not values['bag']:
            raise HbvlaError('parameter bag is empty: give a bag folder')
        path, profile = Path(values['bag']), RobotProfile.load(values['robot'])
        named = [name.strip() for name in values['cameras'].split(',') if name.strip()]
        cameras = named or [camera.name for camera in profile.cameras]
        with BagFile(path) as bag:
            there = bag.topics
            topics = find_topics(path, there, profile, Needs(tuple(cameras), 0, profile.robot))
        self._make_publishers(topics, profile, {n: there[n].type for n in topics.every})
        pace = Pace(
            values['rate'], 1.0 / values['clock_rate'], values['patience'], values['linger']
        )
        self._player = BagPlayer(BagFile(path), topics.every, pace, self)
        self.get_logger().info(f'{path}: waiting for subscribers, then playing at {pace.rate:g}x')
        self._player.start()

    def stop(self) -> None:
        """End the playing."""
        if self._player is not None:
            self._player.stop(_STOP_TIMEOUT)
            self.get_logger().info(f'{self._player.played} messages played')

    def _make_publishers(
        self, topics: BagTopics, profile: RobotProfile, kinds: dict[str, str]
    ) -> None:
        """A publisher a topic, with the profile's name: the bag's namespace is not ours."""
        arms = {
            topic: profile.arms[numbers[0]].state_topic for topic, numbers in topics.arms.items()
        }
        cameras = {topic: camera.topic for topic, camera in topics.cameras.items()}
        self._names = {**cameras, **arms, **dict.fromkeys(topics.instructions, 'instruction')}
        quality = QoSProfile(depth=50)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        # Two topics of the bag may be one here: the two on which instructions are told.
        types = {name: _KINDS[kinds[topic]] for topic, name in self._names.items()}
        self._publishers_by_name = {
            name: self.create_publisher(kind, name, latched if name == 'instruction' else quality)
            for name, kind in types.items()
        }
        self._exclusive = [*cameras.values(), *arms.values()]
        self._clock = self.create_publisher(Clock, CLOCK_TOPIC, 1)

    # Called by the player, on its thread.

    def missing(self) -> list[str]:
        """Topics that nobody listens to yet."""
        return [
            name
            for name, publisher in self._publishers_by_name.items()
            if publisher.get_subscription_count() == 0
        ]

    def intruder(self) -> str:
        """Who else publishes what is played, empty if nobody."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_PERIOD:
            self._looked = now
            self._intruder = next(filter(None, map(self._other, self._exclusive)), '')
        return self._intruder

    def _other(self, name: str) -> str:
        if self.count_publishers(name) < 2:
            return ''
        others = [
            info.node_name
            for info in self.get_publishers_info_by_topic(name)
            if (info.node_name, info.node_namespace) != (self.get_name(), self.get_namespace())
        ]
        return f'{(others or ["another replay_node"])[0]} publishes {name} as well'

    def on_message(self, message: RawMessage) -> None:
        """A message of the bag is due."""
        if message.topic == CLOCK_TOPIC:
            self._clock.publish(bytes(message.data))
        else:
            self._publishers_by_name[self._names[message.topic]].publish(bytes(message.data))

    def on_clock(self, nanoseconds: int) -> None:
        """It is so late in the bag."""
        whole, rest = divmod(nanoseconds, _NANO)
        self._clock.publish(Clock(clock=Time(sec=whole, nanosec=rest)))


def main() -> None:
    """Run the node as a process."""
    run_main(NAME, ReplayNode)


if __name__ == '__main__':
    main()
