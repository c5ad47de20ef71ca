# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What QUALITY_DECLARATION.md says of the repository, where that can be looked up."""

from __future__ import annotations

import ast
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import hbvla_ros

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / 'QUALITY_DECLARATION.md').read_text(encoding='utf-8')
HEADER = '# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0'
SOURCES = [
    path
    for folder in ('hbvla_ros', 'launch', 'test')
    for path in sorted((ROOT / folder).rglob('*.py'))
]


def test_every_source_file_has_its_copyright():
    assert len(SOURCES) > 300
    without = [path for path in SOURCES if not path.read_text('utf-8').startswith(HEADER)]
    assert not without


def test_version_and_license_are_those_of_the_package():
    package = ElementTree.parse(ROOT / 'package.xml').getroot()
    version = package.findtext('version')
    assert f'The version is {version}, ' in TEXT and version == hbvla_ros.__version__
    assert package.findtext('license') == 'Apache-2.0' and 'Apache-2.0' in TEXT
    call = ast.parse((ROOT / 'setup.py').read_text('utf-8')).body[-1].value
    assert {k.arg: k.value for k in call.keywords}['version'].value == version
    assert int(version.partition('.')[0]) == 0, 'the declaration says that it is not stable'


def test_it_claims_one_level_and_is_linked():
    assert re.findall(r'Quality Level (\d)', TEXT) == ['4']
    assert '(../QUALITY_DECLARATION.md)' in (ROOT / 'docs' / 'README.md').read_text('utf-8')
    assert 'QUALITY_DECLARATION.md' in (ROOT / 'package.xml').read_text('utf-8')
    for target in re.findall(r'\]\(([^)\s]+)\)', TEXT):
        assert target.startswith('https://') or (ROOT / target).exists(), target
