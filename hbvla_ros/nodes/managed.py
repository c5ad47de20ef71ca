# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""One lifecycle node as its manager sees it: asked for its state before it is asked for more.

A request that is not allowed in a node's state ends an rclpy node of the plainer kind, so nothing
is requested on a guess.
"""

from __future__ import annotations

import time
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.node import Node

# Without an answer for so long, s, the node is busy or gone; which of them its next answer tells.
_PATIENCE = 3.0
_TRANSITIONS = {
    'configure': Transition.TRANSITION_CONFIGURE,
    'activate': Transition.TRANSITION_ACTIVATE,
    'deactivate': Transition.TRANSITION_DEACTIVATE,
}
UP = {'unconfigured': 'configure', 'inactive': 'activate'}
DOWN = {'active': 'deactivate'}


class Managed:
    """A lifecycle node in the manager's namespace.

    Attributes:
        name: of the node.
        state: as last answered, empty while it is not there.
        is_done: whether it has been where it was wanted; from there on an operator may move it.
        failure: the transition that failed, empty while none has.
    """

    def __init__(self, node: Node, name: str) -> None:
        """Make the clients."""
        self.name, self.state, self.is_done, self.failure = name, '', False, ''
        self._get = node.create_client(GetState, f'{name}/get_state')
        self._change = node.create_client(ChangeState, f'{name}/change_state')
        self._query: Any = None
        self._asked = 0.0
        self._request: Any = None
        self._requested = ''
        self._was_lost = False

    def begin(self) -> None:
        """It is wanted elsewhere now, and what failed may be tried again."""
        self.is_done, self.failure = False, ''

    def turn(self) -> None:
        """Take what was answered and ask again; never waits."""
        if not self._get.service_is_ready():
            self._lose()
            self.state = ''
            return
        self._take_request()
        if self._query is not None:
            if not self._query.done():
                if time.monotonic() - self._asked > _PATIENCE:
                    self._lose()
                return
            self._take_state(self._query.result())
        self._query, self._asked = self._get.call_async(GetState.Request()), time.monotonic()

    def advance(self, steps: dict[str, str]) -> str:
        """Request the transition that its state needs, if it can be requested now.

        Args:
            steps: state to transition; in every other state it is where it is wanted, unless it is
                on its way.

        Returns:
            The transition that has been requested, empty if none.
        """
        if self._request is not None or not self.state or self.state.endswith('ing'):
            return ''
        if self.state not in steps:
            self.is_done = True
            return ''
        if not self._change.service_is_ready():
            return ''
        self._requested = steps[self.state]
        transition = Transition(id=_TRANSITIONS[self._requested])
        self._request = self._change.call_async(ChangeState.Request(transition=transition))
        # What is known is from before the request.
        self.state = ''
        self._drop_query()
        return self._requested

    def _take_request(self) -> None:
        if self._request is None or not self._request.done():
            return
        answer, self._request = self._request.result(), None
        self._drop_query()
        self.state = ''
        if answer is None or not answer.success:
            self.failure = f'{self.name}: {self._requested} failed, its log says why'

    def _take_state(self, answer: Any) -> None:
        self._query = None
        if answer is None:
            return
        state = answer.current_state.label
        if self._was_lost and state == 'unconfigured':
            # Not the process that was asked for something: another one in its place.
            self._request = None
            self.begin()
        self._was_lost = False
        if self._request is None:
            self.state = state

    def _lose(self) -> None:
        self._drop_query()
        self._was_lost = True

    def _drop_query(self) -> None:
        if self._query is not None:
            self._get.remove_pending_request(self._query)
            self._query = None
