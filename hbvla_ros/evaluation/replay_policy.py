# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The policy's side of a replay: which inferences start when, on what, and what becomes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from hbvla_ros.control.aligner import Aligned
from hbvla_ros.control.inference import Decoder, PolicyLike, Request, infer
from hbvla_ros.control.latency import LatencyTracker
from hbvla_ros.control.profile import CameraProfile, RobotProfile
from hbvla_ros.control.schedule import InferenceSchedule
from hbvla_ros.data import ActionChunk, Observation
from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.latency_traces import LatencyTrace, Reply
from hbvla_ros.recordings.bag_ingest import Ingest

ACCEPTED, UNFINISHED = 'accepted', 'unfinished'


@dataclass(frozen=True)
class Instant:
    """One moment on all clocks, in s.

    Attributes:
        elapsed: since the first message.
        received: on the clock that never goes back.
        clock: the robot's system clock.
        now: the clock of stamps and commands.
    """

    elapsed: float
    received: float
    clock: float
    now: float


@dataclass
class Inference:
    """One inference of a replay.

    Attributes:
        started: when.
        stamp: of its reference image, s.
        stamps: camera to the stamp of the image it was given, s.
        instruction: task in words.
        reply: what the latency trace said about it.
        observation: SHA-256 of what the policy was given, empty if it was given nothing.
        chunk: rows (K, A) as poses with their times, None where there is none.
        replied: when its end reached the arms, None if it did not.
        outcome: ``accepted``, or why no arm got its chunk.
    """

    started: Instant
    stamp: float
    stamps: dict[str, float]
    instruction: str
    reply: Reply
    observation: str = ''
    chunk: ActionChunk | None = None
    replied: Instant | None = None
    outcome: str = UNFINISHED


class Arms(Protocol):
    """Who executes chunks."""

    def offer(self, chunk: ActionChunk, instant: Instant) -> str:
        """A chunk of poses arrives; why it is refused, empty if it is not."""

    def flush(self) -> None:
        """Forget every chunk and hold."""


@dataclass
class PolicySide:
    """Goes by the schedule of the policy node; how long an inference takes is injected.

    Attributes:
        policy: the policy.
        profile: the robot.
        cameras: the profile's cameras that the policy needs.
        ingest: what was heard so far.
        schedule: when the next inference is due.
        trace: how long each takes.
        decode: image message to RGB.
        arms: take chunks, and are told to forget them.
        deadline: s after which a chunk is too late, whatever is in it.
        hold_on_loss: whether the arms are told to hold as soon as a camera or an arm is lost.
        inferences: all of them, in order.
        problem: why no observation could be made when one was last wanted.
        failure: what became of the last inference, empty if the arms got its chunk.
    """

    policy: PolicyLike
    profile: RobotProfile
    cameras: Sequence[CameraProfile]
    ingest: Ingest
    schedule: InferenceSchedule
    trace: LatencyTrace
    decode: Decoder
    arms: Arms
    deadline: float
    hold_on_loss: bool
    inferences: list[Inference] = field(default_factory=list)
    problem: str = ''
    failure: str = ''
    _running: Inference | None = None
    # Why the running inference's chunk is worthless, empty while it is not.
    _dropped: str = ''
    # Whether the arms have rows that they were not told to forget.
    _has_sent: bool = False
    _delays: LatencyTracker = field(default_factory=LatencyTracker)

    @property
    def due_in(self) -> float:
        """Seconds that the inference takes which is running; infinite if none is, or for ever."""
        return float('inf') if self._running is None else self._running.reply.seconds

    def flush(self, reason: str) -> None:
        """The arms hold, and what is under way is dropped: it was made for something else."""
        self.schedule.forget()
        self.arms.flush()
        self._dropped, self._has_sent = f'dropped: {reason}', False

    def poll(self, instant: Instant) -> bool:
        """Start an inference if one is due and there is something to make it of."""
        if self.hold_on_loss and self._has_sent:
            lost = self.ingest.lost(instant.received, instant.clock)
            if lost:
                self.flush(lost)
        if self._running is not None or not self._is_due(instant):
            return False
        aligned, problem = self.ingest.align(instant.received, instant.clock, self.schedule.is_new)
        self.problem = problem
        if aligned is None:
            return False
        self.schedule.start(instant.now, aligned.stamp)
        stamps = {name: frame.stamp for name, frame in aligned.frames.items()}
        reply = self.trace.next(instant.elapsed)
        self._running = Inference(instant, aligned.stamp, stamps, self.ingest.instruction, reply)
        self.inferences.append(self._running)
        self._dropped = ''
        self._compute(self._running, aligned)
        return True

    def _is_due(self, instant: Instant) -> bool:
        return self.schedule.is_due(instant.now, self._delays.percentile(95))

    def finish(self, instant: Instant) -> None:
        """The running inference ends."""
        inference, self._running = self._running, None
        assert inference is not None
        inference.replied = instant
        if inference.outcome == UNFINISHED:
            inference.outcome = self._sent(inference, instant)
        self.failure = '' if inference.outcome == ACCEPTED else inference.outcome

    def waiting(self) -> str:
        """Why the arms have nothing to execute, as far as the policy knows."""
        if self._running is None:
            return self.problem or self.failure or 'no inference yet'
        return self.failure or 'inference under way'

    def _sent(self, inference: Inference, instant: Instant) -> str:
        if inference.reply.lost:
            return 'lost: no reply'
        if self._dropped:
            return self._dropped
        if inference.reply.seconds > self.deadline:
            return f'dropped: later than the deadline of {self.deadline:g} s'
        assert inference.chunk is not None
        self.schedule.accept(inference.chunk)
        self._has_sent = True
        self._delays.add(instant.now - inference.chunk.observation_stamp)
        refusal = self.arms.offer(inference.chunk, instant)
        return f'refused: {refusal}' if refusal else ACCEPTED

    def _compute(self, inference: Inference, aligned: Aligned) -> None:
        """Do now what would be ready later; an error, too, is only known then."""
        watched = _Watched(self.policy)
        request = Request(aligned, self.cameras, inference.instruction)
        try:
            chunk = infer(watched, self.profile, request, self.decode).chunk
        except HbvlaError as error:
            inference.outcome = f'failed: {error}'
            return
        finally:
            inference.observation = watched.digest
        poses = self.profile.action_to_pose(chunk.actions)
        inference.chunk = ActionChunk(
            poses, chunk.start, chunk.step, chunk.observation_stamp, chunk.instruction,
            chunk.checkpoint,
        )  # fmt: skip


class _Watched:
    """A policy whose observations leave their digest behind."""

    def __init__(self, policy: PolicyLike) -> None:
        self._policy, self.digest = policy, ''

    @property
    def platform(self) -> Any:
        """Of the policy."""
        return self._policy.platform

    @property
    def checkpoint(self) -> str:
        """Of the policy."""
        return self._policy.checkpoint

    def act(self, observation: Observation) -> ActionChunk:
        """Ask the policy."""
        self.digest = observation_digest(observation)
        return self._policy.act(observation)

    def warmup(self) -> None:
        """Nothing to prepare."""


def observation_digest(observation: Observation) -> str:
    """SHA-256 over pictures, pose, instruction and stamp, bit by bit."""
    digest = hashlib.sha256()
    for name, image in sorted(observation.images.items()):
        digest.update(f'{name} {image.shape} {image.dtype};'.encode())
        digest.update(np.ascontiguousarray(image).tobytes())
    digest.update(np.asarray(observation.proprioception, dtype='<f8').tobytes())
    digest.update(observation.instruction.encode())
    digest.update(np.float64(observation.stamp).astype('<f8').tobytes())
    return digest.hexdigest()
