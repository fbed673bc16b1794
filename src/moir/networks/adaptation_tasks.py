"""The tasks of AdaptIR (NeurIPS 2024), under their published names, and what the backbones share."""

from moir.base.names import check_name

TASK_SCALES: dict[str, int] = {
    "sr_2": 2,
    "sr_3": 3,
    "sr_4": 4,
    "lr4_noise30": 4,
    "lr4_jpeg30": 4,
    "denoise_25": 1,
    "denoise_30": 1,
    "denoise_50": 1,
    "derainL": 1,
    "derainH": 1,
    "low_light": 1,
}
"""Task to how many times the result is larger than the input.

All but ``denoise_25`` are tasks of the published program; the paper has results of that one, too.
"""

RGB_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean of DIV2K, which both backbones subtract; of [0, 1]."""


def check_task(task: str) -> str:
    """Return ``task`` if it is one.

    Raises:
        UnknownNameError: It is not; the message names the near miss.
    """
    return check_name(task, TASK_SCALES, "task")
