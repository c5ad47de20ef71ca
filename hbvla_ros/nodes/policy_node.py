# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Cameras, joints and an instruction in, action chunks out.

Callbacks only keep the newest message. When the present chunk is drained far enough and the
frames make one observation, one inference starts on the thread that owns the policy, which
decodes, runs the network and publishes. Nothing ever waits in a queue.
"""

from __future__ import annotations

from typing import Any

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.nodes import diagnostics
from hbvla_ros.nodes.engine import Loading
from hbvla_ros.nodes.heartbeat import Heartbeat
from hbvla_ros.nodes.inference import PolicyFactory, load_policy
from hbvla_ros.nodes.lifecycle import ManagedNode
from hbvla_ros.nodes.policy_loop import PolicyLoop
from hbvla_ros.nodes.policy_operator import PolicyOperator
from hbvla_ros.nodes.policy_parameters import TABLE
from hbvla_ros.nodes.run import main as run_main

NAME = 'policy_node'
# Leaves time for the rest of an exit within 2 s.
_CLOSE_TIMEOUT = 1.0


class PolicyNode(ManagedNode):
    """Runs one policy for one robot.

    Subscribes the profile's cameras and joint states, ``~/instruction`` and the latched
    ``instruction``; publishes ``action_chunks`` and ``~/heartbeat``; serves ``~/start``,
    ``~/stop``, ``~/reset`` and ``~/reload``.

    Args:
        make_policy: loads the policy from the parameter values; called on the policy's thread.
        **options: see :class:`ManagedNode`.
    """

    def __init__(self, make_policy: PolicyFactory = load_policy, **options: Any) -> None:
        """Declare the parameters and offer the services."""
        super().__init__(NAME, TABLE, **options)
        self._make_policy = make_policy
        self._loop: PolicyLoop | None = None
        self._loading: Loading | None = None
        self._parts: list[Any] = []
        self._polls: list[Any] = []
        self._operator = PolicyOperator(self, make_policy, lambda: self._loop)

    def configure(self) -> None:
        """Load and check the policy, then build everything that only listens."""
        values = self.parameters()
        self.profile = RobotProfile.load(values['robot'])
        self._loading = Loading(self._make_policy, values, self.profile)
        engine = self._loading.engine()
        self._loading = None
        name, warm_up = engine.policy.checkpoint, engine.warm_up
        self.get_logger().info(f'checkpoint {name}: warm-up {warm_up:.2f} s')
        self._waits = values['wait_for_start']
        self._reporter = diagnostics.Reporter(self, self.profile.robot)
        self._loop = PolicyLoop(self, self.profile, values, engine, self._report)
        self._heart = Heartbeat(self, values['heartbeat_rate'], self._label)
        self._parts = [self._reporter, self._heart]
        self._polls = [
            self.create_timer(1.0 / rate, callback, clock=self.steady_clock)
            for rate, callback in (
                (values['poll_rate'], self._poll),
                (values['diagnostics_rate'], self._report),
            )
        ]

    def activate(self) -> None:
        """Open the gate: inferences start as soon as there is an instruction."""
        assert self._loop is not None
        if self._waits:
            self._loop.shut()
            self.get_logger().info('waiting for ~/start')
        else:
            self._loop.open()

    def deactivate(self) -> None:
        """Close the gate and tell the arms to hold."""
        if self._loop is not None and self._loop.gate.is_open:
            self._loop.shut()

    def cleanup(self) -> None:
        """Remove what configure built and let go of the model."""
        while self._polls:
            self.destroy_timer(self._polls.pop())
        while self._parts:
            self._parts.pop().destroy()
        loop, self._loop = self._loop, None
        self._operator.abandon()
        if self._loading is not None:
            self._loading.abandon()
            self._loading = None
        if loop is not None and not loop.close(_CLOSE_TIMEOUT):
            self.get_logger().warning('an inference is still running; it is abandoned')

    def beat(self) -> None:
        """Beat once more at a change of state, so that a stop is not taken for a death."""
        if self._parts:
            self._heart.beat()

    def _label(self) -> str:
        return self.state_label if self._loop is None else self._loop.label

    def _poll(self) -> None:
        if self._loop is not None:
            self._operator.poll()
            self._loop.poll()

    def _report(self) -> None:
        if self._loop is None:
            return
        level, text = self._loop.status()
        values = {
            'state': self._loop.label,
            'last reload': self._operator.reload_state,
            **self._loop.values(),
        }
        self._reporter.publish(level, text, values, self.now())


def main() -> None:
    """Run the node as a process."""
    run_main(NAME, PolicyNode)


if __name__ == '__main__':
    main()
