import json
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode


@pytest.fixture(scope="session")
def parity() -> Path:
    """The folder of the published implementations' numbers."""
    folder = os.environ.get("MOIR_PARITY")
    if not folder:
        pytest.skip("MOIR_PARITY is unset: no numbers of the published implementations here")
    return Path(folder)


@pytest.fixture(scope="session")
def fixtures() -> Path:
    return Path(__file__).parents[1] / "fixtures"


@pytest.fixture(autouse=True)
def _one_thread_one_seed() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


Fill = Callable[..., None]


@pytest.fixture
def fill() -> Fill:
    """Weights as a function of names and shapes alone: the rule of the parity files."""

    def filled(model: torch.nn.Module, gain: float = 0.7, **factors: float) -> None:
        for name, value in model.state_dict().items():
            if name.endswith("relative_positions"):
                continue
            g = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(value.shape)).astype(np.float32)
            if value.dim() <= 1:
                weight = 1 + 0.1 * g if name.endswith("weight") else 0.1 * g
            elif name.endswith(("temperature", "rescale")):
                weight = 1 + 0.1 * g
            else:
                weight = factors.get(name.rpartition(".")[2], 1) * gain * g / np.sqrt(np.prod(value.shape[1:]))
            with torch.no_grad():
                value.copy_(torch.from_numpy(np.asarray(weight, np.float32)))

    return filled


@pytest.fixture(scope="session")
def fill_adapted() -> Callable[[torch.nn.Module], None]:
    """The same rule in the form of AdaptIR's files: statistics of batch norms too, constants left as they are."""

    def filled(model: torch.nn.Module) -> None:
        for name, value in model.state_dict().items():
            if name.startswith(("sub_mean", "add_mean")) or "attn_mask" in name or not value.is_floating_point():
                continue
            g = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(value.shape)).astype(np.float32)
            if name.endswith("running_var"):
                weight = 1 + 0.1 * np.abs(g)
            elif value.dim() <= 1:
                weight = 1 + 0.1 * g if name.endswith("weight") else 0.1 * g
            else:
                weight = 0.7 * g / np.sqrt(np.prod(value.shape[1:]))
            with torch.no_grad():
                value.copy_(torch.from_numpy(np.asarray(weight, np.float32)))

    return filled


@pytest.fixture(scope="session")
def expert_shapes(parity: Path) -> Callable[[str], dict[str, list[int]]]:
    """Published names and shapes of one of UniRestorer's experts."""
    keys = json.loads((parity / "unirestorer_keys.json").read_text())["keys"]

    def shapes(expert: str) -> dict[str, list[int]]:
        return {k.removeprefix(expert): v["shape"] for k, v in keys.items() if k.startswith(expert)}

    return shapes


@pytest.fixture
def gmacs() -> Callable[[torch.nn.Module], float]:
    """Multiply-accumulates of convolutions and matrix products at 256x256, in units of 1e9; for the meta device."""

    def count(model: torch.nn.Module) -> float:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros(1, 3, 256, 256, device="meta"))
        return counter.get_total_flops() / 2e9

    return count


@pytest.fixture
def uneven() -> torch.Tensor:
    """A picture, (1, 3, 96, 384), whose halves differ in brightness and texture: what its tiles measure differs."""
    picture = torch.rand(1, 3, 96, 384)
    picture[..., 192:] = 0.8 + 0.05 * picture[..., 192:]
    return picture
