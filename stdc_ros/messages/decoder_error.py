# SPDX-License-Identifier: Apache-2.0
"""Define the error of the picture decoders."""


class DecoderError(ValueError):
    """A picture cannot be decoded, or some of its pixels cannot; the message says why."""
