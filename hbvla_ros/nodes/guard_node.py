# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A second process beside the arms' one: holds them when that one is dead, and latches stops.

It is started before the others and is no lifecycle node: there is no state in which it does not
watch. A stop passes no gate: whatever state the other nodes are in, they are told, and only an
explicit reset takes it back.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Empty, String
from std_srvs.srv import Trigger

from hbvla_ros.control.lookahead import look_ahead, no_targets
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.control.safety import SafetyStage, SafetyState
from hbvla_ros.nodes import diagnostics
from hbvla_ros.nodes.adapters import CommandWriter, WireReader, command_topics
from hbvla_ros.nodes.dead_man import DEAD_MAN_TABLE, DeadManButton
from hbvla_ros.nodes.heartbeat import ACTIVE, HOLD, STOPPED, Heartbeat, HeartbeatWatch, LivedTime
from hbvla_ros.nodes.joint_reader import JointReader
from hbvla_ros.nodes.parameters import Parameter, declare, read
from hbvla_ros.nodes.run import main as run_main
from hbvla_ros.nodes.stop_services import StopServices
from hbvla_ros.nodes.writers import WriterWatch

NAME = 'guard_node'
TABLE = (
    Parameter('robot', 'aloha_sim', 'Robot profile: a name or the path of a profile .yaml.'),
    Parameter(
        'heartbeat_rate', 20.0, 'Messages on ~/heartbeat per second, Hz.', low=10.0, high=100.0
    ),
    Parameter(
        'diagnostics_rate', 1.0, 'Reports on /diagnostics per second, Hz.', low=0.1, high=10.0
    ),
    *DEAD_MAN_TABLE,
)
# Times a second that it looks whether something is a reason to stop, Hz.
WATCH_RATE = 20.0
# A command on the wire that is no older, s, has a sender that lives: the arm node after all, or a
# stranger, whom the arm node would not contend with either.
_WIRE_ALIVE = 0.1
_STOP_RATE = 10.0
# The graph is asked for foreign writers so many times a second: cheap, but not for nothing.
_GRAPH_RATE = 5.0
# A button that is still pressed repeats itself at least so often, s.
_REQUEST_LASTS = 0.5


class GuardNode(Node):
    """Watches one robot's nodes, its command topics and its stop buttons.

    Publishes the latched ``stop`` (std_msgs/String: empty, or why), ``~/heartbeat`` and, in the
    place of an arm node that is dead, the commands that hold the arms. Serves ``~/stop`` and
    ``~/reset``; listens to ``~/stop_request`` and, if it is told to, to a dead-man's button.

    Args:
        **options: passed on to rclpy's node.

    Raises:
        HbvlaError: a bad parameter or profile.
    """

    def __init__(self, **options: Any) -> None:
        """Build everything, so that it is discovered long before it is needed."""
        super().__init__(NAME, **options)
        declare(self, TABLE)
        values = read(self, TABLE)
        profile = self.profile = RobotProfile.load(values['robot'])
        self._stage, self._state = SafetyStage.of(profile), SafetyState()
        self.stop_reason, self.holds = '', False
        self._foreign, self._requested = '', -np.inf
        self._lived = LivedTime(1.0 / WATCH_RATE)
        timeout = profile.safety.heartbeat_timeout
        self._arms = HeartbeatWatch(self, 'arm_node', timeout, self._lived)
        self._policy = HeartbeatWatch(self, 'policy_node', timeout, self._lived)
        self._joints, self._wire = JointReader(self, profile), WireReader(self, profile)
        self._writer = CommandWriter(self, profile)
        self._writers = WriterWatch(self, command_topics(profile))
        self._driver_stops = StopServices(self, profile.stop_services)
        self._reporter = diagnostics.Reporter(self, profile.robot)
        self._dead_man = DeadManButton(
            self, values['dead_man_topic'], values['dead_man_button'], values['dead_man_timeout'],
            self._lived, self._look_at_button,
        )  # fmt: skip
        self._told_to_hold = ''
        self._heart = Heartbeat(self, values['heartbeat_rate'], self._label)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._stops = self.create_publisher(String, 'stop', latched)
        self.create_subscription(Empty, '~/stop_request', self._receive_request, 5)
        self.create_service(Trigger, '~/stop', self._serve_stop)
        self.create_service(Trigger, '~/reset', self._serve_reset)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        for rate, callback in (
            (WATCH_RATE, self._watch),
            (_STOP_RATE, self._publish_stop),
            (_GRAPH_RATE, self._look_for_writers),
            (values['diagnostics_rate'], self._report),
            (profile.control_rate, self._tick),
        ):
            self.create_timer(1.0 / rate, callback, clock=steady)
        self._publish_stop()

    def start(self) -> None:
        """Nothing: it watches from its first moment on."""
        self.get_logger().info(f'watching over {self.profile.robot}')

    def stop(self) -> None:
        """Say so, if arms are left alone by this."""
        if self.holds:
            self.get_logger().error('leaves while it holds the arms: nobody commands them now')

    def _label(self) -> str:
        hold = self._dead_man.reason()
        words = f'{ACTIVE} {STOPPED}' if self.stop_reason else ACTIVE
        return f'{words}{HOLD}{hold}' if hold else words

    def _look_at_button(self) -> None:
        """Tell the arms at once when the dead-man's button changes; each beat says it again.

        It goes with the heart, so that arms which hear nothing of it hold for that.
        """
        reason = self._dead_man.reason()
        if reason != self._told_to_hold:
            self._told_to_hold = reason
            self._heart.beat()
            self.get_logger().info(f'arms hold: {reason}' if reason else 'dead-man: pressed')

    def _receive_request(self, message: Empty) -> None:
        self._requested = self._lived.now()
        self._latch('stop requested on ~/stop_request')

    def _serve_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._latch('stop requested on ~/stop')
        response.success, response.message = True, self.stop_reason
        return response

    def _serve_reset(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        self._look_for_writers()
        reason = self._reason()
        if reason:
            response.success, response.message = False, f'{reason}; that must end first'
            return response
        response.message = f'was stopped: {self.stop_reason}' if self.stop_reason else 'was clear'
        response.success, self.stop_reason, self.holds = True, '', False
        self._publish_stop()
        self.get_logger().info(f'reset, {response.message}')
        return response

    def _latch(self, reason: str) -> None:
        """Stop, for the first reason there is; a second one changes nothing."""
        if self.stop_reason:
            return
        self.stop_reason = reason
        self._publish_stop()
        self._driver_stops.call()
        self.get_logger().error(f'stop: {reason}')

    def _publish_stop(self) -> None:
        self._stops.publish(String(data=self.stop_reason))

    def _reason(self) -> str:
        """Why to stop now, empty while there is nothing."""
        if self._arms_are_dead():
            return f'arm_node is silent for {self._arms.age():.2f} s'
        if self._foreign:
            return self._foreign
        if self._lived.now() - self._requested < _REQUEST_LASTS:
            return 'a stop is requested on ~/stop_request'
        return ''

    def _arms_are_dead(self) -> bool:
        return self._arms.is_silent and self._arms.was_active

    def _wire_is_alive(self) -> bool:
        """Whether somebody commands the arms: then they are not held by a second one as well."""
        return time.monotonic() - self._wire.received < _WIRE_ALIVE

    def _look_for_writers(self) -> None:
        self._foreign = self._writers.strange()

    def _watch(self) -> None:
        self._lived.turn()
        self._look_at_button()
        reason = self._reason()
        if reason:
            self._latch(reason)
        if self.holds and self._arms.is_heard and self._arms.was_active:
            self.holds = False
            self.get_logger().warning('arm_node is back and holds by itself; still stopped')
        elif not self.holds and self._arms_are_dead() and not self._wire_is_alive():
            self._take_over()

    def _take_over(self) -> None:
        """From here on the guard holds: what the arms were told last, or where they are."""
        measured, seen = self._measured(), self._wire.pose.copy()
        if measured is not None:
            # A gripper with an action of its own shows nothing on the wire; nor is it sent here.
            unseen = ~np.isfinite(seen)
            seen[unseen] = measured[unseen]
        known = bool(np.isfinite(seen).all())
        self._state = SafetyState(seen if known else None, time.monotonic())
        self.holds = True
        self.get_logger().error('holding the arms in the place of arm_node')
        self._tick()

    def _measured(self) -> Any:
        return None if self._joints.problem() else self._joints.newest()

    def _now(self) -> float:
        return float(self.get_clock().now().nanoseconds) * 1e-9

    def _tick(self) -> None:
        if not self.holds:
            return
        measured, turn = self._measured(), time.monotonic()
        command, self._state = self._stage.command(self._state, None, measured, turn)
        if command is not None:
            self._writer.send(command, self._now(), True, self._ahead)

    def _ahead(self) -> Any:
        return look_ahead(self._stage, self._state, no_targets, self.profile.safety.horizon)

    def _report(self) -> None:
        level, text = diagnostics.OK, 'watching'
        if not self._arms.is_heard:
            level, text = diagnostics.WARN, 'watching; arm_node is not heard'
        if self._policy.is_silent and self._policy.was_active:
            level = diagnostics.ERROR
            text = f'policy_node is silent for {self._policy.age():.2f} s; arm_node holds'
        if self._dead_man.reason():
            level = max(level, diagnostics.WARN)
            text = f'{self._dead_man.reason()}; arm_node holds'
        if self.stop_reason:
            level, text = diagnostics.ERROR, f'stopped: {self.stop_reason}'
            text += ', holding the arms' if self.holds else ''
            if self._arms.is_heard and not self._arms.has_stopped:
                text += '; arm_node does not say that it has stopped'
        values = {
            'state': self._label(),
            'stop': self.stop_reason,
            'holds the arms': self.holds,
            'arm_node': self._arms.state or 'not heard',
            'arm_node silent': self._arms.age(),
            'policy_node': self._policy.state or 'not heard',
            'policy_node silent': self._policy.age(),
            'foreign writer': self._foreign,
            'joint states': self._joints.problem() or 'fresh',
            'stop services': self._driver_stops.result,
            'dead-man': self._dead_man.state(),
        }
        self._reporter.publish(level, text, values, self._now())


def main() -> None:
    """Run the node as a process."""
    run_main(NAME, GuardNode)


if __name__ == '__main__':
    main()
