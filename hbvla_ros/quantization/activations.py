# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Where the activations between two blocks wait: in memory, or in files mapped into it."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from hbvla_ros.errors import HbvlaError


class ActivationCache:
    """Keeps tensors in memory or on disk; what is on disk goes with the last use of its tensor."""

    def __init__(self, folder: Path | None = None, device: torch.device | str = 'cpu') -> None:
        """Choose the place.

        Args:
            folder: existing folder for the files; None keeps the tensors in memory.
            device: where :meth:`get` puts the tensors.
        """
        self._folder = folder
        self._device = torch.device(device)

    def put(self, tensor: Tensor) -> Tensor:
        """Keep a tensor.

        Returns:
            The kept one, on the processor's side, with the same values.

        Raises:
            HbvlaError: the disk is full.
        """
        if self._folder is None:
            return tensor.detach().cpu()
        mapped = _map_new_file(self._folder, tensor.shape, tensor.dtype)
        return mapped.copy_(tensor.detach())

    def replace(self, kept: Tensor, tensor: Tensor) -> Tensor:
        """Keep a tensor in the place of one that is not needed any more."""
        same = kept.shape == tensor.shape and kept.dtype == tensor.dtype
        if self._folder is None or not same:
            return self.put(tensor)
        return kept.copy_(tensor.detach())

    def get(self, kept: Tensor) -> Tensor:
        """The tensor where it is computed with."""
        return kept.to(self._device)


def _map_new_file(folder: Path, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """A tensor in a new file, whose name is gone at once: nothing is left behind, ever."""
    size = math.prod(shape)
    handle, name = tempfile.mkstemp(dir=folder)
    try:
        # Reserved now: a disk that is full would otherwise end the process at the first write.
        os.posix_fallocate(handle, 0, max(1, size * dtype.itemsize))
        return torch.from_file(name, shared=True, size=size, dtype=dtype).reshape(shape)
    except OSError as error:
        raise HbvlaError(
            f'{folder}: no room for the cached activations ({error.strerror}); '
            'calibrate on fewer --frames or free some disk space'
        ) from error
    finally:
        os.close(handle)
        os.unlink(name)
