"""The shipped form of UniRestorer: a graph that decides as the network does, and one per expert."""

import itertools
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from moir.base.errors import InvalidValueError
from moir.export import ExportError, Manifest, export, load_exported

from .conftest import make
from .test_networks import SHAPES, compare
from .test_run import EXAMPLE


def tree(**options):
    """A tiny tree whose experts differ, and whose router decides differently for different pictures."""
    network, card = make("test_unirestorer_compact", **options)
    with torch.no_grad():
        for gate in (network.lf_gate, network.layer_gate):
            gate[0].weight.normal_(std=2.0, generator=torch.Generator().manual_seed(1))
        for number in network.trained:
            generator = torch.Generator().manual_seed(number)
            for parameter in network.experts[number].parameters():
                parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
    return network, card


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    network, card = tree(sure={"noise": 0.5, "rain": 0.2}, sure_mixed={"haze": 0.5}, believed=0.6)
    folder = tmp_path_factory.mktemp("exports") / "tree"
    export(network, folder, card, size=40)
    return network, folder


def test_graphs_give_what_the_network_gives(exported):
    compare(*exported, SHAPES)


def test_every_expert_by_number_and_in_one_batch(exported):
    network, folder = exported
    graphs = load_exported(folder)
    numbers = torch.arange(network.tree.experts)
    x = torch.rand(1, 3, 24, 40, generator=torch.Generator().manual_seed(0)).expand(len(numbers), -1, -1, -1)
    with torch.no_grad():
        context = {**network.analyse(x), "expert": numbers}
        wanted = network(x, context)
    got = graphs.forward(x, context)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)
    clean = [number for number in numbers.tolist() if network.tree.is_clean(number)]
    assert clean
    assert all(torch.equal(got[number], x[0]) for number in clean)
    others = [got[number] for number in numbers.tolist() if number not in clean]
    assert all((a - b).abs().max() > 1e-3 for a, b in itertools.combinations(others, 2))


def test_weights_that_experts_share_are_stored_once(exported):
    network, folder = exported
    stored = (folder / "weights.bin").stat().st_size
    large = [p for p in network.parameters() if p.numel() * 4 >= 1024]
    distinct = sum(p.numel() * 4 for p in large)
    separate = sum(
        p.numel() * 4 for n in {0, *network.trained} for p in network.expert(n).parameters() if p.numel() * 4 >= 1024
    )
    assert stored < 1.1 * distinct < 0.8 * separate


def test_the_description_says_which_graph_is_whose(exported):
    network, folder = exported
    manifest = Manifest.read(folder)
    files = manifest.experts.files
    assert manifest.experts.input == "expert"
    assert len(files) == network.tree.experts
    assert files[0] == manifest.restore.file == "restore.onnx"
    assert [number for number, file in enumerate(files) if file is None] == [1, 4]
    assert {path.name for path in folder.iterdir()} == {*manifest.hashes, "moir.json"}
    assert manifest.check[-1]["pictures"] == "a photograph, by every expert"
    assert manifest.check[-1]["psnr"] > 90


def test_experts_without_parameters_of_their_own_are_their_parents(tmp_path):
    network, card = tree(trained=(2, 5))
    manifest = export(network, tmp_path / "graphs", card, size=40)
    restore, two, five = "restore.onnx", "restore-2.onnx", "restore-5.onnx"
    assert manifest.experts.files == [restore, None, two, restore, None, five, two, restore]
    compare(network, tmp_path / "graphs", SHAPES[:2])


def test_other_kinds_of_experts_and_a_leaf_that_waits(tmp_path):
    more, adapted, whole = {"decoder_blocks": [1, 3]}, {"adapter": {"method": "conv"}}, {"model": "test_restormer"}
    network, card = tree(forms={2: more, 5: adapted, 7: whole}, waiting=[0])
    manifest = export(network, tmp_path / "graphs", card, size=40)
    assert manifest.check[-1]["psnr"] > 90
    compare(network, tmp_path / "graphs", SHAPES[:2])


def test_the_shared_network_can_be_told(exported):
    network, folder = exported
    graphs = load_exported(folder)
    order = graphs.manifest.instruction["order"]
    x = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    told = torch.tensor([[float(name in ("snow", "instructed")) for name in order]])
    with torch.no_grad():  # no leaf is for snow, so that the shared network is told
        wanted = network(x, network.instruct(network.analyse(x), ["snow"]))
    context = {**graphs.analyse(x), graphs.manifest.experts.input: torch.tensor([0]), "remove": told}
    torch.testing.assert_close(graphs.forward(x, context), wanted, atol=1e-5, rtol=1e-4)


def test_an_expert_that_is_not_there_and_a_changed_file(exported, tmp_path):
    _, folder = exported
    graphs = load_exported(folder)
    x = torch.rand(1, 3, 16, 16)
    with pytest.raises(InvalidValueError, match="no expert 8; this export has 0 to 7"):
        graphs.forward(x, {**graphs.analyse(x), "expert": torch.tensor([8])})
    shutil.copytree(folder, tmp_path / "copy")
    with (tmp_path / "copy" / "weights.bin").open("r+b") as file:
        file.write(b"\1")
    with pytest.raises(ExportError, match=r"weights\.bin is missing or not the file"):
        load_exported(tmp_path / "copy")


def test_an_expert_with_other_weights_is_found_out(tmp_path, monkeypatch):
    network, card = tree()
    import moir.export.graphs as graphs

    numbers = graphs.graphs_of(network)
    assert numbers[6] == 6
    swapped = [5 if number == 6 else number for number in numbers]
    monkeypatch.setattr(graphs, "graphs_of", lambda _: swapped)
    with pytest.raises(ExportError, match="by expert 6"):
        export(network, tmp_path / "graphs", card, size=40)
    assert not list(tmp_path.iterdir())


def test_half_precision(tmp_path):
    network, card = tree()
    manifest = export(network, tmp_path / "graphs", card, precision="fp16", size=40)
    assert 50 < min(row["psnr"] for row in manifest.check) < 110  # near, and not the same


def test_openvino(tmp_path):
    pytest.importorskip("openvino", reason="openvino is not installed: pip install 'moir[export]'")
    network, card = tree(trained=(2, 5))
    export(network, tmp_path / "graphs", card, "openvino", size=40)
    graphs = load_exported(tmp_path / "graphs", "openvino")
    assert (tmp_path / "graphs" / "restore-5.xml").exists()
    x = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        context = {**network.analyse(x), "expert": torch.tensor([5, 1])}
        wanted = network(x, context)
    torch.testing.assert_close(graphs.forward(x, context), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("expert", [None, 1])
def test_the_example_runs_the_expert_that_is_chosen(exported, expert, tmp_path, photograph):
    network, folder = exported
    pixels = (photograph[:, :45, :50].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    if expert is not None:  # whatever is chosen, restore by this one
        shutil.copytree(folder, tmp_path / "copy")
        described = json.loads((folder / "moir.json").read_text())
        described["experts"]["files"] = [described["experts"]["files"][expert]] * network.tree.experts
        (tmp_path / "copy" / "moir.json").write_text(json.dumps(described))
        folder = tmp_path / "copy"
    command = [sys.executable, str(EXAMPLE), str(folder), str(tmp_path / "in.png"), str(tmp_path / "out.png")]
    subprocess.run(command, check=True, capture_output=True, text=True)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        wanted = x if expert == 1 else network(x).clamp(0, 1)
    got = torch.from_numpy(np.array(Image.open(tmp_path / "out.png"))).permute(2, 0, 1)
    assert ((wanted[0] * 255).round() - got).abs().max() <= 1  # rounding
