# SPDX-License-Identifier: Apache-2.0
"""Draw overlays, text and legends.

May import only ``classes``.
"""
