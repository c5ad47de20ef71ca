# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Drivers' own stops, called when a stop latches, such as an arm's ``emergency_stop``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from rclpy.node import Node
from std_srvs.srv import Empty, Trigger

from hbvla_ros.control.profile import StopService

_TYPES = {'std_srvs/Trigger': Trigger, 'std_srvs/Empty': Empty}


class StopServices:
    """Calls all of them and never waits for one.

    Attributes:
        result: in words, what became of the last call.
    """

    def __init__(self, node: Node, services: Sequence[StopService]) -> None:
        """Make the clients now, so that they are connected when they are needed."""
        self._node = node
        self._clients = {
            one.name: (node.create_client(_TYPES[one.type], one.name), _TYPES[one.type])
            for one in services
        }
        self.result = 'not called' if services else 'none'

    def call(self) -> None:
        """Call every service that is there, and name those that are not."""
        absent = []
        for name, (client, kind) in self._clients.items():
            if client.service_is_ready():
                answer = client.call_async(kind.Request())
                answer.add_done_callback(partial(self._receive, name))
            else:
                absent.append(name)
        if self._clients:
            self.result = f'not there: {", ".join(absent)}' if absent else 'called'
        if absent:
            self._node.get_logger().error(f'stop services not there: {", ".join(absent)}')

    def _receive(self, name: str, answer: Any) -> None:
        error = None if answer.cancelled() else answer.exception()
        # An Empty has no say in whether it worked.
        refused = error is None and not getattr(answer.result(), 'success', True)
        if error is not None or refused:
            said = repr(error) if error is not None else answer.result().message
            self.result = f'{name} failed: {said}'
            self._node.get_logger().error(f'stop service {self.result}')
