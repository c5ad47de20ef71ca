# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A lifecycle node whose failed transitions say why.

rclpy turns an exception in a transition into a bare error code and prints nothing, so every
transition runs inside a wrapper that logs the reason first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from lifecycle_msgs.msg import State
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes.parameters import Parameter, declare, read

AUTOSTART = Parameter(
    'autostart', False, 'Configure and activate by itself, so that no manager is needed.'
)


class ManagedNode(LifecycleNode):
    """Base of our lifecycle nodes: subclasses fill in configure, activate, deactivate, cleanup.

    Args:
        name: node name.
        table: its parameters; ``autostart`` is added.
        **options: passed on to rclpy's node, such as ``context`` or ``parameter_overrides``.

    Raises:
        HbvlaError: a parameter has the wrong type or range.
    """

    def __init__(self, name: str, table: Sequence[Parameter], **options: Any) -> None:
        """Declare the parameters."""
        super().__init__(name, **options)
        self._table = (*table, AUTOSTART)
        # While true a signal may end the call; see hbvla_ros.nodes.run.
        self.is_configuring = False
        # Watchdogs and reports must run when simulated time stands still.
        self.steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        try:
            declare(self, self._table)
        except HbvlaError:
            self.destroy_node()
            raise

    def parameters(self) -> dict[str, Any]:
        """Present parameter values by name."""
        return read(self, self._table)

    def now(self) -> float:
        """Time in s on the node's clock, which is simulated time when so configured."""
        return self.get_clock().now().nanoseconds * 1e-9

    @property
    def state_label(self) -> str:
        """``unconfigured``, ``inactive``, ``active`` or ``finalized``."""
        return str(self._state_machine.current_state[1])

    @property
    def is_active(self) -> bool:
        """Whether the gate is open."""
        return int(self._state_machine.current_state[0]) == State.PRIMARY_STATE_ACTIVE

    def configure(self) -> None:
        """Read parameters, build entities, load what must be loaded."""

    def activate(self) -> None:
        """Open the gate."""

    def deactivate(self) -> None:
        """Stop the work and close the gate."""

    def cleanup(self) -> None:
        """Undo configure; must cope with a configure that stopped half-way."""

    def beat(self) -> None:
        """Tell whoever watches this node's heart that its state has changed."""

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run :meth:`configure`, logging why it failed."""
        self.is_configuring = True
        try:
            return self._transition('configure', self.configure, state, super().on_configure)
        finally:
            self.is_configuring = False

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run :meth:`activate`, logging why it failed."""
        return self._transition('activate', self.activate, state, super().on_activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run :meth:`deactivate`, logging why it failed."""
        return self._transition('deactivate', self.deactivate, state, super().on_deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run :meth:`cleanup`, logging why it failed."""
        return self._transition('cleanup', self.cleanup, state, super().on_cleanup)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and undo everything, whatever the state was."""
        return self._transition('shutdown', self._stop_all, state, super().on_shutdown)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After a failed transition: undo everything, back to unconfigured."""
        return self._transition('error handling', self._stop_all, state, super().on_error)

    def start(self) -> None:
        """Configure and activate.

        Raises:
            HbvlaError: a transition failed; its reason has been logged.
        """
        if self.state_label == 'unconfigured':
            self.trigger_configure()
        if self.state_label == 'inactive':
            self.trigger_activate()
        if not self.is_active:
            raise HbvlaError(f'{self.get_name()}: start-up failed, see the error above')

    def stop(self) -> None:
        """Deactivate and shut down, from whatever state."""
        if self.is_active:
            self.trigger_deactivate()
            # Whoever was active when it was heard last would be taken for dead.
            self.beat()
        if self.state_label != 'finalized':
            self.trigger_shutdown()

    def _stop_all(self) -> None:
        try:
            self.deactivate()
        finally:
            self.cleanup()

    def _transition(
        self,
        name: str,
        work: Callable[[], None],
        state: LifecycleState,
        inherited: Callable[[LifecycleState], TransitionCallbackReturn],
    ) -> TransitionCallbackReturn:
        started = time.monotonic()
        try:
            work()
            result = inherited(state)
        except Exception as error:
            reason = str(error) if isinstance(error, HbvlaError) else repr(error)
            self.get_logger().error(f'{name} failed: {reason}')
            return TransitionCallbackReturn.ERROR
        self.get_logger().info(f'{name} done in {time.monotonic() - started:.2f} s')
        return result
