# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Reading pages of the documentation: their sections and tables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def read_page(name):
    return (ROOT / name).read_text(encoding='utf-8')


def text_below(text, heading):
    """The text below a heading, to the next one of the same or a higher level."""
    found = re.search(rf'^(#+) {re.escape(heading)}$', text, re.MULTILINE)
    assert found, f'no heading {heading!r}'
    rest = text[found.end() :]
    end = re.search(rf'^#{{1,{len(found[1])}}} ', rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def table_rows(text):
    """Cells of the table rows whose first cell begins as code."""
    lines = [line.strip().strip('|').split('|') for line in text.splitlines() if '|' in line]
    return [[cell.strip() for cell in cells] for cells in lines if cells[0].strip()[:1] == '`']


def code_words(text):
    """The code words in the first cells of a table."""
    return [word for cells in table_rows(text) for word in re.findall(r'`([^`]+)`', cells[0])]


@pytest.fixture(scope='session')
def page():
    """Reads a text file of the repository by its path there."""
    return read_page


@pytest.fixture(scope='session')
def section():
    """Takes the text below a heading."""
    return text_below


@pytest.fixture(scope='session')
def rows():
    """Takes the cells of table rows that begin with code."""
    return table_rows


@pytest.fixture(scope='session')
def names():
    """Takes the code words in the first cells of a table."""
    return code_words
