# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The sentences of all tasks: a policy must be able to tell them apart."""

from __future__ import annotations

import re

import numpy as np
import pytest

from hbvla_ros.sim.tasks.registry import find_task, task_names
from hbvla_ros.training.options import NetworkSize
from hbvla_ros.training.tokenizer import build_tokenizer
from hbvla_ros.vla.tokens import build_prompt

SENTENCES = [(name, sentence) for name in task_names() for sentence in find_task(name).instructions]


@pytest.fixture(scope='module')
def tokenizer():
    prompts = [build_prompt(sentence) for _, sentence in SENTENCES]
    return build_tokenizer(prompts, NetworkSize().vocabulary)


def test_no_sentence_stands_for_two_things():
    normalised = [' '.join(sentence.lower().split()) for _, sentence in SENTENCES]
    assert len(set(normalised)) == len(normalised)


@pytest.mark.parametrize('name', task_names())
def test_sentences_are_plain_lower_case(name):
    for sentence in find_task(name).instructions:
        assert re.fullmatch('[a-z]+( [a-z]+)*', sentence), sentence


@pytest.mark.parametrize('name', task_names())
def test_layouts_ask_for_each_sentence_of_their_task_and_for_no_other(name):
    task = find_task(name)
    asked = {task.sample(np.random.default_rng(seed)).instruction for seed in range(300)}
    assert asked == set(task.instructions)


def test_every_word_is_one_token_of_the_small_policy(tokenizer):
    words = {word for _, sentence in SENTENCES for word in sentence.split()}
    tokens = {}
    for word in words:
        identifiers = tokenizer.encode(f' {word}', add_special_tokens=False).ids
        assert len(identifiers) == 1, word
        tokens[word] = identifiers[0]
    assert len(set(tokens.values())) == len(words)


def test_sentences_differ_in_tokens(tokenizer):
    rows = {tuple(tokenizer.encode(build_prompt(sentence)).ids) for _, sentence in SENTENCES}
    assert len(rows) == len(SENTENCES)
    assert max(map(len, rows)) <= 40
