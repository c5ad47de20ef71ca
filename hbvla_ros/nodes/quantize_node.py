# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Quantization as a node: the pipeline of ``hbvla quantize`` with its progress on topics.

The pipeline runs on a thread of its own. It can be cancelled between two steps; what is finished
by then stays beside the output folder, and ``resume`` goes on from there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String
from std_srvs.srv import Trigger

from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes import diagnostics
from hbvla_ros.nodes.parameters import declare, read
from hbvla_ros.nodes.quantize_parameters import TABLE, job_from
from hbvla_ros.nodes.quantize_progress import ProgressState
from hbvla_ros.nodes.run import main as run_main
from hbvla_ros.nodes.worker import Worker
from hbvla_ros.quantizing import Cancelled, Job, run_job

NAME = 'quantize_node'
_POLL = 0.1
# Who has just begun to listen shall still find the process before it leaves, s.
_FAREWELL = 0.5
# How long it stays at most for readers that have not got the last status and report yet, s.
_LONGEST_FAREWELL = 5.0
# Both leave time for the rest of an exit within 2 s.
_CLOSE_TIMEOUT = 1.0
_INTERRUPTED_FAREWELL = 0.3

JobRunner = Callable[[Job, ProgressState], Any]


class QuantizeNode(Node):
    """Runs one quantization and ends: exit status 0 when done or cancelled, 2 when it failed.

    Publishes the latched ``~/status`` (JSON: state, stage, step, steps, layer, error,
    stored_bits, seconds_left, message) and ``/diagnostics``; offers ``~/cancel`` and ``~/start``.

    Args:
        runner: does the work; replaced in tests.
        **options: passed on to rclpy's node.

    Attributes:
        failure: why it failed, empty otherwise; ends the process (see ``nodes.run``).
        finished: there is nothing left to do; ends the process as well.

    Raises:
        HbvlaError: a parameter has the wrong type or range.
    """

    def __init__(self, runner: JobRunner = run_job, **options: Any) -> None:
        """Declare the parameters and offer the services."""
        super().__init__(NAME, **options)
        self.failure, self.finished = '', False
        self.state = 'waiting'
        self._runner = runner
        self._ended_at: float | None = None
        self._published = ''
        self._result: Future[Any] | None = None
        self._worker: Worker | None = None
        self._progress = ProgressState()
        try:
            declare(self, TABLE)
        except HbvlaError:
            self.destroy_node()
            raise
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._status = self.create_publisher(String, '~/status', latched)
        self._reporter = diagnostics.Reporter(self, 'quantization')
        self.create_service(Trigger, '~/start', self._on_start)
        self.create_service(Trigger, '~/cancel', self._on_cancel)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_POLL, self._poll, clock=steady)
        rate = self.get_parameter('diagnostics_rate').value
        self.create_timer(1.0 / rate, self._report, clock=steady)
        self._publish_status()

    def start(self) -> None:
        """Begin the work.

        Raises:
            HbvlaError: a parameter is missing or wrong.
        """
        job = job_from(read(self, TABLE))
        self._worker = Worker('quantization')
        self._result = self._worker.submit(lambda: self._runner(job, self._progress))
        self._set_state('running', f'{job.checkpoint} to {job.out}, method {job.method}')

    def stop(self) -> None:
        """Ask the work to end and wait for it a moment."""
        self._progress.cancel()
        if self._worker is not None:
            self._worker.close(_CLOSE_TIMEOUT)
            if self.state == 'running':
                self._set_state('cancelled', 'interrupted; start again with resume to go on')
                self._all_arrived(_INTERRUPTED_FAREWELL)

    def _on_start(self, _request: Trigger.Request, answer: Trigger.Response) -> Trigger.Response:
        if self._result is not None:
            answer.success, answer.message = False, f'{self.state} already'
            return answer
        try:
            self.start()
            answer.success, answer.message = True, 'started'
        except HbvlaError as error:
            self.get_logger().error(str(error))
            answer.success, answer.message = False, str(error)
        return answer

    def _on_cancel(self, _request: Trigger.Request, answer: Trigger.Response) -> Trigger.Response:
        answer.success = self.state == 'running'
        if answer.success:
            self._progress.cancel()
        answer.message = 'ends after the present layer' if answer.success else self.state
        return answer

    def _poll(self) -> None:
        """Publish news; end the process when its readers have the end of the work."""
        if self._ended_at is not None:
            # Reports are not latched: who is discovered only now gets this one.
            self._report()
            waited = time.monotonic() - self._ended_at
            if waited > _LONGEST_FAREWELL or (waited > _FAREWELL and self._all_arrived(0.0)):
                if self.state == 'failed':
                    self.failure = self._progress.message
                else:
                    self.finished = True
            return
        if self._result is not None and self._result.done():
            self._finish(self._result)
            self._ended_at = time.monotonic()
        self._publish_status()

    def _finish(self, result: Future[Any]) -> None:
        """Turn the end of the work into a state."""
        error = result.exception()
        if error is None:
            self._set_state('finished', str(result.result()))
        elif isinstance(error, Cancelled):
            self._set_state('cancelled', str(error))
        else:
            reason = str(error) if isinstance(error, HbvlaError) else repr(error)
            self._set_state('failed', reason)

    def _set_state(self, state: str, message: str) -> None:
        self.state, self._progress.message = state, message
        # The reason of a failure is logged when the process leaves with it.
        if state != 'failed':
            self.get_logger().info(f'{state}: {message}')
        self._publish_status()
        self._report()

    def _publish_status(self) -> None:
        """Publish the latched status when it differs from the last one."""
        text = json.dumps({'state': self.state, **self._progress.snapshot()})
        if text != self._published:
            self._published = text
            self._status.publish(String(data=text))

    def _all_arrived(self, seconds: float) -> bool:
        """Whether every reader has the last status and report, waiting so long for each."""
        limit = Duration(seconds=seconds)
        return bool(self._status.wait_for_all_acked(limit)) and self._reporter.all_arrived(limit)

    def _report(self) -> None:
        level = {'failed': diagnostics.ERROR, 'cancelled': diagnostics.WARN}
        values = self._progress.snapshot()
        message = values.pop('message') or self.state
        self._reporter.publish(
            level.get(self.state, diagnostics.OK),
            f'{self.state}: {message}' if message != self.state else self.state,
            values,
            self.get_clock().now().nanoseconds * 1e-9,
        )


def main() -> None:
    """Entry point of the executable."""
    run_main(NAME, QuantizeNode)


if __name__ == '__main__':
    main()
