# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Which topics of a bag are a robot's cameras, arms and instruction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hbvla_ros.control.profile import CameraProfile, RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.recordings.bag_file import Topic
from hbvla_ros.recordings.recording import Needs

CLOCK_TOPIC = '/clock'
_IMAGE_TYPES = ('sensor_msgs/msg/CompressedImage', 'sensor_msgs/msg/Image')
_JOINTS_TYPE = 'sensor_msgs/msg/JointState'
_TEXT_TYPE = 'std_msgs/msg/String'
_CLOCK_TYPE = 'rosgraph_msgs/msg/Clock'
# What policy_node listens to, with the name the launch files give it.
_INSTRUCTION_TOPICS = ('instruction', 'policy_node/instruction')


@dataclass(frozen=True)
class BagTopics:
    """Names of topics in one bag.

    Attributes:
        cameras: topic to camera.
        arms: topic to the numbers of the arms whose joints it has.
        instructions: topics that tell the task.
        simulated: whether the bag has its own clock.
        namespace: what stands before the profile's relative topics, empty for nothing.
    """

    cameras: Mapping[str, CameraProfile]
    arms: Mapping[str, tuple[int, ...]]
    instructions: tuple[str, ...]
    simulated: bool
    namespace: str

    @property
    def every(self) -> list[str]:
        """All of them."""
        clock = [CLOCK_TOPIC] if self.simulated else []
        return [*self.cameras, *self.arms, *self.instructions, *clock]


def find_topics(
    path: Path, there: Mapping[str, Topic], profile: RobotProfile, needs: Needs
) -> BagTopics:
    """Find what the profile names, in the one namespace that has all of it.

    Args:
        path: the bag, for messages.
        there: its topics.
        profile: robot whose topics it has.
        needs: only the cameras of the policy are looked for.

    Raises:
        HbvlaError: the profile lacks a camera, the bag lacks a topic, or one has another type.
    """
    known = {camera.name: camera for camera in profile.cameras}
    for name in needs.cameras:
        if name not in known:
            raise HbvlaError(
                f'{path}: the policy needs camera {name}, the profile {profile.name} has '
                f'{", ".join(known)}; give another robot profile'
            )
    wanted = {f'camera {name}': known[name].topic for name in needs.cameras}
    wanted |= {f'arm {arm.name}': arm.state_topic for arm in profile.arms}
    prefix = _namespace(path, there, profile, wanted)
    cameras = {full_name(prefix, known[name].topic): known[name] for name in needs.cameras}
    arms: dict[str, tuple[int, ...]] = {}
    for number, arm in enumerate(profile.arms):
        topic = full_name(prefix, arm.state_topic)
        arms[topic] = (*arms.get(topic, ()), number)
    texts = [full_name(prefix, topic) for topic in _INSTRUCTION_TOPICS]
    instructions = tuple(topic for topic in texts if topic in there)
    for topics, types in (
        (cameras, _IMAGE_TYPES), (arms, (_JOINTS_TYPE,)), (instructions, (_TEXT_TYPE,)),
    ):  # fmt: skip
        for topic in topics:
            if there[topic].type not in types:
                raise HbvlaError(
                    f'{path}: topic {topic} is of type {there[topic].type}, not '
                    f'{" or ".join(types)}; name another topic in the robot profile'
                )
    clock = there.get(CLOCK_TOPIC, Topic('', 0))
    simulated = clock.type == _CLOCK_TYPE and clock.messages > 0
    return BagTopics(cameras, arms, instructions, simulated, prefix)


def full_name(prefix: str, topic: str) -> str:
    """A profile's topic in a bag: relative ones stand in a namespace."""
    return topic if topic.startswith('/') else f'{prefix}/{topic}'


def _namespace(
    path: Path, there: Mapping[str, Topic], profile: RobotProfile, wanted: Mapping[str, str]
) -> str:
    """What stands before the profile's relative topics: a launch namespace, mostly nothing."""
    prefixes = {''}
    for topic in wanted.values():
        if not topic.startswith('/'):
            prefixes |= {n.removesuffix(f'/{topic}') for n in there if n.endswith(f'/{topic}')}
    complete = [p for p in prefixes if all(full_name(p, t) in there for t in wanted.values())]
    if len(complete) == 1 or '' in complete:
        return '' if '' in complete else complete[0]
    if complete:
        raise HbvlaError(
            f'{path}: has the topics of {profile.name} in several namespaces '
            f'({", ".join(sorted(complete))}); give a robot profile with absolute topics'
        )
    # Say what is missing where most is there.
    best = max(
        sorted(prefixes), key=lambda p: sum(full_name(p, t) in there for t in wanted.values())
    )
    what, topic = next((w, t) for w, t in wanted.items() if full_name(best, t) not in there)
    types = (_JOINTS_TYPE,) if what.startswith('arm') else _IMAGE_TYPES
    alike = sorted(name for name, info in there.items() if info.type in types)
    raise HbvlaError(
        f'{path}: no topic {full_name(best, topic)} ({what} of profile {profile.name}); of this '
        f'type there are {", ".join(alike) or "none"}; give a robot profile that names it'
    )
