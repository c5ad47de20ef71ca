# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""Pieces of the published binary formats: Haar, grouping, residuals, saliency, block feedback."""
