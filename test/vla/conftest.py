# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""A golden folder, its network, and everything one run of it shows."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hbvla_ros.vla.checkpoint import Checkpoint
from hbvla_ros.vla.images import ImagePipeline, Preprocessor
from hbvla_ros.vla.normalisation import Normaliser, libero_gripper
from hbvla_ros.vla.platform import ALOHA, PLATFORMS, Platform
from hbvla_ros.vla.tokens import complete_ids, full_ids


class Case:
    """One fixture folder, its network, and all that one run of it showed."""

    def __init__(self, folder: Path) -> None:
        self.fixture = json.loads((folder / 'fixture.json').read_text())
        with np.load(folder / 'inputs.npz') as content:
            self.inputs = dict(content)
        with np.load(folder / 'expected.npz') as content:
            self.expected = dict(content)
        self.platform = self._platform(folder)
        self.checkpoint = Checkpoint.open(folder, self.platform)
        self.pipeline = ImagePipeline(self.platform, Preprocessor.read(folder))
        self.normaliser = Normaliser(self.checkpoint.statistics, self.platform)
        config = self.checkpoint.config
        self.input_ids = complete_ids(
            self.inputs['input_ids'][0].tolist(), config.bos_token_id, config.empty_token_id
        )

    def _platform(self, folder: Path) -> Platform:
        fixture = self.fixture
        images = len(self.inputs['images_uint8'])
        has_proprio = any(folder.glob('proprio_projector--*'))
        return dataclasses.replace(
            PLATFORMS.get(fixture['platform'].lower(), ALOHA),
            cameras=tuple(fixture.get('image_order') or map(str, range(images))),
            chunk=fixture['chunk'],
            action_dim=fixture['action_dim'],
            proprio_dim=fixture['proprio_dim'] if has_proprio else 0,
            action_slots_per_step=fixture.get('action_slots_per_step'),
            normalisation=fixture['normalization'],
            statistics_key=fixture['unnorm_key'],
            diffusion_steps_train=fixture.get('num_diffusion_steps_train') or 50,
            diffusion_steps_inference=fixture.get('num_diffusion_steps_inference') or 50,
        )

    def arguments(self):
        proprio = self.inputs.get('proprio_normalized') if self.platform.proprio_dim else None
        noise = self.inputs.get('noise')
        return (
            torch.from_numpy(self.inputs['pixel_values']),
            torch.tensor([self.input_ids]),
            None if proprio is None else torch.from_numpy(proprio).float()[None],
            None if noise is None else torch.from_numpy(noise),
        )

    @functools.cached_property
    def network(self):
        return self.checkpoint.load_network()

    @functools.cached_property
    def seen(self) -> dict:
        """All stages, caught while the network computes one chunk."""
        seen: dict = {'multimodal': []}

        def keep(name):
            return lambda module, inputs, output: seen.__setitem__(name, output.numpy())

        network, model = self.network, self.network.language_model.model
        places = {
            'vision_patch_features': network.vision_backbone,
            'projected_patch_embeddings': network.projector,
            'layer1_hidden_state': model.layers[0],
            'last_hidden_state': model,
        }
        if self.platform.proprio_dim:
            places['proprio_token'] = network.proprio_projector
        handles = [place.register_forward_hook(keep(name)) for name, place in places.items()]
        handles.append(
            model.register_forward_pre_hook(
                lambda module, inputs: seen['multimodal'].append(inputs[0].numpy())
            )
        )
        last = (
            network.language_model.lm_head
            if network.config.head == 'discrete'
            else (network.action_head)
        )
        handles.append(
            last.register_forward_pre_hook(
                lambda module, inputs: seen.__setitem__('head', inputs[0].numpy())
            )
        )
        with torch.inference_mode():
            seen['normalized_actions'] = network(*self.arguments())[0].numpy()
            seen['multimodal_embeddings_step0'] = seen['multimodal'][0]
            if 'ddim_samples' in self.expected:
                self.repeat_last_step()
        for handle in handles:
            handle.remove()
        if 'proprio_token' in seen:
            seen['proprio_token'] = seen['proprio_token'][:, None]
        seen['multimodal_embeddings'] = seen['multimodal'][-1]
        seen['multimodal_attention_mask'] = np.ones(seen['last_hidden_state'].shape[:2])
        seen['actions_hidden_states'] = seen['head'].reshape(1, self.platform.action_slots, -1)
        seen['actions'] = self.normaliser.actions(seen['normalized_actions'])
        seen['libero_env_actions'] = libero_gripper(seen['actions'])
        return seen

    def repeat_last_step(self):
        """Run the last denoising step on the reference's own sample.

        Rounding alone moves the sample by 2e-5 in ten steps, which the first norm turns into more
        than 1e-4: float64 arithmetic is that far from the stored float32 states too. The
        trajectory itself is compared by its samples.
        """
        sample = torch.from_numpy(self.expected['ddim_samples'][-2])[None]
        context = self.network.context(*self.arguments()[:3])
        step = torch.from_numpy(self.expected['ddim_timesteps'][-1:])
        self.network.decode(
            self.network.run_language_model(context, sample, step).action_hidden_states
        )

    def discrete_actions(self):
        network = self.checkpoint.load_network(inference_only=False)
        with torch.inference_mode():
            hidden = network.encode(*self.arguments()[:3]).action_hidden_states
            return self.normaliser.actions(network.discrete_actions(hidden)[0].numpy())

    def alphas_cumprod(self):
        return self.network.schedule.alphas

    def ddim_timesteps(self):
        return self.network.schedule.timesteps

    def ddim_noise_pred(self):
        """Every step on the reference's own sample, so that errors do not add up."""
        network = self.network
        with torch.inference_mode():
            context = network.context(*self.arguments()[:3])
            return np.stack(
                [
                    network.decode(
                        network.run_language_model(
                            context, torch.from_numpy(sample)[None], torch.tensor([step])
                        ).action_hidden_states
                    )[0].numpy()
                    for sample, step in zip(
                        self.expected['ddim_samples'][:-1],
                        self.expected['ddim_timesteps'],
                        strict=True,
                    )
                ]
            )

    def ddim_samples(self):
        """The whole trajectory from the given noise, on our own predictions."""
        network = self.network
        with torch.inference_mode():
            context = network.context(*self.arguments()[:3])
            samples = [torch.from_numpy(self.inputs['noise'])]
            for step in network.schedule.timesteps:
                encoded = network.run_language_model(context, samples[-1], torch.tensor([step]))
                predicted = network.decode(encoded.action_hidden_states)
                samples.append(network.schedule.step(samples[-1], predicted, step))
            return torch.cat(samples).numpy()

    def images_cropped_uint8(self):
        return np.stack([self.pipeline.center_crop(image) for image in self.inputs['images_uint8']])

    def pixel_values(self):
        crops = self.inputs['images_cropped_uint8']
        return np.concatenate([self.pipeline.normalise(image) for image in crops])[None]

    def input_ids_full(self):
        config = self.checkpoint.config
        return [
            full_ids(
                self.input_ids,
                self.platform.action_slots,
                config.placeholder_token_id,
                config.stop_token_id,
            )
        ]

    def proprio_normalized(self):
        return self.normaliser.proprio(self.inputs['proprio_raw'])

    def actual(self, name: str):
        return getattr(self, name)() if hasattr(self, name) else self.seen[name]


@pytest.fixture(scope='session')
def load_case():
    """A function from folder to case; the last two are kept, for tests come folder by folder."""
    return functools.lru_cache(maxsize=2)(Case)
