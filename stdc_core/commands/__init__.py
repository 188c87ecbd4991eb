# SPDX-License-Identifier: Apache-2.0
"""Command ``stdc``: one module for each subcommand.

May import every other room of ``stdc_core``; torch is imported only by the subcommands that need it.
"""
