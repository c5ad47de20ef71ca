# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Tokenizer of the small policy: byte-level BPE, so that any instruction has tokens.

The special ids follow Llama's order (unknown 0, begin 1, end 2); the lone-space token that
OpenVLA-OFT appends after the prompt (29871 in Llama's vocabulary) is id 3 here.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

UNKNOWN, BEGIN, END, EMPTY = '<unk>', '<s>', '</s>', '<empty>'
BEGIN_ID, END_ID, EMPTY_ID = 1, 2, 3


def build_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Byte-level BPE trained on the prompts of the demonstrations.

    Args:
        texts: prompts, each as the policy will build it.
        vocabulary: largest number of tokens; at least 260 (bytes and special tokens).
    """
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        # A word is learnt whole even if it occurs in one instruction only.
        min_frequency=1,
        special_tokens=[UNKNOWN, BEGIN, END, EMPTY],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(set(texts)), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f'{BEGIN} $A', special_tokens=[(BEGIN, BEGIN_ID)]
    )
    return tokenizer
