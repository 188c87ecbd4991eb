# SPDX-License-Identifier: Apache-2.0
"""Define STDC-Seg: an STDC backbone with a U-shaped decoder (paper section 3.2, Figure 4)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stdc_core.inference.input_scale import scaled_size
from stdc_core.inference.network_description import IMAGENET_MEAN, IMAGENET_STD
from stdc_core.model.backbones import make_backbone
from stdc_core.model.stdc import Backbone, ConvBNReLU


class AttentionRefinement(nn.Module):
    """Attention refinement module (ARM, Figure 4b): 3 x 3 convolution, scaled per channel by a global gate."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = ConvBNReLU(in_channels, out_channels)
        self.gate = nn.Conv2d(out_channels, out_channels, 1, bias=False)
        self.gate_bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map features ``[N, in_channels, H, W]`` to ``[N, out_channels, H, W]``."""
        x = self.conv(x)
        return x * self.gate_bn(self.gate(_global_mean(x))).sigmoid()


class FeatureFusion(nn.Module):
    """Feature fusion module (FFM, Figure 4c): joins spatial and context features and reweights their channels."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = ConvBNReLU(in_channels, out_channels, kernel=1)
        self.squeeze = nn.Conv2d(out_channels, out_channels // 4, 1, bias=False)
        self.excite = nn.Conv2d(out_channels // 4, out_channels, 1, bias=False)

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        """Fuse features.

        Args:
            spatial: ``[N, C1, H, W]``.
            context: ``[N, C2, H, W]``, where C1 + C2 is ``in_channels``.

        Returns:
            ``[N, out_channels, H, W]``.
        """
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
    """Logits of all heads, for training. Sizes below round up.

    Args:
        logits: Logits of the network, ``[N, C, H/8, W/8]``.
        aux8: Logits of the auxiliary head on the context features at stride 8, ``[N, C, H/8, W/8]``.
        aux16: Logits of the auxiliary head on the context features at stride 16, ``[N, C, H/16, W/16]``.
        detail: Binary logits of the detail head at each stride s, ``[N, 1, H/s, W/s]``.
    """

    logits: Tensor
    aux8: Tensor
    aux16: Tensor
    detail: dict[int, Tensor]


class SegmentationNetwork(nn.Module):
    """Base class of the networks that are trained, exported and run here.

    Called with a normalised RGB image, float32 ``[N, 3, H, W]``, a network returns logits at stride 8,
    ``[N, num_classes, ceil(H/8), ceil(W/8)]``. Its last layer is ``head.1``; heads that only training needs are
    ``aux8_head``, ``aux16_head`` and ``detail_heads``.

    Args:
        name: Name of the network; see ``stdc_core.inference.model_file.is_network``.
        num_classes: Number of classes.
    """

    def __init__(self, name: str, num_classes: int):
        super().__init__()
        self.name = name
        self.num_classes = num_classes

    def forward_train(self, image: Tensor) -> SegmentationOutput:
        """Return the logits of all heads for a normalised RGB image, float32 ``[N, 3, H, W]``."""
        raise NotImplementedError

    def details(self, image: Tensor) -> Tensor:
        """Return the feature at stride 8 that carries the details: stage 3 of an STDC backbone.

        Args:
            image: Normalised RGB image, float32 ``[N, 3, H, W]``.

        Returns:
            float32 ``[N, *, ceil(H/8), ceil(W/8)]``.
        """
        raise NotImplementedError


class STDCSeg(SegmentationNetwork):
    """STDC-Seg for images of any size.

    Args:
        backbone: Backbone, or its name: ``'stdc1'``, ``'stdc2'`` or ``'timm/NAME'`` for one from timm.
        num_classes: Number of classes C.
        detail_strides: Strides (2, 4, 8 or 16) of the backbone features that get a detail head. The paper has one
            head, at stage 3, whose stride is 8.

    Example:
        >>> STDCSeg('stdc1', num_classes=11).eval()(torch.zeros(1, 3, 256, 320)).shape
        torch.Size([1, 11, 32, 40])
    """

    def __init__(
        self, backbone: str | Backbone = 'stdc1', num_classes: int = 19, detail_strides: tuple[int, ...] = (8,)
    ):
        made = make_backbone(backbone) if isinstance(backbone, str) else backbone
        super().__init__(made.name, num_classes)
        self.backbone = made
        channels = made.channels
        self.global_context = ConvBNReLU(channels[32], 128, kernel=1)
        self.arm32 = AttentionRefinement(channels[32], 128)
        self.arm16 = AttentionRefinement(channels[16], 128)
        self.refine16 = ConvBNReLU(128, 128)
        self.refine8 = ConvBNReLU(128, 128)
        self.ffm = FeatureFusion(channels[8] + 128, 256)
        self.head = Head(256, 256, num_classes)
        # Only training uses these heads.
        self.aux8_head = Head(128, 64, num_classes)
        self.aux16_head = Head(128, 64, num_classes)
        self.detail_heads = nn.ModuleDict({str(s): Head(channels[s], 64, 1) for s in detail_strides if s in channels})

    def _decode(self, features: dict[int, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits at stride 8, and the context features ``[N, 128, ...]`` at strides 8 and 16."""
        context32 = self.arm32(features[32]) + self.global_context(_global_mean(features[32]))
        context16 = self.refine16(_nearest(context32, features[16]))
        context8 = self.refine8(_nearest(self.arm16(features[16]) + context16, features[8]))
        return self.head(self.ffm(features[8], context8)), context8, context16

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits at stride 8.

        Args:
            image: Normalised RGB, float ``[N, 3, H, W]``.

        Returns:
            ``[N, C, ceil(H/8), ceil(W/8)]``.
        """
        return self._decode(self.backbone(image))[0]

    def details(self, image: Tensor) -> Tensor:
        """Return the feature of the backbone at stride 8."""
        return self.backbone(image)[8]

    def forward_train(self, image: Tensor) -> SegmentationOutput:
        """Return the logits of all heads, from an image as in ``forward``."""
        features = self.backbone(image)
        logits, context8, context16 = self._decode(features)
        detail = {int(stride): head(features[int(stride)]) for stride, head in self.detail_heads.items()}
        return SegmentationOutput(logits, self.aux8_head(context8), self.aux16_head(context16), detail)


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Upsample logits bilinearly with aligned corners, as the paper does in its evaluation.

    Args:
        logits: float ``[N, C, h, w]``.
        size: (height, width) of the result, pixels.
    """
    return F.interpolate(logits, size=size, mode='bilinear', align_corners=True)


def rescale(image: Tensor, scale: float) -> Tensor:
    """Scale an image bilinearly with aligned corners; ``scaled_size`` gives the new size.

    Args:
        image: float ``[N, C, H, W]``.
        scale: Input scale.
    """
    if scale == 1:
        return image
    if torch.onnx.is_in_onnx_export():  # an exported graph takes images of any size
        return F.interpolate(image, scale_factor=scale, mode='bilinear', align_corners=True)
    return F.interpolate(image, size=scaled_size(image.shape[2:], scale), mode='bilinear', align_corners=True)


def _global_mean(x: Tensor) -> Tensor:
    """Average each channel: ``[N, C, H, W]`` to ``[N, C, 1, 1]``."""
    return x.mean(dim=(2, 3), keepdim=True)


def _nearest(x: Tensor, like: Tensor) -> Tensor:
    """Scale features to the height and width of ``like``, taking the nearest pixel."""
    return F.interpolate(x, size=like.shape[2:], mode='nearest')


def normalize(image: Tensor) -> Tensor:
    """Turn pixels into the input of the network.

    Args:
        image: BGR ``[N, 3, H, W]``, 0 to 255, of any dtype.

    Returns:
        RGB normalised with the mean and standard deviation of ImageNet, float32 ``[N, 3, H, W]``.
    """
    shape = (1, 3, 1, 1)
    mean = torch.tensor(IMAGENET_MEAN, device=image.device).reshape(shape)
    std = torch.tensor(IMAGENET_STD, device=image.device).reshape(shape)
    return (image.flip(1).float() / 255 - mean) / std
