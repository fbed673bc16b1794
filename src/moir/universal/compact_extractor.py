"""What kind of damage a picture has, as a point in a small space: the extractor of the shipped form.

The published extractor (DA-CLIP) shrinks a picture to 224 pixels, which takes noise and JPEG blocks away with the
detail. This one looks at crops at native resolution, where they are whole, and at one thumbnail, where haze and
darkness are.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from moir.base.errors import InvalidValueError
from moir.base.names import DEGREES, TYPES
from moir.layers.views import feature_statistics, native_crops, thumbnail, view_features
from moir.networks.base import check_pictures
from moir.networks.compact import Estimator


class CompactExtractor(nn.Module):
    """Degradation representation from native-resolution crops and a thumbnail, with the estimate it implies.

    It is trained like the published one (UniRestorer, arXiv 2412.20157, equation 3): a picture's representation is
    drawn to the embedding of the words that name its damage, and away from those of other damage. The words are the
    types and degrees themselves (:meth:`name_embedding`), so that a mix never seen has an embedding, too.

    Args:
        features: Length of the representation, F.
        width: Channels of the first convolution.

    Attributes:
        slope, offset: (7,), calibration of the presence logits on held-out pictures (Platt scaling); 1 and 0 before.
    """

    slope: torch.Tensor
    offset: torch.Tensor

    def __init__(self, features: int = 128, width: int = 32) -> None:
        super().__init__()
        self.features = features
        self.detail = view_features(width)
        self.scene = view_features(width)
        # Statistics of the crops (mean and spread over crops: damage may be uneven) and of the thumbnail.
        self.mix = nn.Sequential(nn.Linear(15 * width, 6 * width), nn.ReLU(), nn.Linear(6 * width, features))
        self.presence = nn.Linear(features, len(TYPES))
        self.degree = nn.Linear(features, len(TYPES) * len(DEGREES))
        self.words = nn.Embedding(len(TYPES) * len(DEGREES) + 1, features)
        self.sharpness = nn.Parameter(torch.tensor(2.5))
        self.register_buffer("slope", torch.ones(len(TYPES)))
        self.register_buffer("offset", torch.zeros(len(TYPES)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.normal_(self.presence.weight, std=0.02)
        nn.init.normal_(self.degree.weight, std=0.02)

    @torch.no_grad()
    def start_from(self, estimator: Estimator) -> None:
        """Begin as a trained estimator of the shared network: the same estimate, in the first features.

        Args:
            estimator: Of the same width, with an embedding of at most ``features``.

        Raises:
            InvalidValueError: It is of another width, or larger.
        """
        known = estimator.presence.in_features
        ours, theirs = (own.mix[0].in_features for own in (_Layers(self), _Layers(estimator)))
        if ours * 4 != theirs * 5 or known > self.features:  # 15 and 12 times their widths
            raise InvalidValueError(
                f"an extractor of width {ours // 15} with {self.features} features cannot start from an estimator of "
                f"width {theirs // 12} with {known}"
            )
        self.detail.load_state_dict(estimator.detail.state_dict())
        self.scene.load_state_dict(estimator.scene.state_dict())
        (first, last), (given_first, given_last) = _Layers(self).mix, _Layers(estimator).mix
        hidden, seen = given_first.weight.shape
        # Its inputs are the mean over crops and the thumbnail; the spread over crops is new.
        first.weight[:hidden].zero_()
        first.weight[:hidden, : seen // 2] = given_first.weight[:, : seen // 2]
        first.weight[:hidden, -seen // 2 :] = given_first.weight[:, seen // 2 :]
        first.bias[:hidden] = given_first.bias
        last.weight[:known].zero_()
        last.weight[:known, :hidden] = given_last.weight
        last.bias[:known] = given_last.bias
        for own, given in ((self.presence, estimator.presence), (self.degree, estimator.degree)):
            own.weight.zero_()
            own.weight[:, :known] = given.weight
            own.bias.copy_(given.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W), [0, 1], any H, W >= 1, to the representation (B, F), not normalised."""
        check_pictures(x)
        with torch.autocast(x.device.type, enabled=False):
            return self.represent(*views(x.float()))

    def represent(self, crops: torch.Tensor, thumbnail: torch.Tensor) -> torch.Tensor:
        """The representation from views.

        Args:
            crops: (B, N, 3, 64, 64), at native resolution.
            thumbnail: (B, 3, 64, 64), of the whole picture.
        """
        batch, count = crops.shape[:2]
        detail = feature_statistics(self.detail((crops.flatten(0, 1) - 0.5) * 4)).view(batch, count, -1)
        variance, mean = torch.var_mean(detail, dim=1, correction=0)
        spread = (variance + 1e-6).sqrt()[:, : detail.shape[2] // 2]
        scene = feature_statistics(self.scene((thumbnail - 0.5) * 4))
        return self.mix(torch.cat([mean, spread, scene], 1))

    def crop_representations(self, crops: torch.Tensor, thumbnail: torch.Tensor) -> torch.Tensor:
        """As :meth:`represent`, of each crop alone beside the whole thumbnail: (B, N, F). For maps of the damage."""
        batch, count = crops.shape[:2]
        whole = thumbnail[:, None].expand(-1, count, -1, -1, -1)
        return self.represent(crops.flatten(0, 1)[:, None], whole.flatten(0, 1)).view(batch, count, -1)

    def place(self, representation: torch.Tensor) -> torch.Tensor:
        """What groups and routes are made from: the representation's direction, of length sqrt(F).

        Training compares directions alone, so lengths mean nothing.

        Args:
            representation: (B, F).
        """
        return F.normalize(representation, dim=1) * self.features**0.5

    def estimate(self, representation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Calibrated presence logits (B, 7) and degree logits (B, 7, 3) of a representation (B, F)."""
        presence = self.presence(representation) * self.slope + self.offset
        return presence, self.degree(representation).view(-1, len(TYPES), len(DEGREES))

    def name_embedding(self, presence: torch.Tensor, degree: torch.Tensor) -> torch.Tensor:
        """The embedding of the words that name a damage: one per type and degree, added up; unit length.

        Args:
            presence: (B, 7), 0 or 1.
            degree: (B, 7), index of the degree where the type is present.

        Returns:
            (B, F).
        """
        table = self.words.weight[:-1].view(len(TYPES), len(DEGREES), -1)
        chosen = F.one_hot(degree.clamp(min=0), len(DEGREES)).to(presence.dtype) * presence[..., None]
        words = torch.einsum("btd,tdf->bf", chosen, table)
        clean = (presence.sum(1, keepdim=True) == 0).to(presence.dtype)
        return F.normalize(words + clean * self.words.weight[-1], dim=1)


class _Layers:
    """The two linear layers that an extractor or estimator mixes its statistics with."""

    def __init__(self, network: CompactExtractor | Estimator) -> None:
        first, _, last = network.mix
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        self.mix = (first, last)


def views(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops (B, N, 3, 64, 64) at native resolution and a thumbnail (B, 3, 64, 64) of pictures (B, 3, H, W)."""
    return native_crops(x), thumbnail(x)


def contrastive_loss(
    representation: torch.Tensor, names: torch.Tensor, labels: Sequence[tuple[int, ...]], sharpness: torch.Tensor
) -> torch.Tensor:
    """Symmetric InfoNCE between representations and the embeddings of their names (UniRestorer, equation 3).

    Pictures of one name are positives of each other, so that two pictures of the same damage are never pushed apart.

    Args:
        representation: (B, F), not normalised.
        names: (B, F), unit length.
        labels: For each picture a tuple that is equal where the names are.
        sharpness: Scalar; its exponential is the inverse temperature, at most 100.
    """
    logits = F.normalize(representation, dim=1) @ names.T * sharpness.clamp(max=4.6).exp()
    number = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    own = torch.tensor([number[label] for label in labels], device=logits.device)
    same = (own[:, None] == own[None]).float()
    target = same / same.sum(1, keepdim=True)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))
