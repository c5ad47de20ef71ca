# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import site
import sys

import pytest

from hbvla_ros.errors import HbvlaError
from hbvla_ros.resources import share_path


@pytest.mark.parametrize('how', ['prefix', 'user', 'ament'])
def test_every_kind_of_installation_is_found(how, tmp_path, monkeypatch):
    file = tmp_path / 'share' / 'hbvla_ros' / 'config' / 'only_here.yaml'
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(HbvlaError, match='only_here.yaml: not found in this installation'):
        share_path('config', 'only_here.yaml')
    if how == 'prefix':
        monkeypatch.setattr(sys, 'prefix', str(tmp_path))
    elif how == 'user':
        monkeypatch.setattr(site, 'getuserbase', lambda: str(tmp_path))
    else:
        monkeypatch.setenv('AMENT_PREFIX_PATH', f'/nowhere:{tmp_path}')
    assert share_path('config', 'only_here.yaml') == file
