"""Every error that moir raises on purpose. Each message names what was wrong, with the value, and what to do next."""


class MoirError(Exception):
    """Base of all errors that moir raises on purpose."""


class PictureError(MoirError):
    """A picture could not be read or written."""


class PictureNotFoundError(PictureError):
    """The path does not exist, or is not a file."""


class PictureUnreadableError(PictureError):
    """The file exists but the operating system refuses to open it."""


class PictureFormatError(PictureError):
    """The file is not a picture in a format that moir reads (or cannot be written in the format asked for)."""


class PictureCorruptError(PictureError):
    """The file starts like a picture but is empty, truncated or damaged."""


class PictureTooLargeError(PictureError):
    """The file declares more pixels than the limit (a decompression bomb, or a limit set too low)."""


class OutputExistsError(MoirError):
    """The output is there already and overwriting was not asked for."""


class OutputConflictError(MoirError):
    """Two inputs would be written to one output."""


class TensorShapeError(MoirError, ValueError):
    """A tensor has the wrong shape, type or range for the contract (B, 3, H, W), float32, [0, 1]."""


class UnknownNameError(MoirError, KeyError):
    """A name (model, degradation, task, option, ...) is not known; the message gives near misses."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class InvalidValueError(MoirError, ValueError):
    """A value is outside what is allowed; the message says what is."""


class CheckpointError(MoirError):
    """A weights file is unsafe, damaged, or does not fit the model."""


class RecipeError(MoirError):
    """A training recipe has a wrong key or value."""


class TrainingError(MoirError):
    """Training cannot go on (a loss is not finite, no training pictures, an unusable checkpoint)."""


class DeviceError(MoirError):
    """The device or precision asked for is not available here."""


class MissingExtraError(MoirError, ImportError):
    """A feature needs an optional dependency that is not installed."""
