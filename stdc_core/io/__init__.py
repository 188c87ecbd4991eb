# SPDX-License-Identifier: Apache-2.0
"""Files: files that appear complete, YAML, picture headers, video and text for error messages.

Imports nothing else of the package.
"""
