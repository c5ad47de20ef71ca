# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What an operator may do to a running policy node: services, and parameters that may change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.parameter import Parameter
from rclpy.task import Future
from std_srvs.srv import Trigger

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.nodes.engine import Loading, reason_of
from hbvla_ros.nodes.inference import PolicyFactory
from hbvla_ros.nodes.instruction import instruction_problem
from hbvla_ros.nodes.lifecycle import ManagedNode
from hbvla_ros.nodes.policy_loop import PolicyLoop

_INACTIVE = 'the node is not active: activate it first'


class PolicyOperator:
    """Serves ``~/start``, ``~/stop``, ``~/reset`` and ``~/reload``, and watches parameters.

    All of it exists as long as the node does and answers in each of its states; a stop is refused
    in none.

    Args:
        node: whose services they are.
        make_policy: loads the policy of ``~/reload``.
        loop: gives the loop of the configured node, None in the other states.
    """

    def __init__(
        self,
        node: ManagedNode,
        make_policy: PolicyFactory,
        loop: Callable[[], PolicyLoop | None],
    ) -> None:
        """Offer the services."""
        self._node, self._make_policy, self._loop = node, make_policy, loop
        self._loading: Loading | None = None
        self._answer: Future | None = None
        # What the last reload came to.
        self.reload_state = ''
        for name, work in (('start', self._start), ('stop', self._stop), ('reset', self._reset)):
            node.create_service(Trigger, f'~/{name}', _answering(work))
        # It waits for the policy; in the node's own group it would keep every other callback out.
        group = ReentrantCallbackGroup()
        node.create_service(Trigger, '~/reload', self._reload, callback_group=group)
        node.add_on_set_parameters_callback(self._check_parameters)

    def _start(self) -> tuple[bool, str]:
        loop = self._loop()
        if loop is None or not self._node.is_active:
            return False, _INACTIVE
        if not loop.gate.is_open:
            loop.open()
            self._node.get_logger().info('started by the operator')
        return True, loop.status()[1]

    def _stop(self) -> tuple[bool, str]:
        loop = self._loop()
        if loop is None:
            return True, 'nothing was running'
        loop.shut()
        self._node.get_logger().info('stopped by the operator')
        return True, 'no chunk leaves this node before ~/start; the arms hold'

    def _reset(self) -> tuple[bool, str]:
        loop = self._loop()
        if loop is None:
            return False, 'the node is not configured'
        loop.forget()
        return True, 'chunks, images, latencies and failures are forgotten'

    async def _reload(
        self, _request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        """Load the checkpoint that the parameter names now, and go on with it."""
        if self._loop() is None:
            response.success, response.message = False, 'the node is not configured'
            return response
        if self._answer is not None:
            response.success, response.message = False, 'a checkpoint is being loaded already'
            return response
        values = self._node.parameters()
        self._answer = Future()
        self.reload_state = f'loading {values["checkpoint"]}'
        self._node.get_logger().info(f'reload: {self.reload_state}')
        self._loading = Loading(self._make_policy, values, self._profile())
        response.success, response.message = await self._answer
        return response

    def _profile(self) -> RobotProfile:
        loop = self._loop()
        assert loop is not None
        return loop.profile

    def poll(self) -> None:
        """Put the policy in its place when it has been loaded."""
        loop, loading = self._loop(), self._loading
        if loop is None or loading is None or not loading.is_done:
            return
        self._loading = None
        try:
            engine = loading.engine()
        except Exception as error:
            running = loop.engine.policy.checkpoint
            self._end_reload(False, f'{reason_of(error)}; {running} goes on')
            return
        before = loop.engine.policy.checkpoint
        loop.replace(engine)
        now = f'{engine.policy.checkpoint} instead of {before}'
        self._end_reload(True, f'{now}, warm-up {engine.warm_up:.2f} s')

    def abandon(self) -> None:
        """The node is no longer configured: no policy is waited for."""
        if self._loading is not None:
            self._loading.abandon()
            self._loading = None
            self._end_reload(False, 'the node was cleaned up meanwhile')

    def _end_reload(self, success: bool, message: str) -> None:
        self.reload_state = message
        # On lines of their own: rclpy raises where one line logs at two severities.
        if success:
            self._node.get_logger().info(f'reload: {message}')
        else:
            self._node.get_logger().error(f'reload failed: {message}')
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.set_result((success, message))

    def _check_parameters(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        """Only what weakens nothing may change in a configured node."""
        loop = self._loop()
        # rclpy has checked the types; a parameter without a value is one that is taken away.
        given = {p.name: p.value for p in parameters if isinstance(p.value, (str, bool))}
        problem = _parameter_problem(given, loop is not None)
        if problem:
            self._node.get_logger().error(problem)
        elif loop is not None and 'instruction' in given:
            loop.instruction.put(str(given['instruction']))
        return SetParametersResult(successful=not problem, reason=problem)


def _parameter_problem(given: Mapping[str, Any], is_configured: bool) -> str:
    """Why these values may not be set, empty if they may."""
    if is_configured and 'use_sim_time' in given:
        return 'parameter use_sim_time: another clock needs the node to be started anew'
    if given.get('checkpoint') == '':
        return 'parameter checkpoint: give the folder of a checkpoint'
    return instruction_problem(given.get('instruction', ''))


def _answering(
    work: Callable[[], tuple[bool, str]],
) -> Callable[[Trigger.Request, Trigger.Response], Trigger.Response]:
    """A service callback that answers what ``work`` says, also when it fails."""

    def serve(_request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            response.success, response.message = work()
        except Exception as error:
            response.success, response.message = False, reason_of(error)
        return response

    return serve
