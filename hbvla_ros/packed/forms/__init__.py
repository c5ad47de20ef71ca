# Copyright 2026 The hbvla_ros authors. SPDX-License-Identifier: Apache-2.0
"""The forms a quantized layer can have, one module each, by their names in the manifest."""
