# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A recorded bag against a policy, offline: no DDS, no clock but the bag's, the same every time.

The bag's messages pass in the order of their receipt through the code that takes live ones
(:mod:`hbvla_ros.control.aligner`); inferences start when the policy node would start them, end
after the latency that was injected, and their chunks go through chunk clock and safety stage at
the robot's control rate. It is open loop: what the policy commands changes nothing in the bag.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from hbvla_ros.control.inference import PolicyLike, check_policy
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.control.schedule import InferenceSchedule
from hbvla_ros.control.streams import StreamCounters
from hbvla_ros.evaluation.latency_traces import LatencyTrace
from hbvla_ros.evaluation.replay_arms import FOLLOWING, ArmSide, Tick
from hbvla_ros.evaluation.replay_policy import Inference, Instant, PolicySide
from hbvla_ros.recordings.bag_ingest import Ingest, seconds
from hbvla_ros.recordings.bag_stream import NANO, StreamMessage
from hbvla_ros.recordings.bag_topics import CLOCK_TOPIC, BagTopics
from hbvla_ros.recordings.pose_tracks import PoseTracks
from hbvla_ros.recordings.rosbag import decode_image

# After the last message time goes on for so long, s, beyond the time-out of the joint states: the
# arms must be seen to hold.
_AFTERWARDS = 0.25
_NEVER = float('inf')


class Recorded(Protocol):
    """What the bag says the arms were to do: commands, or measured poses in their place."""

    @property
    def topics(self) -> list[str]:
        """Topics of the bag that it is told on."""

    @property
    def poses(self) -> PoseTracks:
        """Poses over time."""

    def add(self, topic: str, content: Any, now: float) -> None:
        """Take a message."""


@dataclass(frozen=True)
class ReplaySettings:
    """How a bag is replayed; what the nodes have as parameters has their names and defaults.

    Attributes:
        replan_fraction: share of a chunk's time after which the next inference is due.
        inference_period: s between two inferences instead; 0 goes by the fraction.
        inference_deadline: s after which a chunk is dropped.
        hold_on_loss: whether the arms hold as soon as a camera or an arm is lost, instead of when
            the present chunk ends.
        instruction: task in words until the bag tells another.
        arms: whether the arms are taken to ``follow`` or to be where they were ``recorded``.
        temporal_ensemble: weight of the average over overlapping chunks, None (in place of the
            parameter's -1) for the newest alone.
    """

    replan_fraction: float = 0.5
    inference_period: float = 0.0
    inference_deadline: float = 5.0
    hold_on_loss: bool = False
    instruction: str = ''
    arms: str = FOLLOWING
    temporal_ensemble: float | None = None


@dataclass(frozen=True)
class Replayed:
    """Everything that happened.

    Attributes:
        inferences: in the order they started.
        ticks: turns of the control loop.
        counters: what became of each stream's messages.
        clock_jumps: how often the time of the commands went back.
        stop: why the arms were stopped for good, empty if they were not.
        messages: how many there were.
        last: s from the first to the last message.
        hold_after: s from the last message to the hold that stayed, None if there was none.
    """

    inferences: list[Inference]
    ticks: list[Tick]
    counters: dict[str, StreamCounters]
    clock_jumps: int
    stop: str
    messages: int
    last: float
    hold_after: float | None


class Replay:
    """One replay; runs once.

    Args:
        policy: the policy.
        profile: the robot.
        topics: which topics of the bag are what.
        trace: how long each inference takes.
        settings: the rest.
        recorded: takes what the bag commanded; None for nothing to compare with.

    Raises:
        HbvlaError: the policy is not for this robot.
    """

    def __init__(
        self,
        policy: PolicyLike,
        profile: RobotProfile,
        topics: BagTopics,
        trace: LatencyTrace,
        settings: ReplaySettings,
        recorded: Recorded | None = None,
    ) -> None:
        """Prepare; nothing runs before :meth:`run`."""
        cameras = check_policy(policy, profile)
        self._topics, self._recorded, self._profile = topics, recorded, profile
        self._ingest = Ingest(profile, cameras, topics.simulated, settings.instruction)
        schedule = InferenceSchedule(settings.replan_fraction, settings.inference_period)
        self._arms = ArmSide(
            profile, self._ingest, topics.simulated, settings.arms,
            lambda: self._policy.waiting(), settings.temporal_ensemble,
        )  # fmt: skip
        self._policy = PolicySide(
            policy, profile, cameras, self._ingest, schedule, trace, decode_image, self._arms,
            settings.inference_deadline, settings.hold_on_loss,
        )  # fmt: skip
        self._period = round(NANO / profile.control_rate)
        # The clock that ticks and replies go by, ns: that of receipt, or ``/clock``.
        self._time: int | None = None
        self._tick_due: float = _NEVER
        self._reply_due: float = _NEVER
        # Of the newest message: when the first one was, this one was, the system clock then.
        self._origin = self._received = self._clock = 0

    def run(self, messages: Iterator[StreamMessage]) -> Replayed:
        """Let every message pass, and then the time in which the arms come to hold.

        Raises:
            HbvlaError: a message is damaged, or of another robot.
        """
        count = 0
        for message in messages:
            self._origin = message.received if count == 0 else self._origin
            self._take(message)
            count += 1
        last = (self._received - self._origin) / NANO
        self._go_on()
        return Replayed(
            self._policy.inferences,
            self._arms.ticks,
            self._ingest.counters,
            self._arms.clock_jumps,
            self._arms.stop,
            count,
            last,
            self._hold_after(last),
        )

    def _take(self, message: StreamMessage) -> None:
        """Time passes until the message, then it is there."""
        if not self._topics.simulated:
            # What is due before it goes by the clock before it.
            self._pass_time(message.received)
        self._received, self._clock = message.received, message.clock
        topic, content = message.topic, message.content
        instant = self._instant(message.received)
        if topic == CLOCK_TOPIC:
            self._ingest.simulate(seconds(content.clock))
            self._pass_time(content.clock.sec * NANO + content.clock.nanosec)
        elif topic in self._topics.cameras:
            camera, stamp = self._topics.cameras[topic], seconds(content.header.stamp)
            self._ingest.image(camera, stamp, content.data, content)
        elif topic in self._topics.arms:
            arms = self._topics.arms[topic]
            self._ingest.joints(arms, content, instant.received, instant.clock)
        elif topic in self._topics.instructions and self._ingest.instruct(content.data):
            self._policy.flush('another instruction')
        if self._recorded is not None and topic in self._recorded.topics:
            self._recorded.add(topic, content, instant.now)
        if self._time is not None:  # simulated time may not have begun
            self._poll(self._time)

    def _go_on(self) -> None:
        """Nothing is heard any more, but clocks go on."""
        rest = self._profile.safety.joint_state_timeout + _AFTERWARDS
        for _ in range(round(rest * NANO / self._period)):
            self._received += self._period
            self._clock += self._period
            time = (self._time or 0) + self._period
            if self._topics.simulated:
                self._ingest.simulate(time / NANO)
            self._pass_time(time)
            self._poll(time)

    def _pass_time(self, until: int) -> None:
        """Replies and ticks that are due by ``until`` (ns) happen."""
        if self._time is None:
            self._tick_due = until
        elif until < self._time:
            # As timers of a ROS clock do that was set back; what computes goes on computing.
            self._tick_due = until + self._period
            self._reply_due -= self._time - until
        self._time = until
        while (due := min(self._tick_due, self._reply_due)) <= until:
            # Simulated time moves in leaps: nobody knows what was between two of them.
            at = until if self._topics.simulated else int(due)
            instant = self._instant(at)
            if self._reply_due <= self._tick_due:
                self._reply_due = _NEVER
                self._policy.finish(instant)
                self._poll(at)
            else:
                missed = (at - int(self._tick_due)) // self._period
                self._tick_due += (missed + 1) * self._period
                self._arms.tick(instant)

    def _poll(self, at: int) -> None:
        """Look whether an inference is due, as the node does at every frame and in between."""
        if self._policy.poll(self._instant(at)):
            self._reply_due = at + self._policy.due_in * NANO

    def _instant(self, at: int) -> Instant:
        """The moment ``at`` ns on the clock of ticks and replies."""
        received = self._received if self._topics.simulated else at
        clock = self._clock + received - self._received
        return Instant(
            (received - self._origin) / NANO,
            received * 1e-9,
            clock * 1e-9,
            self._ingest.now(clock * 1e-9),
        )

    def _hold_after(self, last: float) -> float | None:
        """Seconds from the last message to the first tick of the hold that lasts to the end."""
        start = None
        for tick in reversed(self._arms.ticks):
            if not tick.holding:
                break
            start = tick.instant.elapsed
        return None if start is None else max(0.0, start - last)
