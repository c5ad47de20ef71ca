# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The control tick: chunk clock, safety stage, command adapters.

One single-threaded executor runs the tick and a few tiny callbacks; no image, no model and no
network of its own is ever in this process, so nothing can make a tick late. The node holds when
it has nothing valid to execute, whatever the reason, and stops for good, until a reset, when it
must not go on.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String
from std_srvs.srv import Trigger

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.nodes import diagnostics
from hbvla_ros.nodes.adapters import CommandWriter
from hbvla_ros.nodes.arm_motion import ArmMotion
from hbvla_ros.nodes.arm_parameters import TABLE
from hbvla_ros.nodes.arm_watch import WATCH_RATE, ArmWatch
from hbvla_ros.nodes.chunk_inbox import ChunkInbox, ensemble_weight
from hbvla_ros.nodes.heartbeat import STOPPED, Heartbeat
from hbvla_ros.nodes.joint_reader import JointReader
from hbvla_ros.nodes.lifecycle import ManagedNode
from hbvla_ros.nodes.run import main as run_main

NAME = 'arm_node'
HOLDING, RUNNING = 'holding', 'running'
# A node that was told to leave leaves, s.
_LONGEST_BRAKING = 1.0
# So long after an interruption it commands nothing, s: three looks of the guard.
_YIELDS = 0.15


class ArmNode(ManagedNode):
    """Executes action chunks on the arms of one robot.

    Subscribes ``action_chunks``, ``stop`` and the profile's joint states, publishes the profile's
    command topics and ``~/heartbeat``, serves ``~/reset``. Inactive it publishes no commands.
    """

    def __init__(self, **options: Any) -> None:
        """Declare the parameters and listen for stops; see :class:`ManagedNode` for the options.

        Raises:
            HbvlaError: a parameter has the wrong type or range.
        """
        super().__init__(NAME, TABLE, **options)
        try:
            self._ensemble = ensemble_weight(self.parameters()['temporal_ensemble'])
        except HbvlaError:
            self.destroy_node()
            raise
        self._entities: list[tuple[Any, Any]] = []
        self._tick_timer: Any = None
        # A stop is heard and kept in every state of the lifecycle.
        self._stop_reason = self._guard_stop = ''
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(String, 'stop', self._receive_stop, latched)
        self._heart = Heartbeat(self, self.parameters()['heartbeat_rate'], self._label)

    def configure(self) -> None:
        """Read the profile and build everything that only listens."""
        values = self.parameters()
        self.profile = RobotProfile.load(values['robot'])
        self._hindrance = ''
        # While somebody else commands the robot this node does not: two wills shake the arms.
        self._gives_way = False
        self._ticks = diagnostics.RateMeter()
        self._joints = JointReader(self, self.profile)
        self._writer = CommandWriter(self, self.profile)
        self._watch = ArmWatch(
            self, self.profile, self._joints, self._writer, self._heart, values['require_guard']
        )
        self._chunks = ChunkInbox(
            self, self.profile, self._ensemble, lambda: self.is_active, self._obstacle
        )
        self._motion = ArmMotion(self.profile, self._chunks, self._writer)
        self._reporter = diagnostics.Reporter(self, self.profile.robot)
        self._keep(self.create_service(Trigger, '~/reset', self._reset), self.destroy_service)
        for rate, callback in (
            (values['diagnostics_rate'], self._report),
            (WATCH_RATE, self._look_around),
        ):
            timer = self.create_timer(1.0 / rate, callback, clock=self.steady_clock)
            self._keep(timer, self.destroy_timer)

    def activate(self) -> None:
        """Start the tick, holding; chunks that arrived before do not count."""
        self._motion.forget()
        # Now, not at the watchdog's next turn: the first command must not start at an old pose,
        # nor be given to arms that somebody else commands.
        self._watch.look()
        self._check_writers()
        self._check_hindrance()
        # Simulated time drives the tick itself; real time must not be moved by clock corrections.
        simulated = self.get_parameter('use_sim_time').value
        clock = self.get_clock() if simulated else self.steady_clock
        self._tick_timer = self.create_timer(
            1.0 / self.profile.control_rate, self._tick, clock=clock
        )

    def deactivate(self) -> None:
        """Bring the arms to rest and stop the tick."""
        if self._tick_timer is None:
            return
        self.destroy_timer(self._tick_timer)
        self._tick_timer = None
        self._chunks.clock.flush()
        self._come_to_rest()

    def cleanup(self) -> None:
        """Remove what configure built."""
        while self._entities:
            entity, destroy = self._entities.pop()
            destroy(entity)
        for name in ('_chunks', '_watch', '_writer', '_joints', '_reporter'):
            if hasattr(self, name):
                getattr(self, name).destroy()
                delattr(self, name)

    def beat(self) -> None:
        """Say on ``~/heartbeat`` how it is, because that has changed."""
        self._heart.beat()

    def _label(self) -> str:
        return f'{self.state_label} {STOPPED}' if self._stop_reason else self.state_label

    def _keep(self, entity: Any, destroy: Any) -> Any:
        self._entities.append((entity, destroy))
        return entity

    def _come_to_rest(self) -> None:
        """Tick until nothing moves: whoever falls silent half-way leaves that to the driver."""
        self._tick()
        end = time.monotonic() + _LONGEST_BRAKING
        while not self._motion.at_rest and time.monotonic() < end:
            time.sleep(1.0 / self.profile.control_rate)
            # Simulated time stands still meanwhile: nobody hears it but this thread.
            self._step(self._motion.next_turn())

    def _receive_stop(self, message: String) -> None:
        self._guard_stop = message.data
        if message.data:
            self._stop_arms(f'guard_node: {message.data}')

    def _stop_arms(self, reason: str) -> None:
        """Stop at once and until a reset; what comes first is the reason, the rest changes nothing.

        Nothing is asked here: not the lifecycle, not the mode, not what runs.
        """
        if self._stop_reason:
            return
        self._stop_reason = reason
        self.get_logger().error(f'stopped: {reason}')
        self.beat()
        if self._tick_timer is not None:
            self._chunks.clock.flush()
            self._tick()

    def _obstacle(self) -> str:
        """Why no chunk may be executed, empty if they may."""
        # Drivers that came back since the last look must not cost a chunk.
        self._check_hindrance()
        if self._stop_reason:
            return f'while stopped: {self._stop_reason}'
        return f'while holding: {self._hindrance}' if self._hindrance else ''

    def _tick(self) -> None:
        if self._heart.since_interruption() < _YIELDS and self._watch.guard.was_heard:
            # This process stood still, and the guard may have begun to hold the arms. Two that
            # command them shake them: it is heard first, and then they start from where they are.
            self._motion.forget()
            return
        # Not to be set by anybody, unless it is simulated.
        simulated = self.get_clock().ros_time_is_active
        self._step(self.now() if simulated else time.monotonic())

    def _step(self, turn: float) -> None:
        """One control period; ``turn`` is the time in s of the motion."""
        measured = self._measured()
        # Without joint states nothing is executed from this tick on, not from the next look on.
        may_move = measured is not None and not self._stop_reason and not self._hindrance
        self._motion.step(self.now(), turn, measured, may_move, self._gives_way)
        self._ticks.tick()
        if self._motion.stop:
            self._stop_arms(self._motion.stop)

    def _measured(self) -> NDArray[np.float64] | None:
        return None if self._watch.joint_problem() else self._joints.newest()

    @property
    def _mode(self) -> str:
        if self._stop_reason:
            return STOPPED
        return RUNNING if self._motion.is_running else HOLDING

    def _look_around(self) -> None:
        """On the monotonic clock: whatever can be late must not be what says so."""
        self._watch.turn()
        self._check_writers()
        if self.is_active:
            self._check_hindrance()

    def _check_writers(self) -> None:
        """Stop for another writer, and leave the wire to it for as long as it is there."""
        other = self._watch.other_writer()
        if other:
            self._stop_arms(other)
        elif self._gives_way:
            # It has moved the arms to wherever it wanted.
            self._motion.forget()
        # Braking comes first: a driver that hears no more stops at once.
        self._gives_way = bool(other) and (self._gives_way or self._motion.at_rest)

    def _check_hindrance(self) -> None:
        """Take note when something keeps the arms from moving and when it no longer does."""
        before, now = self._hindrance, self._watch.hindrance()
        self._hindrance = now
        if now and not before:
            self._chunks.clock.flush()
            # Right after the start it is no fault that the drivers have not been heard. Two calls
            # on two lines: rclpy raises where one line logs at two severities.
            if self._joints.newest() is None:
                self.get_logger().warning(f'{now}: holding')
            else:
                self.get_logger().error(f'{now}: holding')
            if self._tick_timer is not None:
                self._tick()
        elif before and not now:
            self.get_logger().info(f'no longer: {before}')

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Forget chunks and stops, and hold the measured pose."""
        self._watch.look()
        reason = self._watch.other_writer()
        if self._guard_stop:
            reason = f'guard_node is stopped ({self._guard_stop}); reset it first'
        if reason:
            response.success, response.message = False, reason
            return response
        self._stop_reason = ''
        self._motion.hold_here(self._measured())
        # One that has left for good must not keep others from sending chunks.
        self._watch.policy.forget()
        self.beat()
        response.success, response.message = True, 'holding'
        return response

    def _report(self) -> None:
        silent = self._chunks.silent()
        level, text = diagnostics.OK, f'{self.state_label}, {self._mode}'
        if self.is_active and silent > self.profile.safety.chunk_timeout:
            level, text = diagnostics.WARN, f'holding: no chunk for {silent:.1f} s'
        if self.is_active and self._hindrance:
            level, text = diagnostics.ERROR, f'holding: {self._hindrance}'
        if self._stop_reason:
            level, text = diagnostics.ERROR, f'stopped: {self._stop_reason}'
        counts = vars(self._motion.interventions)
        clamps = {f'clamped {kind.replace("_", " ")}': count for kind, count in counts.items()}
        values = {
            'state': self.state_label,
            'mode': self._mode,
            'stop': self._stop_reason,
            'tick rate': self._ticks.read(),
            **self._chunks.values(),
            **self._watch.values(),
            'joint state rate': self._joints.rate.read(),
            'joint state age': self._joints.age(),
            'joint states refused': self._joints.refused,
            'last joint states refused': self._joints.refusal,
            **clamps,
        }
        self._reporter.publish(level, text, values, self.now())


def main() -> None:
    """Run the node as a process."""
    run_main(NAME, ArmNode)


if __name__ == '__main__':
    main()
