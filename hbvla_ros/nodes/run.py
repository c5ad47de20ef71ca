# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Running one node as a process: start, survive callbacks, stop cleanly on a signal."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from hbvla_ros.errors import HbvlaError

# A signal is noticed at the latest after this; 10 wake-ups a second cost nothing measurable.
_WAKE_UP = 0.1
_FAILED = 2
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _StopRequest:
    """SIGINT and SIGTERM as a flag; while a node configures they also end the present call.

    Loading a model takes long and moves nothing, so it may be ended half-way; nothing else may.

    From a terminal, launch and its nodes all get the signal and launch sends another: once a node
    is leaving, more of them change nothing.
    """

    def __init__(self) -> None:
        self.received = False
        self.node: Node | None = None
        for number in _SIGNALS:
            signal.signal(number, self._handle)

    def ignore_more(self) -> None:
        """Ignore signals from now on, also while the interpreter itself leaves."""
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        if getattr(self.node, 'is_configuring', False):
            raise SystemExit(0)


def run(name: str, make_node: Callable[[], Node]) -> int:
    """Run a node until a signal, then hold, deactivate and leave.

    Args:
        name: node name, for messages about a node that could not even be made.
        make_node: builds the node; it has ``start`` and ``stop`` and, optionally, a parameter
            ``autostart``, a text ``failure``, empty while its work can go on, and a truth
            ``finished``, set when there is nothing left to do.

    Returns:
        Exit status: 0 after a signal or when finished, 2 when the node cannot be made, started
        or go on.
    """
    request = _StopRequest()
    status, node = 0, None
    try:
        # rclpy's own handlers would shut the context down before the hold could be sent.
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        node = request.node = make_node()
        _start_and_spin(node, request)
    except (ExternalShutdownException, SystemExit):
        pass
    except Exception as error:
        reason = str(error) if isinstance(error, HbvlaError) else repr(error)
        get_logger(name).error(reason)
        status = _FAILED
    finally:
        request.ignore_more()
        if node is not None:
            _stop(node)
        rclpy.try_shutdown()
    return status


def main(name: str, make_node: Callable[[], Node]) -> None:
    """Run a node as the program: as :func:`run`, then leave the process at once.

    Everything is released by then. An interpreter that takes torch apart needs seconds, and a
    computation that does not return would keep it for ever.
    """
    status = run(name, make_node)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _start_and_spin(node: Node, request: _StopRequest) -> None:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    autostart = node.get_parameter('autostart').value if node.has_parameter('autostart') else True
    if autostart and not request.received:
        node.start()
    while not request.received and not getattr(node, 'finished', False):
        try:
            executor.spin_once(timeout_sec=_WAKE_UP)
        except ExternalShutdownException:
            raise
        except Exception as error:
            # One bad callback (an unknown transition request, say) must not end the node.
            node.get_logger().error(f'callback failed: {error!r}', throttle_duration_sec=1.0)
        if getattr(node, 'failure', ''):
            raise HbvlaError(node.failure)
    executor.remove_node(node)


def _stop(node: Node) -> None:
    try:
        node.stop()
    except Exception as error:
        node.get_logger().error(f'stop failed: {error!r}')
    node.destroy_node()
