# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Prompt and token ids (spec section 4)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import tokenizers

from hbvla_ros.errors import HbvlaError


def build_prompt(instruction: str) -> str:
    """The prompt of an instruction; lower case is the only change made to it."""
    return f'In: What action should the robot take to {instruction.lower()}?\nOut:'


def complete_ids(identifiers: Sequence[int], bos: int, empty: int) -> list[int]:
    """Put BOS in front and the empty token at the end unless they are there."""
    completed = list(identifiers)
    if completed[:1] != [bos]:
        completed.insert(0, bos)
    if completed[-1] != empty:
        completed.append(empty)
    return completed


def full_ids(identifiers: Sequence[int], slots: int, placeholder: int, stop: int) -> list[int]:
    """The ids of the whole text: prompt, a placeholder per action slot, stop token."""
    return [*identifiers, *[placeholder] * slots, stop]


class PromptTokenizer:
    """Turns instructions into the ids the network takes; ids are kept per instruction."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, bos: int, empty: int, rows: int) -> None:
        self._tokenizer, self._bos, self._empty, self._rows = tokenizer, bos, empty, rows
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._known: dict[str, list[int]] = {}

    @classmethod
    def read(
        cls, folder: str | os.PathLike[str], bos: int = 1, empty: int = 29871, rows: int = 32064
    ) -> PromptTokenizer:
        """Read tokenizer.json of a checkpoint folder.

        Args:
            folder: checkpoint folder.
            bos: id of the begin token.
            empty: id that ends every prompt.
            rows: rows of the word embedding; ids beyond it are an error.

        Raises:
            HbvlaError: no tokenizer.json in the folder, or it is not readable.
        """
        path = Path(folder) / 'tokenizer.json'
        if not path.is_file():
            raise HbvlaError(
                f'{folder}: no tokenizer.json; copy it from the trained checkpoint '
                '(a tokenizer.model alone must be converted first)'
            )
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise HbvlaError(f'{path}: not a readable tokenizer ({error})') from None
        return cls(tokenizer, bos, empty, rows)

    def __call__(self, instruction: str) -> list[int]:
        """Ids of an instruction's prompt: BOS, prompt, empty token.

        Raises:
            HbvlaError: an id has no row in the word embedding.
        """
        if instruction not in self._known:
            if len(self._known) >= 256:
                self._known.clear()
            encoded = self._tokenizer.encode(build_prompt(instruction)).ids
            identifiers = complete_ids(encoded, self._bos, self._empty)
            if max(identifiers) >= self._rows:
                raise HbvlaError(
                    f'tokenizer.json gives id {max(identifiers)}, but the network has '
                    f'{self._rows} words; it belongs to another checkpoint'
                )
            self._known[instruction] = identifiers
        return list(self._known[instruction])
