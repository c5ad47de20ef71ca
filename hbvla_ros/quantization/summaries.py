# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The methods in one line each, apart from the code so that help texts need no torch."""

from __future__ import annotations

SUMMARIES = {
    'signplane': 'balanced Hadamard sign planes, best with --calibration',
    'dbf': 'double binary factorization: any number of bits, best for wide layers',
    'rtn': 'signs and mean-abs row scales of the weights as they are, a baseline',
    'billm': 'BiLLM: order 2 for salient columns, two groups for the others, about 2.9 bits',
    'hbllm': 'HBLLM: dense and sparse groups in the Haar domain, about 3.4 bits',
    'hbvla': 'HBVLA: HBLLM with policy-aware saliency and paired columns, 3.1 to 3.4 bits',
    'bivlm': 'Bi-VLM, a reconstruction as no code is published: Gaussian sets, about 3 bits',
}


def list_methods() -> str:
    """All methods with what they do, for help texts and messages."""
    return '; '.join(f'{name}: {summary}' for name, summary in SUMMARIES.items())
