# SPDX-License-Identifier: Apache-2.0
"""Say what the GPU benchmark measures: networks, libraries, and groups that are measured side by side."""

from __future__ import annotations

from typing import NamedTuple

TENSORRT, RTX, ONNXRUNTIME, PYTORCH = 'tensorrt', 'tensorrt_rtx', 'onnxruntime_cuda', 'pytorch'
LIBRARIES = (RTX, PYTORCH, ONNXRUNTIME, TENSORRT)
ENGINES = (TENSORRT, RTX)

#: PyTorch and ONNX Runtime let float32 convolutions round to TF32, as they do by default. Engines of fp32 do not.
EAGER_32, EAGER_16 = 'eager float32 with TF32', 'eager float16, channels last'
COMPILED, AUTOTUNED = 'torch.compile float16, reduce-overhead', 'torch.compile float16, max-autotune'
TF32 = 'float32 with TF32'


class Network(NamedTuple):
    """A network of random weights, on which its speed does not depend.

    Attributes:
        backbone: ``'stdc1'`` or ``'stdc2'``.
        scale: Scale at which it sees the image.
        paper_fps: Frames per second in Table 6 of the paper, with TensorRT on a GTX 1080 Ti, for as many pixels.
        every: Step between the rows and columns of a frame that its images take.
    """

    backbone: str
    scale: float
    paper_fps: float
    every: int = 1


SMALL, SEG50 = 'stdc1-512x1024', 'stdc1-seg50'
NETWORKS = {
    SMALL: Network('stdc1', 1.0, 250.4, every=2),
    SEG50: Network('stdc1', 0.5, 250.4),
    'stdc2-seg50': Network('stdc2', 0.5, 188.6),
    'stdc1-seg75': Network('stdc1', 0.75, 126.7),
    'stdc2-seg75': Network('stdc2', 0.75, 97.0),
}
CLASSES = 19

#: The shipped model, and its int8 version. They are compared by their masks. ``int8-seg50`` is int8 at SEG50's scale.
SHIPPED, INT8, INT8_SEG50 = 'shipped', 'int8', 'int8-seg50'

BATCHES = (2, 4, 8)


class Contender(NamedTuple):
    """A network in one library.

    Attributes:
        library: One of ``LIBRARIES``.
        precision: Precision of an engine, or how PyTorch and ONNX Runtime compute.
        model: Name of the model.
        kernels: Whether our own kernels surround the engine; if false, the engine does everything.
        batch: Number of images in one call.
    """

    library: str
    precision: str
    model: str
    kernels: bool = True
    batch: int = 1

    @property
    def label(self) -> str:
        """Text for tables and errors."""
        one = '' if self.kernels else ', all in the engine'
        batch = f', batch {self.batch}' if self.batch > 1 else ''
        return f'{self.model}, {self.library} {self.precision}{one}{batch}'


class Group(NamedTuple):
    """Contenders that are measured in turns, so that they meet the same conditions.

    Attributes:
        title: Title in the report.
        contenders: Contenders in their order.
        masks: Whether their masks are compared with those of ONNX Runtime on the CPU.
        details: Whether overlay, confidence and the time without a CUDA graph are measured.
    """

    title: str
    contenders: tuple[Contender, ...]
    masks: bool = False
    details: bool = False


def all_libraries(model: str) -> Group:
    """Return a group of every library, each in its fastest common way."""
    ways = [(TENSORRT, 'fp16'), (RTX, 'fp16'), (ONNXRUNTIME, TF32)]
    ways += [(PYTORCH, EAGER_32), (PYTORCH, EAGER_16), (PYTORCH, COMPILED)]
    return Group(model, tuple(Contender(library, way, model) for library, way in ways))


def groups() -> list[Group]:
    """Return all groups. What matters most comes first, for where time is short."""
    masks = [Contender(library, 'fp16', SHIPPED) for library in ENGINES]
    masks += [Contender(ONNXRUNTIME, TF32, SHIPPED), Contender(PYTORCH, EAGER_32, SHIPPED)]
    masks += [Contender(PYTORCH, EAGER_16, SHIPPED), *(Contender(library, 'int8', INT8) for library in ENGINES)]
    variants = [
        Contender(library, precision, model, kernels)
        for precision, model, kernels in (
            ('fp16', SEG50, True),
            ('fp32', SEG50, True),
            ('int8', INT8_SEG50, True),
            ('fp32', SEG50, False),
            ('fp16', SEG50, False),
        )
        for library in ENGINES
    ]
    batches = [Contender(library, 'fp16', SEG50, batch=batch) for batch in (1, *BATCHES) for library in ENGINES]
    found = [all_libraries(SMALL), all_libraries(SEG50), Group('masks of the shipped model', tuple(masks), masks=True)]
    found += [all_libraries(name) for name in NETWORKS if name not in (SMALL, SEG50)]
    found += [Group(f'variants of {SEG50}', tuple(variants), details=True)]
    found += [Group(f'batches of {SEG50}', tuple(batches))]
    for name in (SMALL, SEG50):
        best = [Contender(library, 'fp16', name) for library in ENGINES] + [Contender(PYTORCH, AUTOTUNED, name)]
        found.append(Group(f'{name} against max-autotune', tuple(best)))
    return found


def dry_groups() -> list[Group]:
    """Return the groups of a dry run on the CPU: without torch.compile, which takes half a minute there."""
    kept = []
    for group in (all_libraries(SMALL), groups()[2]):
        contenders = [each for each in group.contenders if 'compile' not in each.precision]
        kept.append(group._replace(contenders=tuple(contenders)))
    return kept
