# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Brings our lifecycle nodes up, one after the other, and again when one of them was replaced.

The arms come first: they hold while the policy loads. A node that an operator has moved to another
state is left there.
"""

from __future__ import annotations

from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_srvs.srv import Trigger

from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes import diagnostics
from hbvla_ros.nodes.managed import DOWN, UP, Managed
from hbvla_ros.nodes.parameters import Parameter, declare, read
from hbvla_ros.nodes.run import main as run_main

NAME = 'bringup_node'
TABLE = (
    Parameter(
        'nodes', 'arm_node,policy_node', 'Lifecycle nodes in their order, separated by commas.'
    ),
    Parameter('autostart', True, 'Begin by itself; false waits for ~/start.'),
    Parameter(
        'diagnostics_rate', 1.0, 'Reports on /diagnostics per second, Hz.', low=0.1, high=10.0
    ),
)
_RATE = 5.0


class BringupNode(Node):
    """Configures and activates lifecycle nodes; serves ``~/start`` and ``~/stop``.

    Args:
        **options: passed on to rclpy's node.

    Raises:
        HbvlaError: a bad parameter.
    """

    def __init__(self, **options: Any) -> None:
        """Build the clients; nothing is requested before :meth:`start`."""
        super().__init__(NAME, **options)
        declare(self, TABLE)
        values = read(self, TABLE)
        names = [name.strip() for name in values['nodes'].split(',') if name.strip()]
        if not names or len(set(names)) != len(names):
            raise HbvlaError(f'parameter nodes: {values["nodes"]!r} must name nodes, none twice')
        self._managed = [Managed(self, name) for name in names]
        self._steps: dict[str, str] = {}
        self._reporter = diagnostics.Reporter(self, 'bring-up')
        self.create_service(Trigger, '~/start', self._serve_start)
        self.create_service(Trigger, '~/stop', self._serve_stop)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0 / _RATE, self._turn, clock=steady)
        self.create_timer(1.0 / values['diagnostics_rate'], self._report, clock=steady)

    def start(self) -> None:
        """Bring everything up from now on."""
        self._begin(UP)

    def stop(self) -> None:
        """Nothing: the nodes hear of the end themselves, and hold."""

    def _begin(self, steps: dict[str, str]) -> None:
        self._steps = steps
        for managed in self._managed:
            managed.begin()

    def _serve_start(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        self._begin(UP)
        response.success, response.message = True, 'bringing up'
        return response

    def _serve_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Deactivate, the last first: the arms hold until the policy is silent."""
        self._begin(DOWN)
        response.success, response.message = True, 'deactivating'
        return response

    def _turn(self) -> None:
        for managed in self._managed:
            managed.turn()
        order = self._managed if self._steps is UP else list(reversed(self._managed))
        for managed in order if self._steps else ():
            if not managed.is_done and not managed.failure:
                self._advance(managed)
            # One that is not there yet, or failed, keeps those after it waiting.
            if not managed.is_done:
                return

    def _advance(self, managed: Managed) -> None:
        transition = managed.advance(self._steps)
        if transition:
            self.get_logger().info(f'{managed.name}: {transition}')
        elif managed.is_done:
            self.get_logger().info(f'{managed.name} is {managed.state}')

    def _report(self) -> None:
        failures = [managed.failure for managed in self._managed if managed.failure]
        waiting = [managed.name for managed in self._managed if not managed.is_done]
        level, text = diagnostics.OK, 'all nodes are where they were wanted'
        if not self._steps:
            text = 'waiting for ~/start'
        elif failures:
            level, text = diagnostics.ERROR, failures[0]
        elif waiting:
            level, text = diagnostics.WARN, f'waiting for {waiting[0]}'
        states = {managed.name: managed.state or 'no answer' for managed in self._managed}
        now = self.get_clock().now().nanoseconds * 1e-9
        self._reporter.publish(level, text, states, now)


def main() -> None:
    """Run the node as a process."""
    run_main(NAME, BringupNode)


if __name__ == '__main__':
    main()
