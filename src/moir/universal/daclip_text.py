"""The texts that the degradation extractor learns from: a caption of the clean picture, and what was done to it.

UniRestorer (arXiv 2412.20157, section 3.1) names type and degree: small, medium or large rain, noise and JPEG; normal
or thick haze; small or large blur; light or heavy darkness; the snow of Snow100K-S, M and L. Where it knows two degrees
and moir three, the two milder ones share a word. The sentence around them is ours; the paper's is not published.
"""

from moir.base.names import DEGREES, TYPES, check_name
from moir.universal.clustering import Label

_THREE = ("small", "medium", "large")
WORDS: dict[str, tuple[str, str, str, str]] = {
    "noise": ("noise", *_THREE),
    "rain": ("rain", *_THREE),
    "haze": ("haze", "normal", "normal", "thick"),
    "snow": ("snow", *_THREE),
    "blur": ("blur", "small", "small", "large"),
    "lowlight": ("dark", "light", "light", "heavy"),
    "jpeg": ("JPEG compression", *_THREE),
}
"""What a type is called, and its degrees from the mildest."""

NOTHING = "no degradation"


def degradation_text(label: Label | tuple[tuple[str, ...], str | None]) -> str:
    """The degradation in words.

    Args:
        label: Types, and the degree that they have in common, if they have one.

    Raises:
        UnknownNameError: Not a degradation type or degree.

    Examples:
        >>> degradation_text(Label(("rain",), "heavy"))
        'large rain'
        >>> degradation_text(Label(("noise", "haze"), "medium")), degradation_text(Label(()))
        ('medium noise and normal haze', 'no degradation')
    """
    types, degree = label
    if degree is not None:
        check_name(degree, DEGREES, "degree")
    said = []
    for type_ in types:
        noun, *degrees = WORDS[check_name(type_, TYPES, "degradation type")]
        said.append(noun if degree is None else f"{degrees[DEGREES.index(degree)]} {noun}")
    return " and ".join(said) or NOTHING


def title(caption: str, degradation: str) -> str:
    """The text of a picture: the caption, if there is one, and the degradation.

    Examples:
        >>> title("A dog on a lawn.", "large rain"), title("", "thick haze")
        ('A dog on a lawn, with large rain', 'a photo with thick haze')
    """
    start = caption.strip().rstrip(".")
    return f"{start}, with {degradation}" if start else f"a photo with {degradation}"
