"""PIL images to Pictures."""

from contextlib import nullcontext

from PIL import Image

from moir.picture import exif as exif_blocks
from moir.picture.decoded import Decoded, bytes_or_none, sane_dpi
from moir.picture.guard import check_size, decoding, quiet_stderr, quiet_warnings
from moir.picture.picture import Picture
from moir.picture.pil_pixels import pixels_of


def from_pil(image: Image.Image) -> Picture:
    """Take over a PIL image of any mode, with the metadata it carries; its orientation is applied.

    Modes I;16 and I (0..65535) become 16-bit pictures, F (in [0, 1]) too. The frame at which the image stands is taken.

    Raises:
        InvalidValueError: Mode I or F with values outside the ranges above.
        PictureFormatError: The mode cannot be shown as RGB.
        PictureCorruptError: The file behind it is damaged.
    """
    name = str(getattr(image, "filename", "") or "the PIL image")
    with decoding(name, image.format or "picture"):
        check_size(name, image.width, image.height, image.width * image.height)
        with quiet_stderr() if image.format == "TIFF" else nullcontext():  # libtiff prints
            image.load()
        values, icc = pixels_of(image, bytes_or_none(image.info.get("icc_profile")), name)
        decoded = Decoded(
            values,
            exif=_exif_of(image),
            icc=icc,
            xmp=bytes_or_none(image.info.get("xmp")),
            dpi=sane_dpi(image.info.get("dpi")),
        )
        kind = {"MPO": "JPEG", None: "PIL"}.get(image.format, image.format) or "PIL"
        return decoded.picture(kind)


def _exif_of(image: Image.Image) -> bytes | None:
    block = bytes_or_none(image.info.get("exif"))
    if block is None:
        with quiet_warnings():
            fields = image.getexif()
            block = fields.tobytes() if len(fields) else None
        if block is not None:
            # From a TIFF file PIL hands over the tags that place its pixels, too; these are not ours.
            structure = block.removeprefix(exif_blocks.PREFIX)
            block = exif_blocks.from_tiff(structure, exif_blocks.first_directory(structure))
    return exif_blocks.normalised(block) if block else None
