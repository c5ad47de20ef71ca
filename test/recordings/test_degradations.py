# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What each fault does to a stream, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.recordings.bag_file import BagFile
from hbvla_ros.recordings.bag_ingest import seconds
from hbvla_ros.recordings.bag_stream import stream
from hbvla_ros.recordings.bag_topics import find_topics
from hbvla_ros.recordings.degradation_kinds import KINDS
from hbvla_ros.recordings.degradations import degrade, parse_degradation
from hbvla_ros.recordings.fixture import FixtureOptions, write_fixture
from hbvla_ros.recordings.recording import Needs

PROFILE = RobotProfile.load('aloha_sim')
NEEDS = Needs(tuple(camera.name for camera in PROFILE.cameras), 14, 'aloha_sim')
HIGH, LEFT = '/cam_high/image/compressed', '/left/joint_states'


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    path = tmp_path_factory.mktemp('bags') / 'bag'
    write_fixture(path, PROFILE, FixtureOptions(seconds=1.0, simulated=True))
    return path


def read(bag, *texts):
    with BagFile(bag) as file:
        topics = find_topics(bag, file.topics, PROFILE, NEEDS)
        faults = [parse_degradation(text) for text in texts]
        messages = stream(file, topics.every)
        return list(degrade(messages, faults, topics, PROFILE, file.span))


def of(messages, topic):
    return [message for message in messages if message.topic == topic]


def test_without_a_fault_nothing_changes(bag):
    messages = read(bag)
    assert [message.received for message in messages] == sorted(m.received for m in messages)
    assert all(message.clock == message.received for message in messages)
    assert len(of(messages, HIGH)) == 25 and len(of(messages, LEFT)) == 50


def test_dropped_streams_are_silent_while_it_lasts(bag):
    heard = of(read(bag, 'drop-camera:cam_high@0.2-0.6'), HIGH)
    elapsed = [(message.received - 1_000_000_000) * 1e-9 for message in heard]
    assert len(heard) == 15 and not any(0.2 <= time < 0.6 for time in elapsed)
    assert not of(read(bag, 'drop-joints:left'), LEFT)
    assert len(of(read(bag, 'drop-joints:left'), '/right/joint_states')) == 50
    without = read(bag, 'drop-camera')
    assert not any('image' in message.topic for message in without) and without


def test_a_frozen_camera_has_new_stamps_and_the_old_picture(bag):
    plain, frozen = of(read(bag), HIGH), of(read(bag, 'freeze-camera:cam_high@0.5'), HIGH)
    pictures = [bytes(message.content.data) for message in frozen]
    assert [m.content.header.stamp for m in frozen] == [m.content.header.stamp for m in plain]
    changed = [bytes(m.content.data) for m in plain]
    last = max(i for i, m in enumerate(plain) if m.received < 1.5e9)
    assert pictures[: last + 1] == changed[: last + 1] and len(set(changed)) == 25
    assert set(pictures[last:]) == {changed[last]}


def test_joints_in_another_order_say_the_same(bag):
    for plain, other in zip(
        of(read(bag), LEFT), of(read(bag, 'reorder-joints:left'), LEFT), strict=True
    ):
        assert other.content.name == plain.content.name[::-1]
        assert dict(zip(other.content.name, other.content.position, strict=True)) == dict(
            zip(plain.content.name, plain.content.position, strict=True)
        )


def test_a_joint_that_is_no_number_or_has_another_name(bag):
    spoilt = of(read(bag, 'nan-joint:left_elbow@0.5'), LEFT)
    bad = [np.isnan(message.content.position).sum() for message in spoilt]
    late = [message.received >= 1.5e9 for message in spoilt]
    assert bad == [int(flag) for flag in late] and 0 < sum(bad) < 50
    index = spoilt[0].content.name.index('left_elbow')
    assert np.isnan(spoilt[-1].content.position[index])
    renamed = of(read(bag, 'rename-joint:left/left_elbow'), LEFT)
    assert all(message.content.name[index] == 'not_left_elbow' for message in renamed)


def test_the_clock_is_set_for_stamps_and_time_of_day(bag):
    plain, stepped = read(bag), read(bag, 'clock-step:-0.1@0.5')
    for before, after in zip(plain, stepped, strict=True):
        step = -100_000_000 if before.received >= 1.5e9 else 0
        assert after.received == before.received and after.clock == before.clock + step
        if before.topic == '/clock':
            old, new = seconds(before.content.clock), seconds(after.content.clock)
        elif hasattr(before.content, 'header'):
            old, new = (seconds(m.content.header.stamp) for m in (before, after))
        else:
            continue
        assert new - old == pytest.approx(step * 1e-9, abs=1e-12)


def test_duplicates_and_pairs_in_the_wrong_order(bag):
    plain = of(read(bag), HIGH)
    doubled = of(read(bag, 'duplicate:cam_high'), HIGH)
    assert [m.content.header.stamp for m in doubled] == [
        stamp for m in plain for stamp in [m.content.header.stamp] * 2
    ]
    swapped = of(read(bag, 'out-of-order:cam_high'), HIGH)
    stamps = [seconds(message.content.header.stamp) for message in swapped]
    straight = [seconds(message.content.header.stamp) for message in plain]
    assert stamps[:4] == [straight[1], straight[0], straight[3], straight[2]]
    received = [message.received for message in read(bag, 'out-of-order')]
    assert received == sorted(received)


def test_stamps_of_zero(bag):
    messages = read(bag, 'zero-stamps:cam_high')
    assert all(seconds(message.content.header.stamp) == 0.0 for message in of(messages, HIGH))
    assert all(seconds(message.content.header.stamp) > 0.0 for message in of(messages, LEFT))
    everything = read(bag, 'zero-stamps')
    assert not any(
        seconds(m.content.header.stamp) for m in everything if hasattr(m.content, 'header')
    )


def test_faults_are_applied_in_their_order(bag):
    first = of(read(bag, 'duplicate:cam_high', 'drop-camera:cam_high@0.5'), HIGH)
    assert len(first) == 2 * sum(message.received < 1.5e9 for message in of(read(bag), HIGH))


@pytest.mark.parametrize(
    'text, message',
    [
        ('explode', 'write KIND.:ARGUMENT..@START.-STOP.. with a kind of drop-camera, '),
        ('drop-camera:cam_high@', 'write KIND'),
        ('drop-camera@1-x', 'write KIND'),
        ('drop-camera@1.2.3', 'the times after @ are no numbers'),
        ('drop-camera@2-1', 'it would end before it starts'),
        ('clock-step', 'write clock-step:SECONDS'),
        ('clock-step:soon', "'soon' is no number of seconds"),
        ('clock-step:inf', "'inf' is no number of seconds"),
        ('nan-joint', 'write nan-joint:JOINT'),
        ('rename-joint', 'write rename-joint:JOINT'),
    ],
)
def test_what_is_no_fault(text, message):
    with pytest.raises(HbvlaError, match=message) as caught:
        parse_degradation(text)
    assert str(caught.value).startswith(f'--degrade {text}: ')


@pytest.mark.parametrize(
    'text, message',
    [
        ('drop-camera:left', "no camera 'left'; there are cam_high, cam_left_wrist, cam_right_wr"),
        ('drop-joints:cam_high', "no arm 'cam_high'; there are left, right"),
        ('zero-stamps:up', "no stream 'up'; there are cam_high, .*, left, right"),
        ('nan-joint:elbow', "no joint 'elbow'; there are left_waist"),
    ],
)
def test_what_the_robot_does_not_have(bag, text, message):
    with pytest.raises(HbvlaError, match=message):
        read(bag, text)


def test_a_joint_of_two_arms_is_named_with_its_arm(tmp_path):
    profile = RobotProfile.load('cobot_magic')
    needs = Needs(tuple(camera.name for camera in profile.cameras), 14, profile.robot)
    write_fixture(tmp_path / 'bag', profile, FixtureOptions(seconds=0.2, size=(32, 24)))
    joint, arm = profile.arms[0].joints[0], profile.arms[1].name
    assert joint in profile.arms[1].joints

    def spoilt(text):
        with BagFile(tmp_path / 'bag') as file:
            topics = find_topics(tmp_path / 'bag', file.topics, profile, needs)
            messages = degrade(stream(file, topics.every), [parse_degradation(text)], topics,
                               profile, file.span)  # fmt: skip
            return {
                message.topic for message in messages
                if hasattr(message.content, 'position') and np.isnan(message.content.position).any()
            }  # fmt: skip

    assert len(spoilt(f'nan-joint:{joint}')) == 2
    assert spoilt(f'nan-joint:{arm}/{joint}') == {profile.arms[1].state_topic}


def test_every_kind_is_described():
    from pathlib import Path

    text = (Path(__file__).resolve().parents[2] / 'docs' / 'replay.md').read_text()
    for name, kind in KINDS.items():
        argument = f':{kind.argument}' if kind.required else f'[:{kind.argument}]'
        assert f'| `{name}{argument}`' in text, name
