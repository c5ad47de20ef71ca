# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Compares the running ROS 2 graph with a robot profile, for ``hbvla doctor --robot``.

A program of its own: it listens for some seconds and prints its findings as one line of JSON.
They have the fields of those of ``hbvla doctor``.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Iterator
from functools import partial
from importlib import import_module

import rclpy
from rclpy.context import Context
from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.topic_endpoint_info import TopicEndpointInfo

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.nodes.graph_expectations import Expectation
from hbvla_ros.nodes.graph_view import GraphView, node_of

Finding = dict[str, str]
_WHY = {
    True: 'without it the arm does not follow',
    False: 'without it no observation is complete and no inference starts',
}
# Who delivers this share of its rate is fine.
_SHARE = 0.9
_MOST_NAMES = 6


def check(profile: RobotProfile, namespace: str, seconds: float) -> list[Finding]:
    """Listen to the graph of this environment and compare it with a profile.

    Args:
        profile: the robot.
        namespace: namespace of the nodes, empty for none.
        seconds: how long to listen.
    """
    context = Context()
    rclpy.init(context=context)
    try:
        view = GraphView(profile, namespace, context)
        try:
            view.listen(seconds)
            return findings(view)
        finally:
            view.close()
    finally:
        rclpy.shutdown(context=context)


def findings(view: GraphView) -> list[Finding]:
    """One finding for each topic that is in order and for each problem; writers last."""
    found = [_nodes(view), *_absent_messages(view)]
    for expected in view.expected:
        problems = list(_problems(view, expected))
        present = view.others(expected)
        if problems:
            found += problems
        elif present:
            found.append(_in_order(view, expected, present))
    found += _stop_services(view)
    return found + [_writers(view, each) for each in view.expected if each.commanded]


def _nodes(view: GraphView) -> Finding:
    names, domain = view.nodes(), os.environ.get('ROS_DOMAIN_ID', '0')
    return _finding(
        'ROS 2 graph',
        'ok' if names else 'fault',
        f'{len(names)} nodes in domain {domain}' + (f': {_list(names)}' if names else ''),
        'a robot that is up shows its drivers and cameras here',
        'none'
        if names
        else 'start the drivers; use the same ROS_DOMAIN_ID, RMW_IMPLEMENTATION and '
        'ROS_AUTOMATIC_DISCOVERY_RANGE everywhere',
    )


def _absent_messages(view: GraphView) -> Iterator[Finding]:
    """Types of the profile that are not installed here; without them arm_node does not start."""
    for kind in sorted({expected.type for expected in view.expected}):
        package, folder, name = kind.split('/')
        try:
            # An action's feedback is generated with the action.
            getattr(import_module(f'{package}.{folder}'), name.partition('_')[0])
        except (ImportError, AttributeError) as error:
            yield _finding(
                f'messages {package}',
                'fault',
                f'{kind} cannot be imported: {error}',
                'the adapter that the profile asks for needs it',
                f'install ros-$ROS_DISTRO-{package.replace("_", "-")}, or build {package} in the '
                'workspace and source it; or another adapter in the profile',
            )


def _problems(view: GraphView, expected: Expectation) -> Iterator[Finding]:
    """What is wrong with one topic."""
    topic, present = view.full(expected.topic), view.others(expected)
    fault = partial(_finding, f'topic {topic}', 'fault', why=_WHY[expected.commanded])
    if not present:
        if expected.required:
            yield _missing(view, expected)
        return
    for end in present:
        text, fix = _mismatch(expected, end)
        if text:
            yield fault(found=f'{expected.what}: {node_of(end)} {text}', fix=fix)
    if expected.topic in view.joint_problems:
        yield fault(
            found=f'{expected.what}: {view.joint_problems[expected.topic]}',
            fix='name the joints in the profile as the driver names them',
        )
    if expected.rate > 0.0 and any(end.topic_type == expected.type for end in present):
        yield from _slowness(view, expected)


def _missing(view: GraphView, expected: Expectation) -> Finding:
    """Nobody is there; topics of the same type may be the ones that are meant."""
    alike = view.unexpected(expected.type)
    hint = f'; of that type there are {_list(alike)}' if alike else ''
    who = 'nobody listens' if expected.commanded else 'nobody publishes'
    return _finding(
        f'topic {view.full(expected.topic)}',
        'fault',
        f'{expected.what}: missing, {who} ({expected.type}){hint}',
        _WHY[expected.commanded],
        'start its driver, or remap it to this name (else --namespace, or the topic in the '
        'profile)',
    )


def _mismatch(expected: Expectation, end: TopicEndpointInfo) -> tuple[str, str]:
    """What keeps one end from meeting ours, and what to do; empty when they meet."""
    verb = 'listens for' if expected.commanded else 'publishes'
    if end.topic_type != expected.type:
        return (
            f'{verb} {end.topic_type}, wrong type, expected {expected.type}',
            'name the right topic or adapter in the profile, or remap the driver',
        )
    theirs, ours = end.qos_profile, expected.quality
    problem = _incompatible(*((ours, theirs) if expected.commanded else (theirs, ours)))
    if not problem:
        return '', ''
    return (
        f'{verb} it with incompatible {problem}',
        f'change the quality of service of {node_of(end)}, for example by its qos_overrides',
    )


def _incompatible(publisher: QoSProfile, subscription: QoSProfile) -> str:
    """Which policy keeps the two from meeting, with both values; empty when they meet."""
    verdict, reason = qos_check_compatible(publisher, subscription)
    if verdict != QoSCompatibility.ERROR:
        return ''
    named = []
    if (publisher.reliability, subscription.reliability) == (
        ReliabilityPolicy.BEST_EFFORT,
        ReliabilityPolicy.RELIABLE,
    ):
        named.append('reliability (offered best effort, requested reliable)')
    if (publisher.durability, subscription.durability) == (
        DurabilityPolicy.VOLATILE,
        DurabilityPolicy.TRANSIENT_LOCAL,
    ):
        named.append('durability (offered volatile, requested transient local)')
    return ' and '.join(named) or f'quality of service ({reason})'


def _slowness(view: GraphView, expected: Expectation) -> Iterator[Finding]:
    """What is wrong with the measured rate, if anything."""
    arrivals = view.arrivals[expected.topic]
    rate, gap = arrivals.rate, arrivals.longest_gap
    if rate >= _SHARE * expected.rate and gap <= expected.timeout:
        return
    # Seldom: even evenly spaced, what arrives is too old before the next one comes.
    seldom = rate * expected.timeout < 1.0
    yield _finding(
        f'topic {view.full(expected.topic)}',
        'fault' if seldom else 'warning',
        f'{expected.what}: {rate:.1f} Hz of {expected.rate:g} Hz delivered, longest gap '
        f'{gap:.2f} s of {expected.timeout:g} s allowed'
        + (' (in real time; there is a simulated clock)' if view.is_simulated() else ''),
        'the arms hold when nothing new has come for so long',
        "set the driver's rate, use compressed images, give every camera its own USB controller; "
        'or correct the rate in the profile',
    )


def _in_order(view: GraphView, expected: Expectation, present: list[TopicEndpointInfo]) -> Finding:
    arrivals = view.arrivals.get(expected.topic)
    rate = f', {arrivals.rate:.1f} Hz of {expected.rate:g} Hz' if arrivals else ''
    way = 'to' if expected.commanded else 'from'
    found = f'{expected.what}: {expected.type} {way} {_list({node_of(e) for e in present})}{rate}'
    return _finding(f'topic {view.full(expected.topic)}', 'ok', found, _WHY[expected.commanded])


def _stop_services(view: GraphView) -> Iterator[Finding]:
    """The drivers' own stops: a service that is not there is noticed when it is needed."""
    served = view.services()
    for stop in view.stop_services:
        name, wanted = view.full(stop.name), stop.type.replace('/', '/srv/')
        report = partial(_finding, f'service {name}', why='guard_node calls it when it stops')
        kinds = served.get(name, [])
        if wanted in kinds:
            yield report('ok', found=f'driver stop: {wanted}')
        elif kinds:
            yield report(
                'fault',
                found=f'driver stop: {_list(kinds)}, wrong type, expected {wanted}',
                fix='name its type in stop_services of the profile',
            )
        else:
            yield report(
                'fault',
                found=f'driver stop: missing, nobody serves it ({wanted})',
                fix='start the driver, or correct stop_services in the profile',
            )


def _writers(view: GraphView, expected: Expectation) -> Finding:
    """Whoever publishes commands besides arm_node and guard_node, by node."""
    name = f'writers {view.full(expected.topic)}'
    writers, allowed = view.writers(expected), view.allowed_writers()
    wrong = {writer for writer in writers if writer not in allowed}
    wrong |= {writer for writer in allowed if writers.count(writer) > 1}
    why = 'two writers pull the arm to and fro, and the guard stops when it sees one too many'
    if not wrong:
        found = f'{expected.what}: {_list(writers) or "no writer yet"}'
        return _finding(name, 'ok', found, why)
    found = f'{expected.what}: {len(writers)} writers, {_list(writers)}'
    fix = f'stop {_list(wrong)}, or remap what it publishes; only {" and ".join(allowed)} may'
    return _finding(name, 'fault', found, why, fix)


def _finding(name: str, state: str, found: str, why: str, fix: str = 'none') -> Finding:
    return {'name': name, 'state': state, 'found': found, 'why': why, 'fix': fix}


def _list(names: Iterable[str]) -> str:
    """The first names in order, and how many more."""
    ordered = sorted(names)
    more = len(ordered) - _MOST_NAMES
    return ', '.join(ordered[:_MOST_NAMES]) + (f' and {more} more' if more > 0 else '')


def main() -> None:
    """Print the findings as one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument('robot')
    parser.add_argument('--namespace', default='')
    parser.add_argument('--seconds', type=float, default=5.0)
    options = parser.parse_args()
    profile = RobotProfile.load(options.robot)
    print(json.dumps({'findings': check(profile, options.namespace, options.seconds)}))


if __name__ == '__main__':
    main()
