# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import xml.etree.ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation import plots
from hbvla_ros.evaluation.episode import EpisodeResult, Evaluation, Trace
from hbvla_ros.evaluation.report import (
    Media,
    reading,
    render_report,
    size_text,
    write_atomically,
)


def trace(arm: int = 1) -> Trace:
    times = np.arange(40) / 25
    commands = np.zeros((40, 14))
    commands[:, 7 * arm + 1] = np.sin(times)
    return Trace(times, commands, commands * 0.9)


def condition(name: str, successes: int, episodes: int, bits: float = 1.06) -> dict:
    results = [
        EpisodeResult(
            3_000_000 + index, 'put the <red> cube into the bucket', index < successes,
            4 if index < successes else 2, 5.0, 3, (0.02, 0.03, 0.04), trace(),
        )
        for index in range(episodes)
    ]  # fmt: skip
    evaluation = Evaluation('policy@1234', 'pick_place', results).to_json()
    size = {
        'name': name, 'stored_bits_per_weight': bits, 'nominal_bits_per_weight': 1.0,
        'quantized_bytes': 1_234_567, 'total_bytes': 4_000_001, 'driven': True,
    }  # fmt: skip
    return {'name': name, 'size': size, 'evaluation': evaluation, 'in_process': evaluation}


def report(*conditions: dict) -> dict:
    return {
        'title': 'Two arms', 'subtitle': 'now', 'notices': ['a notice'], 'command': 'hbvla demo',
        'method': 'how', 'versions': {'numpy': '2.2'}, 'conditions': list(conditions),
        'sizes': [one['size'] for one in conditions],
    }  # fmt: skip


class _Links(HTMLParser):
    """Collects everything a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.found += [value for key, value in attrs if key in ('src', 'poster', 'data')]
        self.found += [value for key, value in attrs if key == 'href' and tag == 'link']


def test_the_page_says_the_numbers_and_loads_nothing():
    first, second = condition('Full precision', 9, 10, 16.0), condition('1 bit', 2, 10)
    media = Media(
        video=b'mp4', poster=b'jpeg', strip=b'jpeg', tracking=plots.joint_tracking(trace()),
        latency=plots.latency_distribution({'Full precision': [0.02, 0.03], '1 bit': []}),
    )  # fmt: skip
    page = render_report(report(first, second), media)
    for text in ('9 of 10 episodes', '95 % Wilson interval: 60 to 98 %', '16.00', '1.06',
                 '1,234,567', '4,000,001', '30 ms median', '40 ms p95', 'a notice', '3000009',
                 'got to: lifted', '9/10 = 90 % (60 to 98 %)'):  # fmt: skip
        assert text in page, text
    assert 'put the &lt;red&gt; cube' in page and '<red>' not in page
    links = _Links()
    links.feed(page)
    assert len(links.found) == 3 and all(link.startswith('data:') for link in links.found)
    assert not re.search(r'(url\((?!#)|@import|<script|https?://(?!www\.w3\.org))', page)


def test_without_pictures_the_page_is_still_whole():
    page = render_report(report(condition('Full precision', 1, 2)), Media())
    assert page.rstrip().endswith('</html>') and 'Joint tracking' not in page
    assert '<video' not in page and '1 of 2 episodes' in page


@pytest.mark.parametrize(
    ('first', 'second', 'text'),
    [
        (9, 8, 'do not tell Full precision and 1 bit apart'),
        (10, 0, 'Full precision is the better one'),
        (0, 10, '1 bit is the better one'),
    ],
)
def test_the_reading_claims_no_more_than_the_intervals_allow(first, second, text):
    conditions = [condition('Full precision', first, 10), condition('1 bit', second, 10)]
    assert text in reading(conditions) and '10 episodes each' in reading(conditions)


def test_sizes_are_readable():
    assert [size_text(size) for size in (12, 1_500, 1_840_000, 15_100_000_000)] == [
        '12 bytes', '1.5 kB', '1.84 MB', '15.1 GB',
    ]  # fmt: skip


@pytest.mark.parametrize('arm', [0, 1])
def test_the_tracking_plot_shows_the_arm_that_moved(arm):
    assert plots.moving_arm(trace(arm)) == arm
    text = plots.joint_tracking(trace(arm))
    assert f'{("left", "right")[arm]} shoulder' in text
    assert 'currentColor' in text and '#010203' not in text
    root = xml.etree.ElementTree.fromstring(text.replace('xlink:', ''))
    assert 'width' not in root.attrib and root.attrib['viewBox']
    assert text == plots.joint_tracking(trace(arm))


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / 'report.html'
    write_atomically(path, 'first')
    write_atomically(path, b'second')
    assert path.read_text() == 'second' and list(tmp_path.iterdir()) == [path]
    (tmp_path / 'folder').mkdir()
    with pytest.raises(HbvlaError, match='folder: cannot write it: Is a directory'):
        write_atomically(tmp_path / 'folder', 'x')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['folder', 'report.html']
