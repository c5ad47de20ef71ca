# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""One policy and the thread that owns it, from loading to the last inference."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from hbvla_ros.control.profile import CameraProfile, RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes.gate import ChunkGate
from hbvla_ros.nodes.inference import (
    Outcome,
    PolicyFactory,
    PolicyLike,
    Request,
    check_policy,
    infer,
)
from hbvla_ros.nodes.worker import Worker


def reason_of(error: BaseException) -> str:
    """What went wrong, in one line."""
    if isinstance(error, HbvlaError):
        return str(error)
    return (repr(error).splitlines() or [''])[0]


@dataclass(frozen=True)
class Loaded:
    """A policy that fits the robot and has run once.

    Attributes:
        policy: the policy.
        cameras: the profile's cameras it needs, in its order.
        warm_up: s that its first run took.
    """

    policy: PolicyLike
    cameras: list[CameraProfile]
    warm_up: float


@dataclass(frozen=True)
class Finished:
    """The end of an inference.

    Attributes:
        outcome: None where it failed.
        error: None where it did not.
        sent: whether its chunk went out.
        seconds: s from the request to the end, on the monotonic clock.
    """

    outcome: Outcome | None
    error: BaseException | None
    sent: bool
    seconds: float


class Engine:
    """Runs one policy, at most one inference at a time: nothing ever waits in a queue."""

    def __init__(self, worker: Worker, loaded: Loaded, profile: RobotProfile) -> None:
        """Take over a thread and the policy that was loaded on it."""
        self._worker, self._profile = worker, profile
        self.policy, self.cameras, self.warm_up = loaded.policy, loaded.cameras, loaded.warm_up
        self._job: Future[tuple[Outcome, bool]] | None = None
        self._started = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether an inference has begun and was not collected."""
        return self._job is not None

    @property
    def running_for(self) -> float:
        """Seconds since the present inference began, 0 if there is none."""
        return 0.0 if self._job is None else time.monotonic() - self._started

    def start(self, request: Request, gate: ChunkGate) -> None:
        """Begin an inference; its chunk goes through the gate as soon as there is one."""
        sequence = gate.sequence
        self._started = time.monotonic()

        def work() -> tuple[Outcome, bool]:
            outcome = infer(self.policy, self._profile, request)
            began = time.perf_counter()
            sent = gate.send(outcome.chunk, sequence)
            return replace(outcome, publishing=time.perf_counter() - began), sent

        self._job = self._worker.submit(work)

    def collect(self) -> Finished | None:
        """The inference that has ended since the last call, None if there is none."""
        if self._job is None or not self._job.done():
            return None
        seconds, job, self._job = self.running_for, self._job, None
        error = job.exception()
        if error is not None:
            return Finished(None, error, False, seconds)
        outcome, sent = job.result()
        return Finished(outcome, None, sent, seconds)

    def close(self, timeout: float) -> bool:
        """Let the present inference end; True if the thread is gone within ``timeout`` s."""
        return self._worker.close(timeout)


class Loading:
    """A policy on its way: loaded, checked and warmed up on a thread that is to own it.

    While it goes on nothing else is held up, so that another engine may serve the arms.

    Args:
        make_policy: loads the policy from parameter values.
        values: the parameter values.
        profile: the robot that the policy must fit.
    """

    def __init__(
        self, make_policy: PolicyFactory, values: Mapping[str, Any], profile: RobotProfile
    ) -> None:
        """Begin."""
        self._profile = profile
        self._worker = Worker('inference')

        def work() -> Loaded:
            policy = make_policy(values)
            cameras = check_policy(policy, profile)
            began = time.monotonic()
            policy.warmup()
            return Loaded(policy, cameras, time.monotonic() - began)

        self._future = self._worker.submit(work)

    @property
    def is_done(self) -> bool:
        """Whether it has ended, well or badly."""
        return self._future.done()

    def engine(self) -> Engine:
        """The engine, waiting for it if need be.

        Raises:
            HbvlaError: the policy cannot be loaded or does not fit; others as loading raised them.
        """
        try:
            return Engine(self._worker, self._future.result(), self._profile)
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Nobody waits for it any more: its thread ends when it can."""
        self._worker.close(0.0)
