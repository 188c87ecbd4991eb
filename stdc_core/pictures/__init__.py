# SPDX-License-Identifier: Apache-2.0
"""Draw pictures for people: overlays, text and legends.

May import ``classes`` alone.
"""
