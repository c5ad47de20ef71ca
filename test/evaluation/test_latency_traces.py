# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Injected latencies: constant, listed, drawn, and single inferences that go another way."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation.latency_traces import (
    LatencyTrace,
    Reply,
    parse_latency,
    parse_missing,
    parse_spike,
)


def draws(text, count, seed=0):
    source = parse_latency(text, seed)
    return [source.draw(index) for index in range(count)]


def test_a_number_is_a_constant():
    assert draws('0.08', 3) == [Reply(0.08)] * 3
    assert parse_latency('0.08', 0).describe() == '0.08 s, constant'


def test_two_numbers_are_median_and_95th_percentile():
    seconds = np.array([reply.seconds for reply in draws('0.08,0.2', 4000)])
    assert np.percentile(seconds, 50) == pytest.approx(0.08, rel=0.05)
    assert np.percentile(seconds, 95) == pytest.approx(0.2, rel=0.08)
    assert draws('0.08,0.2', 5) == draws('0.08,0.2', 5)
    assert draws('0.08,0.2', 5) != draws('0.08,0.2', 5, seed=1)
    assert [reply.seconds for reply in draws('0.1,0.1', 3)] == pytest.approx([0.1] * 3)


@pytest.mark.parametrize(
    'name, content',
    [
        ('trace.csv', 'latency_s,other\n0.1,x\n\nmissing,\n0.3\ninf\n'),
        ('trace.csv', '0.1\nmissing\n0.3\ninf\n'),
        ('trace.json', '[0.1, null, 0.3, Infinity]'),
        ('trace.json', '{"latencies_s": [0.1, "missing", 0.3, "inf"]}'),
    ],
)
def test_files(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content)
    expected = [Reply(0.1), Reply(0.1, True), Reply(0.3), Reply(math.inf), Reply(0.1)]
    assert draws(str(path), 5) == expected
    assert parse_latency(str(path), 0).describe() == f'4 latencies of {name}'


def test_events_take_the_first_inference_from_their_time_on():
    events = [parse_missing('2'), parse_spike('1.5@1.0'), parse_spike('inf@2.0')]
    trace = LatencyTrace(parse_latency('0.1', 0), events)
    replies = [trace.next(elapsed) for elapsed in (0.5, 1.2, 1.3, 2.5, 2.6, 2.7)]
    assert replies == [
        Reply(0.1), Reply(1.5), Reply(0.1), Reply(0.1, True), Reply(math.inf), Reply(0.1),
    ]  # fmt: skip
    assert [event.describe() for event in events] == ['lost at 2 s', '1.5 s at 1 s', 'inf s at 2 s']


@pytest.mark.parametrize(
    'text, message',
    [
        ('-0.1', 'seconds must be numbers from 0 on'),
        ('nan', 'seconds must be numbers from 0 on'),
        ('inf', 'seconds must be numbers from 0 on'),
        ('0.2,0.1', 'two numbers are a median and a 95th percentile'),
        ('0,0.1', 'two numbers are a median and a 95th percentile'),
        ('0.1,0.2,0.3', 'more belong into a .csv or .json file'),
        ('fast', 'give seconds .0.08., MEDIAN,P95'),
        ('/none/trace.csv', '/none/trace.csv: cannot read latencies: No such file'),
    ],
)
def test_bad_latencies(text, message):
    with pytest.raises(HbvlaError, match=message):
        parse_latency(text, 0)


@pytest.mark.parametrize(
    'name, content, message',
    [
        ('a.json', '[0.1, -1]', 'entry 2 is -1; write seconds'),
        ('a.json', '[true]', 'entry 1 is True'),
        ('a.json', '[[1]]', 'entry 1 is '),
        ('a.json', '{"p50": 1}', 'holds no list of latencies'),
        ('a.json', '[]', 'holds no list of latencies'),
        ('a.json', '[0.1', 'not a readable list of latencies'),
        ('a.csv', 'seconds\n', 'holds no list of latencies'),
        ('a.csv', '0.1\nsoon\n', "entry 2 is 'soon'"),
        ('a.csv', b'\xff\xfe\x00', 'not a readable list of latencies'),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(HbvlaError, match=message) as caught:
        parse_latency(str(path), 0)
    assert str(path) in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize('text', ['2.0', '@1', '2@', 'x@1', '2@x', '-1@2', '1@-2', 'nan@1'])
def test_bad_spikes(text):
    with pytest.raises(HbvlaError, match='write SECONDS@TIME in s'):
        parse_spike(text)


@pytest.mark.parametrize('text', ['', 'x', '-1', 'inf', 'nan'])
def test_bad_missing(text):
    with pytest.raises(HbvlaError, match='write the time in s after the first message'):
        parse_missing(text)
