"""Networks of others as experts of a pool."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import moir
from moir.base.errors import (
    CheckpointError,
    InvalidValueError,
    MissingExtraError,
    OutputExistsError,
    UnknownNameError,
)
from moir.checkpoints import read_tensors, write_tensors
from moir.cli.app import main
from moir.models import create_model, load_model
from moir.universal.clustering import Label
from moir.universal.joining import centres_by_label, join
from moir.universal.network import UniRestorer
from moir.universal.opening import open_unirestorer
from moir.universal.tree import official_tree


@pytest.fixture(scope="module")
def whole() -> UniRestorer:
    torch.manual_seed(0)
    network = create_model("test_unirestorer")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape))
        network.lf_gate[0].weight.normal_()
        network.layer_gate[0].weight.normal_()
    assert isinstance(network, UniRestorer)
    return network.eval()


@pytest.fixture
def pool(whole: UniRestorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pool that holds everything."""
    first = tmp_path / "published.safetensors"
    write_tensors(first, whole.state_dict())
    # The tiny network has three leaves, and no published tree has.
    monkeypatch.setattr("moir.universal.opening.official_tree", lambda leaves: whole.tree)
    write_tensors(tmp_path / "same.safetensors", whole.experts[5].state_dict())
    made = join(first, "5", tmp_path / "same.safetensors", tmp_path / "pool.safetensors", whole=True)
    monkeypatch.undo()
    assert not made.is_new
    return made.path


@pytest.fixture
def joining(tmp_path: Path) -> tuple[Path, nn.Module]:
    """A network's weights as another program would save them, and the network."""
    torch.manual_seed(7)
    network = create_model("test_restormer", dim=4, heads=(1, 1, 1, 1)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    torch.save({"params": network.state_dict()}, tmp_path / "joining.pth")
    return tmp_path / "joining.pth", network


def pictures(count: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(count, 3, 20, 24, generator=generator) ** torch.linspace(0.2, 5, count).view(-1, 1, 1, 1)


@torch.inference_mode()
def test_a_pool_says_itself_what_it_is(whole: UniRestorer, pool: Path) -> None:
    opened = open_unirestorer(pool)
    assert opened.tree == whole.tree
    torch.testing.assert_close(opened(pictures()), whole(pictures()), rtol=0, atol=1e-6)
    restorer = moir.load(pool, device="cpu")
    assert restorer(pictures(1)[0]).granularity in whole.tree.levels


@torch.inference_mode()
def test_a_network_takes_the_place_of_a_groups_expert(
    whole: UniRestorer, pool: Path, joining: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    done = join(pool, "heavy rain", joining[0], tmp_path / "new" / "mine.safetensors")
    assert (done.expert, done.is_new, done.model) == (5, False, "restormer")
    opened, x = open_unirestorer(done.path), pictures()
    torch.testing.assert_close(opened.experts[5](x), joining[1](x), rtol=0, atol=1e-6)
    for number in (0, 1, 2, 3, 4):
        torch.testing.assert_close(opened.experts[number](x), whole.experts[number](x), rtol=0, atol=1e-6)
    assert torch.equal(opened.decide(x)["leaf"], whole.decide(x)["leaf"])
    assert done.path.stat().st_size < pool.stat().st_size  # the others are referred to
    mine = {name for name in read_tensors(done.path)[0] if "_experts." in name}
    assert {name.split(".")[0] + name.split(".")[1] for name in mine} == {"l2_experts2"}


@torch.inference_mode()
def test_a_new_group_is_a_leaf_that_nothing_chooses_yet(
    whole: UniRestorer, pool: Path, joining: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    x = pictures(6)
    for types, row, siblings in (
        (("rain",), (0, 2, 6), 3),  # below the group of its type
        (("snow", "haze"), (0, 3, 7), 3),  # no such group yet: one of its own, with the same network
    ):
        path = tmp_path / f"{types[0]}.safetensors"
        done = join(pool, "stain", joining[0], path, types=types, degree="light" if types == ("rain",) else None)
        opened = open_unirestorer(done.path)
        tree = opened.tree
        assert done.is_new
        assert tree.leaves[-1].experts == row
        assert tree.leaves[-1].name == tree.name_of(done.expert) == "stain"
        assert set(tree.leaves[-1].types) == set(types)
        assert len(tree.leaves) == siblings + 1
        assert [leaf.name for leaf in tree.leaves[:3]] == [leaf.name for leaf in whole.tree.leaves]
        torch.testing.assert_close(opened(x), whole(x), rtol=0, atol=1e-6)
        for expert in row[2:] if types == ("rain",) else row[1:]:
            torch.testing.assert_close(opened.experts[expert](x), joining[1](x), rtol=0, atol=1e-6)
        told = opened.instruct(opened.decide(x), list(types))
        assert set(told["leaf"].tolist()) <= ({1, 2, 3} if types == ("rain",) else {3})
    stored = read_tensors(path)[0]
    assert sum(name.endswith("patch_embed.proj.weight") for name in stored) == 1  # twice in the tree, once in the file


@torch.inference_mode()
def test_pools_can_be_joined_again_and_moved_when_whole(
    pool: Path, joining: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    once = join(pool, "stain", joining[0], tmp_path / "a" / "once.safetensors", types=["snow"])
    twice = join(once.path, "noise", "compact", tmp_path / "b" / "twice.safetensors", whole=True)
    x = pictures(2)
    assert twice.model == "compact"
    for path in (pool, once.path):
        path.rename(path.with_suffix(".gone"))
    opened = open_unirestorer(twice.path)  # refers to nothing
    torch.testing.assert_close(opened.experts[7](x), joining[1](x), rtol=0, atol=1e-6)
    torch.testing.assert_close(opened.experts[twice.expert](x), load_model("compact")[0](x), rtol=0, atol=1e-5)
    with pytest.raises(CheckpointError, match="there is no weights file"):
        open_unirestorer(once.path)
    once.path.with_suffix(".gone").rename(once.path)
    with pytest.raises(CheckpointError, match=r"pool\.safetensors, which is not there"):
        open_unirestorer(once.path)


def test_an_expert_that_changed_since_is_refused(pool: Path, joining: tuple[Path, nn.Module], tmp_path: Path) -> None:
    done = join(pool, "noise", joining[0], tmp_path / "mine.safetensors")
    tensors, facts = read_tensors(pool)
    tensors["l0_experts.0.output.weight"] += 1
    write_tensors(pool, tensors, facts, overwrite=True)
    opened = open_unirestorer(done.path)
    with pytest.raises(CheckpointError, match="has changed since it joined"):
        opened.experts[0](pictures(1))


class Blur(nn.Module):
    """A network of somebody's own."""

    def __init__(self, side: int = 3) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, side, padding=side // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Blur it."""
        out: torch.Tensor = self.mix(x)
        return out


@torch.inference_mode()
def test_a_network_of_ones_own_joins_in_python(pool: Path, tmp_path: Path) -> None:
    own = Blur(5).eval()
    write_tensors(tmp_path / "own.safetensors", own.state_dict())
    builders = {"blur": Blur}
    done = join(
        pool, "noise", tmp_path / "own.safetensors", tmp_path / "mine.safetensors", model="own:blur",
        options={"side": 5}, builders=builders,
    )  # fmt: skip
    x = pictures()
    opened = open_unirestorer(done.path, builders=builders)
    torch.testing.assert_close(opened.experts[done.expert](x), own(x))
    context = opened.analyse(x, leaf_mask=torch.tensor([False, True, True]))
    assert opened(x, context).shape == x.shape
    with pytest.raises(CheckpointError, match=r"builders=\{'blur': YOUR_CLASS\}"):
        open_unirestorer(done.path).experts[done.expert](x)


def test_a_network_that_spandrel_knows_joins(pool: Path, tmp_path: Path) -> None:
    spandrel = _spandrel()
    module = importlib.import_module("spandrel.architectures.DnCNN.__arch.network_dncnn")
    torch.manual_seed(0)
    own = module.DnCNN(in_nc=3, out_nc=3, nc=8, nb=9, act_mode="R").eval()
    torch.save(own.state_dict(), tmp_path / "dncnn.pth")
    done = join(pool, "noise", tmp_path / "dncnn.pth", tmp_path / "mine.safetensors")
    assert done.model == "spandrel"
    network, x = open_unirestorer(done.path), pictures(2)
    with torch.inference_mode():
        wanted = spandrel.ModelLoader("cpu").load_from_state_dict(own.state_dict())
        torch.testing.assert_close(network.experts[done.expert](x)[:1], wanted(x[:1]))
    network.train()  # its result must not be an inference tensor: the router learns through it
    network.routing_noise = "never"
    network(x).sum().backward()


def test_what_nobody_knows_is_refused(pool: Path, tmp_path: Path) -> None:
    write_tensors(tmp_path / "odd.safetensors", {"weight": torch.ones(3)})
    expected = CheckpointError if _has_spandrel() else MissingExtraError
    with pytest.raises(expected, match="odd"):
        join(pool, "noise", tmp_path / "odd.safetensors", tmp_path / "mine.safetensors")
    assert not (tmp_path / "mine.safetensors").exists()


def test_enlarging_networks_cannot_join(pool: Path, tmp_path: Path) -> None:
    network = create_model("test_edt", task="sr_2")
    write_tensors(tmp_path / "x2.safetensors", network.state_dict())
    with pytest.raises(CheckpointError, match=r"made \(1, 3, 48, 40\) of a picture"):
        join(
            pool, "noise", tmp_path / "x2.safetensors", tmp_path / "mine.safetensors", model="test_edt",
            options={"task": "sr_2"},
        )  # fmt: skip


def test_wrong_places_are_named(pool: Path, joining: tuple[Path, nn.Module], tmp_path: Path) -> None:
    target = tmp_path / "mine.safetensors"
    with pytest.raises(UnknownNameError, match="did you mean 'heavy rain'"):
        join(pool, "haevy rain", joining[0], target)
    with pytest.raises(InvalidValueError, match="leave types and degree out"):
        join(pool, "noise", joining[0], target, types=["noise"])
    with pytest.raises(UnknownNameError, match="did you mean 'snow'"):
        join(pool, "stain", joining[0], target, types=["snwo"])
    with pytest.raises(InvalidValueError, match="give another name"):
        join(pool, "noise", joining[0], pool, overwrite=True)
    with pytest.raises(InvalidValueError, match=r"must end in .safetensors"):
        join(pool, "noise", joining[0], tmp_path / "mine.pth")
    target.write_text("here")
    with pytest.raises(OutputExistsError):
        join(pool, "noise", joining[0], target)
    with pytest.raises(CheckpointError, match="no UniRestorer"):
        join(joining[0], "noise", joining[0], tmp_path / "b.safetensors")


def test_the_command(
    pool: Path, joining: tuple[Path, nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def run(*arguments: object) -> int:
        monkeypatch.setattr("sys.argv", ["moir", "expert", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0)

    target = tmp_path / "mine.safetensors"
    common = ("add", pool, "--network", joining[0], "--output", target)
    assert run(*common, "--group", "stain", "--types", "haze, rain", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == {
        "output": str(target), "expert": 7, "group": "stain", "model": "restormer", "new_group": True,
    }  # fmt: skip
    assert run("list", target, "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["group"] for row in rows] == [
        "all",
        "noise",
        "rain",
        "stain",
        "noise",
        "light rain",
        "heavy rain",
        "stain",
    ]
    assert rows[7]["file"] == str(target)
    assert run(*common, "--group", "noise") == 1  # nothing is overwritten
    assert "exists already" in capsys.readouterr().err


def test_centres_where_no_clustering_gave_them() -> None:
    tree = official_tree()
    random = np.random.default_rng(0)
    labels = [Label((leaf.types[0],), "light") for leaf in tree.leaves for _ in range(5)]
    points = random.standard_normal((len(labels), 4))
    probability = np.eye(len(tree.leaves)).repeat(5, axis=0)
    centres = centres_by_label(tree, points, labels, probability)
    np.testing.assert_allclose(centres[3], points[15:20].mean(axis=0))  # of several that fit, the router chose
    known = centres.copy()
    known[3] = np.nan
    filled = centres_by_label(tree, points, labels, probability, known)
    np.testing.assert_allclose(filled[3], points[15:30].mean(axis=0))  # a leaf that joined: all that fit it
    assert np.array_equal(np.delete(filled, 3, axis=0), np.delete(centres, 3, axis=0))
    with pytest.raises(InvalidValueError, match="no training picture fits the leaf lowlight-1"):
        rest = [i for i, label in enumerate(labels) if label.types != ("lowlight",)]
        centres_by_label(tree, points[rest], [labels[i] for i in rest], probability[rest])


def _has_spandrel() -> bool:
    try:
        import spandrel  # noqa: F401
    except (ImportError, RuntimeError):
        return False
    return True


def _spandrel() -> object:
    if not _has_spandrel():
        pytest.skip("spandrel is not installed, or its torchvision does not fit")
    import spandrel

    return spandrel
