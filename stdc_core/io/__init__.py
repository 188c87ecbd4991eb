# SPDX-License-Identifier: Apache-2.0
"""Read and write files: files that appear complete, YAML, picture headers and video; and text for error messages.

Imports nothing else of the package.
"""
