"""Every network of the registry as graphs: the same context and the same pictures, for any size and batch."""

import pytest
import torch

from moir.export import ExportError, export, load_exported
from moir.export.graphs import check_exportable
from moir.models import create_model, list_models

from .conftest import make

SHAPES = [(1, 3, 1, 1), (2, 3, 33, 70), (3, 3, 64, 40), (1, 3, 9, 130)]
LIGHT = ["test_unet", "test_nafnet", "test_nafnet_local", "test_restormer", "test_lora_restormer", "test_promptir"]
IMPOSSIBLE = {"unirestorer": "8-bit", "test_unirestorer": "8-bit"}


def compare(network, folder, shapes=SHAPES):
    exported = load_exported(folder)
    for shape in shapes:
        x = torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))
        with torch.no_grad():
            context, restored = network.analyse(x), network(x)
        found = exported.analyse(x)
        assert found.keys() == context.keys()
        for name, value in context.items():
            torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4, msg=f"{name} of {shape}")
        torch.testing.assert_close(exported.forward(x), restored, atol=1e-5, rtol=1e-4, msg=str(shape))


@pytest.mark.parametrize("name", LIGHT)
def test_graphs_give_what_the_network_gives(name, tmp_path):
    network, card = make(name)
    export(network, tmp_path / "graphs", card, size=40)
    compare(network, tmp_path / "graphs")


def test_compact_at_sizes_that_change_the_number_of_crops(compact):
    network, folder = compact
    compare(network, folder, [*SHAPES, (1, 3, 64, 128), (1, 3, 193, 127), (2, 3, 260, 300), (1, 3, 63, 520)])


@pytest.mark.parametrize("options", [{"task": "denoise_30"}, {"task": "sr_2"}], ids=str)
def test_edt_with_one_window_and_with_many(options, tmp_path):
    network, card = make("test_edt", **options)
    export(network, tmp_path / "graphs", card, size=40)
    compare(network, tmp_path / "graphs", [*SHAPES, (1, 3, 32, 96), (2, 3, 97, 20)])


@pytest.mark.parametrize(
    "options", [{}, {"tiling": "blended"}, {"tiling": "blended", "stride": 5, "task": "sr_3"}], ids=str
)
def test_ipt_with_one_patch_and_with_many(options, tmp_path):
    network, card = make("test_ipt", **options)
    export(network, tmp_path / "graphs", card, size=40)
    # Patches are of 12 pixels, 3 apart as published: these fit, and leave 1 and 2 pixels over.
    compare(
        network, tmp_path / "graphs", [(1, 3, 1, 1), (2, 3, 12, 12), (1, 3, 12, 13), (2, 3, 24, 17), (1, 3, 33, 14)]
    )


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_be_exported_says_why(name):
    with torch.device("meta"):
        network = create_model(name)
    with pytest.raises(ExportError, match=IMPOSSIBLE[name]):
        check_exportable(network)


def test_nothing_is_left_of_an_export_that_is_refused(tmp_path):
    network, card = make("test_unirestorer")
    with pytest.raises(ExportError, match="one by one"):
        export(network, tmp_path / "graphs", card)
    assert not list(tmp_path.iterdir())


def test_all_other_networks_of_the_registry_can_be_exported():
    for name in list_models():
        if name not in IMPOSSIBLE:
            with torch.device("meta"):
                network = create_model(name)
            check_exportable(network)


def test_a_module_without_analyse_is_refused():
    with pytest.raises(ExportError, match="Linear is not a network of moir"):
        check_exportable(torch.nn.Linear(2, 2))
