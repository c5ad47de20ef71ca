# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""What a file of tensors says it holds, without loading it."""

from __future__ import annotations

import json
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hbvla_ros.errors import HbvlaError

_LENGTH = struct.Struct('<Q')
_LARGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class TensorEntry:
    """One stored tensor.

    Attributes:
        dtype: safetensors name of the dtype, such as 'BF16' or 'U8'; torch's in a state dict.
        shape: its shape.
        begin: offset of its first byte in a safetensors file, 0 in a state dict.
        size: its bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    size: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def read_header(path: Path) -> dict[str, TensorEntry]:
    """The tensors of a safetensors file by name.

    Raises:
        HbvlaError: the file cannot be read, is no safetensors file or is shorter than it says.
    """
    try:
        size = path.stat().st_size
        with path.open('rb') as stream:
            prefix = stream.read(_LENGTH.size)
            length = _LENGTH.unpack(prefix)[0] if len(prefix) == _LENGTH.size else 0
            if not 0 < length <= min(_LARGEST_HEADER, size):
                raise HbvlaError(f'{path}: truncated or no safetensors file; copy it again')
            header = json.loads(stream.read(length))
    except OSError as error:
        raise HbvlaError(f'{path}: cannot read it: {error.strerror}') from error
    except ValueError as error:
        raise HbvlaError(f'{path}: its header is damaged; copy it again') from error
    try:
        entries = _entries(header, _LENGTH.size + length)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise HbvlaError(f'{path}: its header is damaged; copy it again') from error
    for name, entry in entries.items():
        if entry.size < 0 or entry.begin + entry.size > size:
            raise HbvlaError(f'{path}: truncated, tensor {name} is incomplete; copy it again')
    return entries


def _entries(header: dict[str, Any], start: int) -> dict[str, TensorEntry]:
    """What a parsed header lists; errors of several kinds where it is none.

    Args:
        header: name to dtype, shape and data offsets.
        start: where the data begins in the file, bytes.
    """
    return {
        name: TensorEntry(
            str(entry['dtype']),
            tuple(int(length) for length in entry['shape']),
            start + int(entry['data_offsets'][0]),
            int(entry['data_offsets'][1]) - int(entry['data_offsets'][0]),
        )
        for name, entry in header.items()
        if name != '__metadata__'
    }


def read_state_dict(path: Path) -> dict[str, TensorEntry]:
    """The tensors of a ``torch.save`` state dict by name; no code in the file is run.

    Raises:
        HbvlaError: the file cannot be read or is no state dict.
    """
    try:
        content = torch.load(path, map_location='meta', weights_only=True)
        return {
            name: TensorEntry(str(value.dtype), tuple(value.shape), 0, value.nbytes)
            for name, value in content.items()
        }
    except Exception as error:  # Damaged files make torch raise errors of many kinds.
        reason = str(error).partition('\n')[0]
        raise HbvlaError(
            f'{path}: truncated or not a state dict ({reason}); copy it again'
        ) from error


def tensor_checksums(path: Path) -> dict[str, str]:
    """CRC-32 of each tensor's bytes as eight hex digits."""
    checksums = {}
    with path.open('rb') as stream:
        for name, entry in sorted(read_header(path).items(), key=lambda item: item[1].begin):
            stream.seek(entry.begin)
            checksums[name] = f'{zlib.crc32(stream.read(entry.size)):08x}'
    return checksums
