# SPDX-License-Identifier: Apache-2.0
"""Pictures for people: overlays, text and legends.

May import ``classes`` alone.
"""
