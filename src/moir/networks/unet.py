"""A plain U-net: the baseline that more elaborate networks must beat.

After "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015, arXiv 1505.04597, with what is
usual in restoration: convolutions are padded, and the network predicts the change of the picture (a residual, as in
DnCNN, arXiv 1608.03981). There are no published restoration weights of it.
"""

from typing import Any, ClassVar

import torch
from torch import nn

from moir.base.errors import InvalidValueError
from moir.layers.padding import pad_to_multiple
from moir.networks.base import Context, RestorationNetwork, build, check_pictures


class UNet(RestorationNetwork):
    """Symmetric U-net of 3x3 convolutions and ReLU (arXiv 1505.04597, figure 1).

    Per resolution ``convs`` convolutions; 2x2 max pooling down, 2x2 transposed convolutions up, skips concatenated. No
    normalisation, no attention, nothing decided per picture: a tile with enough context gives what the picture gives.

    Args:
        width: Channels at full resolution; doubled at each coarser one.
        levels: Resolutions, 1 to 5.
        convs: Convolutions per resolution, on each side.

    Raises:
        InvalidValueError: A width, number of levels or of convolutions that is out of range.
    """

    size_multiple: ClassVar[int] = 16
    # A pixel depends on about 100 pixels around it; what is far away weighs little.
    overlap: ClassVar[int] = 64

    def __init__(self, width: int = 64, levels: int = 5, convs: int = 2) -> None:
        super().__init__()
        if width < 1 or not 1 <= levels <= 5 or convs < 1:
            raise InvalidValueError(
                f"width={width}, levels={levels}, convs={convs}: width and convs start at 1, levels are 1 to 5"
            )
        self.padding = 2 ** (levels - 1)
        widths = [width * 2**level for level in range(levels)]
        self.encoder = nn.ModuleList(_convs(convs, w // 2 if w > width else 3, w) for w in widths)
        self.ups = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in widths[-2::-1])
        self.decoder = nn.ModuleList(_convs(convs, 2 * w, w) for w in widths[-2::-1])
        self.output = nn.Conv2d(width, 3, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module is not self.output:
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")

    def forward(self, x: torch.Tensor, context: Context | None = None) -> torch.Tensor:
        """Restore pictures or tiles.

        Args:
            x: (B, 3, H, W), float32, [0, 1], any H, W >= 1.
            context: Ignored; nothing is decided per picture.

        Returns:
            (B, 3, H, W), about [0, 1], not clamped.

        Raises:
            TensorShapeError: ``x`` is not a batch of colour pictures.
        """
        check_pictures(x)
        y = pad_to_multiple(x, self.padding)
        skips: list[torch.Tensor] = []
        for level, convs in enumerate(self.encoder):
            y = convs(y if level == 0 else nn.functional.max_pool2d(y, 2))
            skips.append(y)
        skips.pop()
        for up, convs in zip(self.ups, self.decoder, strict=True):
            y = convs(torch.cat([skips.pop(), up(y)], dim=1))
        return x + self.output(y)[..., : x.shape[2], : x.shape[3]]


def _convs(count: int, channels: int, width: int) -> nn.Sequential:
    """``count`` convolutions, each with ReLU, from ``channels`` to ``width``."""
    layers: list[nn.Module] = []
    for i in range(count):
        layers += [nn.Conv2d(width if i else channels, width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)


def unet(**options: Any) -> UNet:
    """The size of the original: five resolutions, 64 to 1024 channels, 31,031,875 parameters.

    Args:
        **options: Options of :class:`UNet` that differ from these.

    Raises:
        UnknownNameError: An option that the network does not have.
    """
    return build(UNet, {}, options)


def test_unet(**options: Any) -> UNet:
    """A tiny one for tests.

    Args:
        **options: Options of :class:`UNet` that differ from the tiny ones.
    """
    return build(UNet, {"width": 4, "levels": 3}, options)


test_unet.__test__ = False  # type: ignore[attr-defined]  # pytest must not collect it
