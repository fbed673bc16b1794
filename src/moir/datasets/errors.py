"""What can be wrong with a data set, each case with a type of its own."""

from moir.base.errors import MoirError


class DatasetError(MoirError):
    """Base of all errors about data sets; the message says which set, what is wrong, and what to do next."""


class RootMissingError(DatasetError):
    """The data root does not exist or is not a folder."""


class FolderMissingError(DatasetError):
    """A folder of a set is missing or holds no pictures; the message gives the layout and where to get the set."""


class UnpairedError(DatasetError):
    """Pictures that have no partner, or two that claim the same one."""


class PairSizeError(DatasetError):
    """Input and target differ in size; the message names both sizes."""


class DamagedPictureError(DatasetError):
    """A picture of a set cannot be read."""


class DatasetWarning(UserWarning):
    """Base of the warnings about data sets."""


class WrongCountWarning(DatasetWarning):
    """A set has another number of pictures than its paper says."""


class UnpairedWarning(DatasetWarning):
    """Pictures without a partner were left out, as was asked for."""
