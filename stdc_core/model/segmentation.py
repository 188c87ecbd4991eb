# SPDX-License-Identifier: Apache-2.0
"""STDC-Seg: the U-shaped decoder over an STDC backbone (paper section 3.2, Figure 4)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stdc_core.inference.input_scale import scaled_size
from stdc_core.inference.network_description import IMAGENET_MEAN, IMAGENET_STD
from stdc_core.model.stdc import ConvBNReLU, STDCBackbone


class AttentionRefinement(nn.Module):
    """Attention refinement module (ARM, Figure 4b): 3 x 3 convolution, scaled per channel by a global gate."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = ConvBNReLU(in_channels, out_channels)
        self.gate = nn.Conv2d(out_channels, out_channels, 1, bias=False)
        self.gate_bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, in_channels, H, W]`` to ``[N, out_channels, H, W]``."""
        x = self.conv(x)
        return x * self.gate_bn(self.gate(_global_mean(x))).sigmoid()


class FeatureFusion(nn.Module):
    """Feature fusion module (FFM, Figure 4c): spatial and context features joined, reweighted per channel."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = ConvBNReLU(in_channels, out_channels, kernel=1)
        self.squeeze = nn.Conv2d(out_channels, out_channels // 4, 1, bias=False)
        self.excite = nn.Conv2d(out_channels // 4, out_channels, 1, bias=False)

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        """Two maps ``[N, *, H, W]``, channels summing to ``in_channels``, to ``[N, out_channels, H, W]``."""
        x = self.conv(torch.cat([spatial, context], dim=1))
        gate = self.excite(self.squeeze(_global_mean(x)).relu()).sigmoid()
        return x * gate + x


class Head(nn.Sequential):
    """Prediction head: 3 x 3 convolution, then 1 x 1 to the classes (Seg, Train Loss and Detail heads of Figure 4)."""

    def __init__(self, in_channels: int, mid_channels: int, num_classes: int):
        super().__init__(
            ConvBNReLU(in_channels, mid_channels),
            nn.Conv2d(mid_channels, num_classes, 1, bias=False),
        )


class SegmentationOutput(NamedTuple):
    """What training needs: logits at the stride of the feature that they come from.

    ``logits`` ``[N, C, H/8, W/8]``; ``aux8`` and ``aux16``, the auxiliary logits on the context path,
    ``[N, C, H/8, W/8]`` and ``[N, C, H/16, W/16]``; ``detail``, stride to binary logits ``[N, 1, H/s, W/s]``. Sizes
    round up.
    """

    logits: Tensor
    aux8: Tensor
    aux16: Tensor
    detail: dict[int, Tensor]


class STDCSeg(nn.Module):
    """STDC-Seg for images of any size.

    Args:
        backbone: ``'stdc1'`` or ``'stdc2'``.
        num_classes: number of classes C.
        detail_strides: strides (2, 4, 8 or 16) of the backbone features that get a detail head. The paper has one, at
            stage 3, which is stride 8.
    """

    def __init__(self, backbone: str = 'stdc1', num_classes: int = 19, detail_strides: tuple[int, ...] = (8,)):
        super().__init__()
        self.num_classes = num_classes
        self.backbone = STDCBackbone(backbone)
        channels = self.backbone.channels
        self.global_context = ConvBNReLU(channels[32], 128, kernel=1)
        self.arm32 = AttentionRefinement(channels[32], 128)
        self.arm16 = AttentionRefinement(channels[16], 128)
        self.refine16 = ConvBNReLU(128, 128)
        self.refine8 = ConvBNReLU(128, 128)
        self.ffm = FeatureFusion(channels[8] + 128, 256)
        self.head = Head(256, 256, num_classes)
        # Used in training alone.
        self.aux8_head = Head(128, 64, num_classes)
        self.aux16_head = Head(128, 64, num_classes)
        self.detail_heads = nn.ModuleDict({str(s): Head(channels[s], 64, 1) for s in detail_strides})

    def _decode(self, features: dict[int, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits at stride 8 and the context features at strides 8 and 16, ``[N, 128, ...]``."""
        context32 = self.arm32(features[32]) + self.global_context(_global_mean(features[32]))
        context16 = self.refine16(_nearest(context32, features[16]))
        context8 = self.refine8(_nearest(self.arm16(features[16]) + context16, features[8]))
        return self.head(self.ffm(features[8], context8)), context8, context16

    def forward(self, image: Tensor) -> Tensor:
        """Logits at stride 8: normalised RGB ``[N, 3, H, W]`` to ``[N, C, ceil(H/8), ceil(W/8)]``."""
        return self._decode(self.backbone(image))[0]

    def forward_train(self, image: Tensor) -> SegmentationOutput:
        """The same with the auxiliary and detail logits."""
        features = self.backbone(image)
        logits, context8, context16 = self._decode(features)
        detail = {int(stride): head(features[int(stride)]) for stride, head in self.detail_heads.items()}
        return SegmentationOutput(logits, self.aux8_head(context8), self.aux16_head(context16), detail)


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear upsampling with aligned corners, ``[N, C, h, w]`` to ``[N, C, *size]``, as the paper evaluates."""
    return F.interpolate(logits, size=size, mode='bilinear', align_corners=True)


def rescale(image: Tensor, scale: float) -> Tensor:
    """The image ``[N, C, H, W]`` at the network's input scale, ``[N, C, h, w]`` as ``scaled_size`` says."""
    if scale == 1:
        return image
    if torch.onnx.is_in_onnx_export():  # the exported graph is for every size
        return F.interpolate(image, scale_factor=scale, mode='bilinear', align_corners=True)
    return F.interpolate(image, size=scaled_size(image.shape[2:], scale), mode='bilinear', align_corners=True)


def _global_mean(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3), keepdim=True)


def _nearest(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode='nearest')


def normalize(image: Tensor) -> Tensor:
    """Bytes to network input: BGR ``[N, 3, H, W]`` in 0 ... 255, any dtype, to normalised RGB float32 of that shape."""
    shape = (1, 3, 1, 1)
    mean = torch.tensor(IMAGENET_MEAN, device=image.device).reshape(shape)
    std = torch.tensor(IMAGENET_STD, device=image.device).reshape(shape)
    return (image.flip(1).float() / 255 - mean) / std
