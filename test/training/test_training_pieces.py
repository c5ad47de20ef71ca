# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from hbvla_ros.errors import HbvlaError
from hbvla_ros.training.augmentation import pixel_values
from hbvla_ros.training.batches import batch_counts
from hbvla_ros.training.dataset import resize_frames
from hbvla_ros.training.options import ALOHA_SIM
from hbvla_ros.training.schedule import WeightAverage, learning_rate_factor
from hbvla_ros.training.tokenizer import BEGIN_ID, EMPTY_ID, build_tokenizer
from hbvla_ros.vla.images import ImagePipeline, Preprocessor, lanczos_resize
from hbvla_ros.vla.tokens import PromptTokenizer, build_prompt

INSTRUCTIONS = [f'put the {thing} into the bucket' for thing in ('red cube', 'green cylinder')]


def test_rate_rises_stays_and_falls_to_zero():
    def factor(step):
        return learning_rate_factor(step, steps=1000, warm_up=100, decay=0.5)

    assert factor(0) == pytest.approx(0.01)
    assert factor(99) == factor(100) == factor(500) == 1.0
    assert factor(750) == pytest.approx(0.5)
    assert factor(1000) == pytest.approx(0.0, abs=1e-12)


def test_average_follows_and_swaps_back():
    parameter = torch.nn.Parameter(torch.zeros(3))
    average = WeightAverage([parameter], decay=0.5)
    with torch.no_grad():
        parameter.fill_(1.0)
    average.update()  # the first update moves by 1 - 2/11
    assert average.values[0].tolist() == pytest.approx([9 / 11] * 3)
    average.swap()
    assert parameter.tolist() == pytest.approx([9 / 11] * 3)
    average.swap()
    assert parameter.tolist() == [1.0] * 3


def test_pixel_values_without_augmentation_are_the_deployed_ones():
    random = np.random.default_rng(0)
    # Smooth frames: on noise, a tie in the crop's rounding would be one level.
    coarse = random.integers(0, 256, (3, 12, 12, 3)).astype(np.uint8)
    frames = np.stack([lanczos_resize(frame, (96, 96)) for frame in coarse])
    preprocessor = Preprocessor((96, 96))
    deployed = ImagePipeline(ALOHA_SIM, preprocessor)(
        dict(zip(ALOHA_SIM.cameras, frames, strict=True))
    )
    statistics = torch.tensor([preprocessor.means, preprocessor.stds]).transpose(0, 1)
    trained = pixel_values(torch.from_numpy(frames)[None], statistics)[0].numpy()
    level = 1 / 255 / min(map(min, preprocessor.stds))
    assert trained.shape == deployed.shape == (18, 96, 96)
    assert np.abs(trained - deployed).max() <= 1.001 * level
    assert (np.abs(trained - deployed) > 1e-4).mean() < 0.01


def test_augmentation_is_seeded_and_small():
    frames = torch.full((2, 3, 96, 96, 3), 128, dtype=torch.uint8)
    statistics = torch.tensor([[[0.5] * 3, [0.5] * 3]] * 2)
    draws = [
        pixel_values(frames, statistics, 1.0, torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert (draws[0] - 0.004).abs().max() < 0.15


def test_batched_resize_equals_the_policy_resize():
    frames = np.random.default_rng(1).integers(0, 256, (4, 128, 128, 3)).astype(np.uint8)
    batched = resize_frames(torch.from_numpy(frames), 96).numpy()
    single = np.stack([lanczos_resize(frame, (96, 96)) for frame in frames])
    assert np.abs(batched.astype(int) - single).max() <= 1
    assert (batched != single).mean() < 1e-3


def test_tokenizer_gives_equal_lengths_and_covers_any_text():
    tokenizer = build_tokenizer(map(build_prompt, INSTRUCTIONS), 448)
    tokenize = PromptTokenizer(tokenizer, BEGIN_ID, EMPTY_ID, 512)
    rows = [tokenize(text) for text in INSTRUCTIONS]
    assert len({len(row) for row in rows}) == 1
    assert rows[0] != rows[1]
    assert all(row[0] == BEGIN_ID and row[-1] == EMPTY_ID for row in rows)
    strange = tokenize('Räume die Tür 7!')
    assert 0 not in strange and len(strange) > len(rows[0]) - 10


def test_batch_is_shared_out_without_a_rest():
    tasks = ('stack', 'insertion', 'pick_place')
    assert batch_counts(64, tasks, {}) == [21, 21, 22]
    assert batch_counts(64, tasks, {'stack': 2.0}) == [32, 16, 16]
    assert batch_counts(7, tasks, {'stack': 0.5, 'pick_place': 2.0}) == [1, 2, 4]


@pytest.mark.parametrize(
    ('batch', 'shares', 'message'),
    [
        (64, {'lift': 1.0}, '--share lift: not among the tasks of --data, stack, insertion'),
        (64, {'stack': 0.0}, '--share stack=0: must be above 0'),
        (64, {'stack': float('nan')}, '--share stack=nan: must be above 0'),
        (1, {}, '--batch 1: no frame of stack in it'),
        (8, {'stack': 0.01}, '--batch 8: no frame of stack in it'),
    ],
)
def test_impossible_shares_are_refused(batch, shares, message):
    with pytest.raises(HbvlaError, match=message):
        batch_counts(batch, ('stack', 'insertion'), shares)
