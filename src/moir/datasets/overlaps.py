"""Training and test sets that are known to share pictures."""

from typing import NamedTuple


class Overlap(NamedTuple):
    """What is known of two sets."""

    train: str
    test: tuple[str, ...]
    text: str


OVERLAPS = (
    Overlap("bsds500", ("cbsd68", "b100"), "its val part holds all pictures of CBSD68 and, by origin, of B100"),
    Overlap(
        "bsds500", ("rain100l", "rain100h", "rain100h_first25", "rain200l", "rain200h"), "the rain scenes are of BSDS"
    ),
    Overlap(
        "raintrainh", ("rain100h", "rain100h_first25"),
        "546 of the 1800 pairs of the first version show scenes of Rain100H; use the 1254 others",
    ),
    Overlap("ots", ("sots",), "users found clean pictures of OTS among those of SOTS (FFA-Net issue 12)"),
    Overlap("lolv2_real_train", ("lolv1",), "the two versions of LOL share scenes"),
)  # fmt: skip
"""From the sources and from users' reports; `moir data check` compares what is there."""
