# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What the policy node does again and again: look what has come, begin what is due.

One thread calls all of this. The thread that owns the policy decodes, computes and publishes; it
meets this one in the :class:`~hbvla_ros.nodes.gate.ChunkGate` only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from hbvla_ros.control.inference import Request
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.control.schedule import InferenceSchedule
from hbvla_ros.nodes import diagnostics
from hbvla_ros.nodes.engine import Engine, Finished
from hbvla_ros.nodes.frames import FrameReader
from hbvla_ros.nodes.gate import ChunkGate
from hbvla_ros.nodes.instruction import InstructionInbox
from hbvla_ros.nodes.joint_reader import JointReader
from hbvla_ros.nodes.lifecycle import ManagedNode
from hbvla_ros.nodes.policy_report import InferenceRecord, model_values, stream_values


class PolicyLoop:
    """Everything of a configured policy node that is not its lifecycle.

    Args:
        node: whose topics and clock are used.
        profile: the robot.
        values: the node's parameters.
        engine: the policy.
        on_fault: called when a fault begins or ends, so that it is reported at once.
    """

    def __init__(
        self,
        node: ManagedNode,
        profile: RobotProfile,
        values: Mapping[str, Any],
        engine: Engine,
        on_fault: Callable[[], None],
    ) -> None:
        """Listen; the gate is shut."""
        self._node, self.profile, self._values = node, profile, values
        self.engine, self._on_fault = engine, on_fault
        self._schedule = InferenceSchedule(values['replan_fraction'], values['inference_period'])
        self.gate = ChunkGate(node, profile.action_names, self._schedule)
        self.instruction = InstructionInbox(node, values['instruction'])
        self._joints = JointReader(node, profile)
        self._record = InferenceRecord()
        self._is_late = False
        self._problem, self._problem_since, self._fault = '', 0.0, ''
        self._is_listening = False
        self._frames = FrameReader(node, profile, engine.cameras, self._joints, self.poll)
        self._is_listening = True

    def open(self) -> None:
        """Let chunks out: an inference begins as soon as there is an instruction."""
        self.flush()
        self.gate.is_open = True

    def shut(self) -> None:
        """Let no further chunk out and tell the arms to hold."""
        self.gate.is_open = False
        self.flush()

    def forget(self) -> None:
        """Tell the arms to hold and begin anew: images, latencies and failures are forgotten."""
        self._frames.clear()
        self._record.forget()
        self.gate.forget_delays()
        self.flush()

    def flush(self) -> None:
        """Tell the arms to forget what they have and hold; what is under way is dropped."""
        self.gate.flush(self._node.now(), self.engine.policy.checkpoint)

    def replace(self, engine: Engine) -> None:
        """Go on with another policy; the arms hold until it has made its first chunk."""
        before, self.engine = self.engine, engine
        self.flush()
        self._record.forget()
        self.gate.forget_delays()
        self._is_late = False
        if tuple(engine.cameras) != self._frames.cameras:
            self._frames.destroy()
            self._frames = FrameReader(
                self._node, self.profile, engine.cameras, self._joints, self.poll
            )
        before.close(0.0)

    def close(self, timeout: float) -> bool:
        """Stop listening; True if no inference is left running after ``timeout`` s."""
        self._is_listening = False
        for part in (self._frames, self._joints, self.instruction, self.gate):
            part.destroy()
        return self.engine.close(timeout)

    def poll(self) -> None:
        """Take what has come meanwhile, and begin the next inference when it is due."""
        if not self._is_listening:
            # A first frame may come before everything is there, a last one after it is gone.
            return
        if self.instruction.changed():
            self._take_instruction(self.instruction.text)
        finished = self.engine.collect()
        if finished is not None:
            self._take_finished(finished)
        self._watch()
        if self.gate.is_open and self.instruction.text and not self.engine.is_busy:
            self._begin_when_due()

    def _take_instruction(self, text: str) -> None:
        said = f'instruction: {text!r}' if text else 'no instruction: holding'
        self._node.get_logger().info(said, throttle_duration_sec=0.5)
        if self.gate.is_open:
            self.flush()

    def _take_finished(self, finished: Finished) -> None:
        self._record.add(finished, self._frames)
        if finished.error is not None:
            self._node.get_logger().error(
                f'inference failed: {self._record.failure}', throttle_duration_sec=1.0
            )
        if self._is_late:
            self._is_late = False
            self._node.get_logger().warning(
                f'the late inference has ended after {finished.seconds:.2f} s'
            )

    def _watch(self) -> None:
        """Look for what must not last: an inference that hangs, images that are lost or frozen."""
        if not self._is_late and self.engine.running_for > self._values['inference_deadline']:
            self._is_late = True
            self._record.late += 1
            self.gate.expire()
        if self._values['hold_on_loss'] and self.gate.is_open and self.gate.has_sent:
            lost = self._frames.lost()
            if lost:
                self._node.get_logger().error(f'{lost}: holding', throttle_duration_sec=1.0)
                self.flush()
        fault = self._present_fault()
        if fault != self._fault:
            self._fault = fault
            if fault:
                self._node.get_logger().error(fault)
            self._on_fault()

    def _present_fault(self) -> str:
        """What is wrong and needs somebody, in words that stay the same; empty if nothing."""
        if self._is_late:
            return (
                f'inference takes more than inference_deadline, '
                f'{self._values["inference_deadline"]:g} s: its chunk will be dropped, no other '
                'is begun before it ends'
            )
        for name in self._frames.streams.frozen:
            return f'{name} is frozen: the same image under new stamps while the arms move'
        return ''

    def _begin_when_due(self) -> None:
        now = self._node.now()
        if not self._schedule.is_due(now, self.gate.delay):
            return
        aligned, problem = self._frames.observation(self._schedule.is_new)
        if problem and not self._problem:
            self._problem_since = time.monotonic()
        self._problem = problem
        if aligned is None:
            return
        self._schedule.start(now, aligned.stamp)
        request = Request(aligned, self._frames.cameras, self.instruction.text)
        self.engine.start(request, self.gate)

    def status(self) -> tuple[bytes, str]:
        """Level and one line for /diagnostics."""
        if self._fault:
            return diagnostics.ERROR, self._fault
        if not self.gate.is_open:
            waits = ', waiting for ~/start' if self._node.is_active else ''
            return diagnostics.OK, f'{self.label}{waits}'
        if self._record.failure:
            return diagnostics.ERROR, self._record.failure
        # Cameras never arrive together to the millisecond: only what lasts is worth a word.
        lasting = time.monotonic() - self._problem_since > self.profile.safety.image_timeout
        slow = self._record.too_slow(self.engine, self._values['replan_fraction'])
        problem = (self._problem if lasting else '') or slow
        if problem:
            return diagnostics.WARN, problem
        waits = '' if self.instruction.text else ', waiting for an instruction'
        return diagnostics.OK, f'{self.label}{waits}'

    @property
    def label(self) -> str:
        """Lifecycle state, and ``stopped`` behind it where the operator stopped an active node."""
        state = self._node.state_label
        return f'{state} stopped' if self._node.is_active and not self.gate.is_open else state

    def values(self) -> dict[str, object]:
        """Everything that is counted and measured, by name."""
        return {
            'instruction': self.instruction.text,
            'instructions received': self.instruction.received,
            **model_values(self.engine, self._values),
            **self._record.values(),
            'chunks dropped': self.gate.dropped,
            'images to chunk p95': self.gate.delay,
            'inference deadline': self._values['inference_deadline'],
            'hold on loss': self._values['hold_on_loss'],
            **stream_values(self._frames, self._joints, self._node.now()),
        }
