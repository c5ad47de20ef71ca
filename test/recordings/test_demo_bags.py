# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""One demonstration, read from its own file and from its bag."""

from __future__ import annotations

import json

import numpy as np
import pytest
import simplejpeg

from hbvla_ros.cli.main import main
from hbvla_ros.control.profile import RobotProfile
from hbvla_ros.errors import HbvlaError
from hbvla_ros.recordings import demo_bags
from hbvla_ros.recordings.bag_file import BagFile
from hbvla_ros.recordings.demo_bags import write_bag, write_bags
from hbvla_ros.recordings.open import open_recordings
from hbvla_ros.recordings.recording import Given, Needs
from hbvla_ros.sim import dataset
from hbvla_ros.sim.dataset_manifest import DatasetManifest, episode_path

PROFILE = RobotProfile.load('aloha_sim')
CAMERAS = tuple(camera.name for camera in PROFILE.cameras)
NEEDS = Needs(CAMERAS, 14, 'aloha_sim')
TASK = 'put the green cylinder into the bucket'
FRAMES, ROWS = 7, 16
PERIOD, STEP = 0.12, 0.04


def write_demo(path, seed=0):
    """An episode as ``hbvla demos`` writes it: same JPEG settings, float32, rows and keys."""
    random = np.random.default_rng(seed)
    chunks = random.uniform(-1, 1, (FRAMES, ROWS, 14)).astype(np.float32)
    poses = random.uniform(-1, 1, (FRAMES, 14)).astype(np.float32)
    for values in (chunks, poses):
        values[..., [6, 13]] = random.uniform(0, 1, values[..., :2].shape)
    arrays = {'proprioception': poses, 'chunks': chunks, 'instruction': np.array(TASK)}
    for camera in CAMERAS:
        # Smooth, with fine colour noise, so that decoders which differ would be seen to.
        coarse = random.uniform(0, 255, (FRAMES, 8, 8, 3)).repeat(8, axis=1).repeat(8, axis=2)
        images = np.clip(coarse + random.normal(0, 12, coarse.shape), 0, 255).astype(np.uint8)
        files = [simplejpeg.encode_jpeg(image, 95, 'RGB', '420') for image in images]
        arrays[f'jpeg_{camera}'] = np.frombuffer(b''.join(files), np.uint8)
        arrays[f'offset_{camera}'] = np.cumsum([0, *map(len, files)])
    np.savez(path, **arrays)
    return path


@pytest.fixture
def demo(tmp_path):
    return write_demo(tmp_path / 'episode_1000003.npz')


@pytest.fixture
def bag(demo, tmp_path):
    write_bag(demo, tmp_path / 'bag', PROFILE, PERIOD, STEP)
    return tmp_path / 'bag'


def messages(bag, *topics):
    """Parsed messages of some topics with their times in s."""
    with BagFile(bag) as file:
        return [(one.time * 1e-9, file.parse(one)) for one in file.messages(topics)]


def stamp(message):
    return message.header.stamp.sec + message.header.stamp.nanosec * 1e-9


@pytest.mark.parametrize('cameras', [CAMERAS, CAMERAS[1:], CAMERAS[:1]], ids=len)
def test_calibration_is_given_the_same_observations(demo, bag, cameras):
    needs = Needs(cameras, 14, 'aloha_sim')
    (own,), (other,) = open_recordings(demo, needs), open_recordings(bag, needs)
    assert (own.kind, other.kind) == ('simulator', 'rosbag')
    assert len(own) == len(other) == FRAMES
    for index in range(FRAMES):
        expected, seen = own.observation(index), other.observation(index)
        assert seen.instruction == expected.instruction == TASK
        assert list(seen.images) == list(cameras)
        for camera in cameras:
            np.testing.assert_array_equal(seen.images[camera], expected.images[camera])
        np.testing.assert_array_equal(
            seen.proprioception.astype(np.float32), expected.proprioception.astype(np.float32)
        )
        assert seen.stamp == pytest.approx(1.0 + index * PERIOD)


def test_the_images_are_the_same_files(demo, bag):
    with np.load(demo) as content:
        data, offset = content['jpeg_cam_left_wrist'], content['offset_cam_left_wrist']
    seen = [one.data for _, one in messages(bag, '/cam_left_wrist/image/compressed')]
    assert len(seen) == FRAMES
    for index, file in enumerate(seen):
        np.testing.assert_array_equal(file, data[offset[index] : offset[index + 1]])


def test_the_commands_are_the_expert_s(demo, bag):
    with np.load(demo) as content:
        chunks = content['chunks']
    poses = []
    for arm in PROFILE.arms:
        values = np.array([one.data for _, one in messages(bag, f'/{arm.command_topic}')])
        # In the driver's unit: the distance of a finger from the middle, in m.
        assert ((values[:, -1] > 0.018) & (values[:, -1] < 0.0581)).all()
        values[:, -1] = arm.command.to_ratio(values[:, -1])
        poses.append(values)
    commands = np.concatenate(poses, axis=1)
    np.testing.assert_array_equal(commands.astype(np.float32), chunks[:, 0])


def test_the_chunks_are_the_expert_s(demo, bag):
    with np.load(demo) as content:
        chunks = content['chunks']
    seen = messages(bag, '/action_chunks')
    for index, (time, message) in enumerate(seen):
        assert time == pytest.approx(1.0 + index * PERIOD) == stamp(message)
        assert tuple(message.joint_names) == PROFILE.action_names
        rows = np.array([point.positions for point in message.points])
        np.testing.assert_array_equal(rows, chunks[index].astype(np.float64))
        due = [p.time_from_start.sec + p.time_from_start.nanosec * 1e-9 for p in message.points]
        np.testing.assert_allclose(due, STEP * np.arange(ROWS), atol=1e-9)
    assert len(seen) == FRAMES


def test_time_stands_in_front_of_what_happens_at_it(bag):
    with BagFile(bag) as file:
        order = [(one.time, one.topic) for one in file.messages(list(file.topics))]
    assert order[0] == (1_000_000_000, '/instruction')
    # The clock, two arms, three cameras, the chunk, two commands; then the clock goes on.
    frames = [order[1 + 14 * index : 15 + 14 * index] for index in range(FRAMES)]
    for index, frame in enumerate(frames):
        start = 1 + index * PERIOD
        assert frame[0][1] == '/clock' and len({topic for _, topic in frame[:9]}) == 9
        assert {time for time, _ in frame[:9]} == {round(start * 1e9)}
        expected = [(round((start + tick * 0.02) * 1e9), '/clock') for tick in range(1, 6)]
        assert frame[9:] == expected
    assert len(order) == 1 + 14 * FRAMES
    for time, message in messages(bag, '/clock'):
        assert message.clock.sec + message.clock.nanosec * 1e-9 == pytest.approx(time)


def test_the_instruction_reaches_who_comes_late(bag):
    text = (bag / 'metadata.yaml').read_text()
    topic = text[text.index('name: /instruction') :]
    assert 'durability: transient_local' in topic[: topic.index('message_count')]


def test_another_profile_s_topics_are_refused_by_name(demo, bag):
    with pytest.raises(HbvlaError, match="the profile aloha_sim is for robot 'aloha_sim'"):
        open_recordings(bag, Needs(CAMERAS, 14, 'other'), Given(profile='aloha_sim'))


def test_a_folder_of_bags_goes_on_where_it_stopped(tmp_path, monkeypatch):
    demos = [write_demo(tmp_path / f'episode_{number}.npz', number) for number in range(3)]
    folder = tmp_path / 'bags'
    whole, calls = demo_bags.write_bag, []

    def interrupted(episode, bag, *options):
        calls.append(episode.stem)
        whole(episode, bag, *options)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(demo_bags, 'write_bag', interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_bags(demos, folder, PROFILE, PERIOD, STEP)
    assert [path.name for path in folder.iterdir()] == ['episode_0']
    seen = []
    bags = write_bags(demos, folder, PROFILE, PERIOD, STEP, seen.append)
    assert bags == seen == [folder / f'episode_{number}' for number in range(3)]
    assert calls == ['episode_0', 'episode_1', 'episode_1', 'episode_2']
    recordings = open_recordings(folder, NEEDS)
    assert [one.name for one in recordings] == ['episode_0', 'episode_1', 'episode_2']
    assert sorted(path.name for path in (folder / 'episode_2').iterdir()) == [
        'episode_2.mcap', 'metadata.yaml',
    ]  # fmt: skip


def test_the_same_episode_gives_the_same_bytes(demo, tmp_path):
    places = [tmp_path / 'one' / 'bag', tmp_path / 'two' / 'bag']
    for place in places:
        write_bag(demo, place, PROFILE, PERIOD, STEP)
    files = [(place / 'bag.mcap').read_bytes() for place in places]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'chunks': None}, 'no readable chunks'),
        ({'chunks': np.zeros((FRAMES, ROWS, 7), np.float32)}, r'chunks of shape \(7, 16, 7\)'),
        ({'chunks': np.zeros((3, ROWS, 14), np.float32)}, 'for 7 frames of 14 joints'),
        ({'offset_cam_high': np.zeros(2, np.int64)}, 'frame 1 of cam_high is damaged'),
        ({'jpeg_cam_high': None}, 'no jpeg_cam_high'),
    ],
    ids=['none', 'one_arm', 'short', 'images', 'camera'],
)
def test_a_damaged_episode_is_one_line_and_leaves_nothing(demo, tmp_path, change, message):
    with np.load(demo) as content:
        arrays = {**content, **change}
    np.savez(demo, **{key: value for key, value in arrays.items() if value is not None})
    with pytest.raises(HbvlaError, match=f'^{demo}: .*{message}'):
        write_bags([demo], tmp_path / 'bags', PROFILE, PERIOD, STEP)
    assert not list((tmp_path / 'bags').iterdir())


def test_no_place_for_the_bags_is_one_line(demo):
    with pytest.raises(HbvlaError, match=r'episode_1000003.npz: cannot write it: File exists'):
        write_bags([demo], demo, PROFILE, PERIOD, STEP)


@pytest.fixture
def generated(monkeypatch):
    """Two kept episodes and a discarded one, without a simulator."""

    def generate(folder, episodes, seed, workers, camera_size, progress, task, actors):
        assert actors is None
        folder.mkdir(parents=True, exist_ok=True)
        manifest = DatasetManifest(
            task, list(CAMERAS), camera_size, 25.0, 3, ROWS, [], failed=[seed + 1]
        )
        for number in (seed, seed + 2, 1_000_900):
            write_demo(episode_path(folder, number), number)
            manifest.episodes[str(number)] = FRAMES
        return manifest

    monkeypatch.setattr(dataset, 'generate', generate)


def test_the_command_writes_bags_of_what_it_was_asked_for(generated, tmp_path, capsys):
    out, bags = tmp_path / 'demos', tmp_path / 'bags'
    arguments = ['demos', '--out', str(out), '--episodes', '3', '--bags', str(bags)]
    assert main(arguments) == 0
    assert sorted(path.name for path in bags.iterdir()) == ['episode_1000000', 'episode_1000002']
    assert f'{bags}: 2 bags' in capsys.readouterr().out
    times = [time for time, _ in messages(bags / 'episode_1000000', '/action_chunks')]
    np.testing.assert_allclose(times, 1.0 + 3 / 25 * np.arange(FRAMES))


def test_of_several_tasks_each_has_its_folder(generated, tmp_path):
    arguments = ['demos', '--out', str(tmp_path / 'demos'), '--episodes', '1', '--task']
    names = ['pick_place', 'sequence']
    assert main([*arguments, *names, '--bags', str(tmp_path / 'bags')]) == 0
    for name in names:
        (bag,) = (tmp_path / 'bags' / name).iterdir()
        assert json.dumps(bag.name) == '"episode_1000000"'
        assert (tmp_path / 'demos' / name / f'{bag.name}.npz').is_file()


def test_measuring_makes_no_bags(tmp_path, capsys):
    arguments = ['demos', '--measure', '--episodes', '1', '--bags', str(tmp_path / 'bags')]
    assert main(arguments) == 2
    assert '--measure records nothing: leave out --bags' in capsys.readouterr().err
