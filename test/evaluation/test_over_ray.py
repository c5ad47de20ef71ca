# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Ray is not among the packages that the tests install: its interface stands in for it."""

from __future__ import annotations

import socket
import sys
from types import SimpleNamespace

import pytest

from hbvla_ros.errors import HbvlaError
from hbvla_ros.evaluation import over_ray
from hbvla_ros.evaluation.harness import Execution, run
from hbvla_ros.evaluation.plan import Candidate, Settings, closed_loop_units

UNITS = closed_loop_units(
    [Candidate('/models/a', 'a@1')], ['pick_place'], range(3_000_000, 3_000_005), Settings()
)


class StandIn(SimpleNamespace):
    """The parts of ray's interface that are used, on this thread."""

    def __init__(self, cpus: int = 3) -> None:
        super().__init__()
        self.cpus, self.asked, self.actors, self.running = cpus, {}, 0, False
        self.exceptions = SimpleNamespace(RayError=RuntimeError)
        self.util = SimpleNamespace(ActorPool=Pool)

    def is_initialized(self) -> bool:
        return self.running

    def init(self, **options) -> None:
        self.running, self.asked = True, options

    def shutdown(self) -> None:
        self.running = False

    def cluster_resources(self) -> dict[str, float]:
        return {'CPU': float(self.cpus), 'GPU': 0.0}

    def remote(self, **resources):
        assert resources == {'num_cpus': 1, 'num_gpus': 0}
        return self.decorate

    def decorate(self, kind):
        def make(*arguments):
            self.actors += 1
            actor = kind(*arguments)
            return SimpleNamespace(run=SimpleNamespace(remote=actor.run))

        return SimpleNamespace(remote=make)


class Pool:
    def __init__(self, actors) -> None:
        self.actors = actors

    def map(self, call, values):
        for index, value in enumerate(values):
            yield call(self.actors[index % len(self.actors)], value)


class Runner:
    def __init__(self, settings) -> None:
        pass

    def run(self, unit):
        if unit.seeds == (3_000_004,):
            raise HbvlaError('the camera is broken')
        return {'seconds': 1.0, 'episodes': [{'seed': unit.seeds[0]}]}


@pytest.fixture
def ray(monkeypatch) -> StandIn:
    found = StandIn()
    monkeypatch.setitem(sys.modules, 'ray', found)
    monkeypatch.setattr(over_ray, 'UnitRunner', Runner)
    return found


def test_units_are_spread_over_one_actor_a_core(ray):
    seen = []
    outcomes = run(UNITS[:4], Settings(), Execution(None, ray=True), done=lambda *a: seen.append(a))
    assert [outcomes[unit]['episodes'][0]['seed'] for unit in UNITS[:4]] == [
        unit.seeds[0] for unit in UNITS[:4]
    ]
    assert ray.actors == 3 and len(seen) == 4 and not ray.running
    assert ray.asked['runtime_env']['env_vars']['LP_NUM_THREADS'] == '0'
    run(UNITS[:4], Settings(), Execution(2, ray=True))
    assert ray.actors == 5


def test_an_error_on_another_machine_is_one_line_here(ray):
    with pytest.raises(HbvlaError, match='^the camera is broken$'):
        run(UNITS, Settings(), Execution(None, ray=True))
    assert not ray.running


def test_a_cluster_that_is_not_there_is_one_line(ray, monkeypatch):
    def unreachable(**_):
        raise ConnectionError('ray://nowhere: timed out\nsee the log')

    monkeypatch.setattr(ray, 'init', unreachable)
    with pytest.raises(HbvlaError, match='^--ray: ray://nowhere: timed out$'):
        run(UNITS, Settings(), Execution(None, ray=True))


def test_an_address_at_which_nothing_answers_is_refused_at_once(ray, monkeypatch):
    with socket.socket() as silent:
        silent.bind(('127.0.0.1', 0))
        port = silent.getsockname()[1]
        for address in (f'127.0.0.1:{port}', f'ray://127.0.0.1:{port}'):
            monkeypatch.setenv('RAY_ADDRESS', address)
            with pytest.raises(HbvlaError, match=f'nothing answers at RAY_ADDRESS {address}'):
                over_ray.check_cluster()
        silent.listen()
        over_ray.check_cluster()
    for address in ('auto', 'local', ''):
        monkeypatch.setenv('RAY_ADDRESS', address)
        over_ray.check_cluster()


def test_without_ray_the_line_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, 'ray', None)
    with pytest.raises(HbvlaError, match='--ray: package ray is not installed; .*pip install ray'):
        run(UNITS, Settings(), Execution(None, ray=True))
    with pytest.raises(HbvlaError, match='--ray: package ray is not installed'):
        over_ray.check_cluster()
