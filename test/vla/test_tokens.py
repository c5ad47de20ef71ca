# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from hbvla_ros.errors import HbvlaError
from hbvla_ros.vla.tokens import PromptTokenizer, build_prompt, complete_ids, full_ids

PIECES = ('<unk> <s> </s> ▁ : ? ▁In ▁What ▁action ▁should ▁the ▁robot ▁take ▁to ▁put ▁cube '
          '\n Out In ▁Out').split(' ')  # fmt: skip
EMPTY = PIECES.index('▁')


def sentencepiece_like(begin: bool = True) -> tokenizers.Tokenizer:
    """Spaces become part of the words and one is put in front, as in Llama's tokenizer."""
    vocabulary = {piece: index for index, piece in enumerate(PIECES)}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token='<unk>'))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend('▁'), normalizers.Replace(' ', '▁')]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        tokenizers.Regex('▁?[A-Za-z]+|[:?\n]|▁'), 'isolated'
    )
    if begin:
        tokenizer.post_processor = processors.TemplateProcessing(
            single='<s> $A', special_tokens=[('<s>', 1)]
        )
    return tokenizer


def ids(pieces: str) -> list[int]:
    return [PIECES.index(piece) for piece in pieces.split(' ')]


WANTED = ids('<s> ▁In : ▁What ▁action ▁should ▁the ▁robot ▁take ▁to ▁put ▁the ▁cube ? \n Out : ▁')


def test_prompt_only_lowers_the_words():
    assert build_prompt(' Put M&Ms. ') == (
        'In: What action should the robot take to  put m&ms. ?\nOut:'
    )


@pytest.mark.parametrize('begin', [True, False])
def test_begin_and_empty_token_frame_the_prompt(tmp_path, begin):
    sentencepiece_like(begin).save(str(tmp_path / 'tokenizer.json'))
    tokenizer = PromptTokenizer.read(tmp_path, bos=1, empty=EMPTY, rows=len(PIECES))
    assert tokenizer('put the cube') == WANTED
    assert tokenizer('PUT the CUBE') == WANTED
    tokenizer('put the cube').append(99)  # The caller's list is its own.
    assert tokenizer('put the cube') == WANTED


def test_truncation_and_padding_of_the_file_are_switched_off(tmp_path):
    saved = sentencepiece_like()
    saved.enable_truncation(4)
    saved.enable_padding(length=50)
    saved.save(str(tmp_path / 'tokenizer.json'))
    tokenizer = PromptTokenizer.read(tmp_path, bos=1, empty=EMPTY, rows=len(PIECES))
    assert tokenizer('put the cube') == WANTED


def test_empty_token_is_not_doubled():
    assert complete_ids([1, 5, 9], 1, 9) == [1, 5, 9]
    assert complete_ids([5], 1, 9) == [1, 5, 9]
    assert complete_ids([], 1, 9) == [1, 9]
    # An empty token that is not last does not count.
    assert complete_ids([1, 9, 5], 1, 9) == [1, 9, 5, 9]


def test_full_ids_add_placeholders_and_stop():
    assert full_ids([1, 7, 9], slots=3, placeholder=1, stop=2) == [1, 7, 9, 1, 1, 1, 2]


def test_no_tokenizer(tmp_path):
    (tmp_path / 'tokenizer.model').write_bytes(b'')
    with pytest.raises(HbvlaError, match=r'no tokenizer\.json'):
        PromptTokenizer.read(tmp_path)


def test_damaged_tokenizer(tmp_path):
    (tmp_path / 'tokenizer.json').write_text('{')
    with pytest.raises(HbvlaError, match='not a readable tokenizer'):
        PromptTokenizer.read(tmp_path)


def test_tokenizer_of_another_checkpoint(tmp_path):
    sentencepiece_like().save(str(tmp_path / 'tokenizer.json'))
    tokenizer = PromptTokenizer.read(tmp_path, bos=1, empty=EMPTY, rows=10)
    with pytest.raises(HbvlaError, match='has 10 words; it belongs to another checkpoint'):
        tokenizer('put the cube')
