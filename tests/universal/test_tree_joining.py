"""Adapters and networks of others as experts of the shipped tree."""

import copy
import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import moir
from moir.adapted import save_adapter
from moir.adapters import attach
from moir.base.errors import CheckpointError, InvalidValueError, MissingExtraError, OutputExistsError, UnknownNameError
from moir.checkpoints import Card, write_tensors
from moir.checkpoints.card import sha256_of
from moir.cli.app import main
from moir.models import create_model, load_model
from moir.networks.base import Context, RestorationNetwork
from moir.networks.compact import Compact
from moir.runtime.fast import accelerate
from moir.universal.compact_tree import CompactUniRestorer
from moir.universal.expert_kinds import kind_of
from moir.universal.joining import join
from moir.universal.tree import Leaf
from moir.universal.tree_joining import Joined, join_tree, with_leaf

METHODS = ("adaptir", "adapter", "adaptformer", "conv", "fact", "lora", "ssf")
NOISE = 2
"""The number of the expert of the group 'noise' in the tiny tree."""


@torch.no_grad()
def shaken(network: nn.Module, seed: int) -> nn.Module:
    """A network away from its initial values, so that every part of it does something."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def saved(network: nn.Module, path: Path, model: str, **facts: object) -> Path:
    write_tensors(path, network.state_dict())
    card = Card(path.stem, model, network.options, sha256=sha256_of(path), **facts)  # type: ignore[arg-type]
    card.write(path.with_suffix(".json"))
    return path


@pytest.fixture(scope="module")
def network() -> CompactUniRestorer:
    torch.manual_seed(0)
    made = shaken(create_model("test_unirestorer_compact", sure={"noise": 0.0}), 0)
    assert isinstance(made, CompactUniRestorer)
    with torch.no_grad():
        made.lf_gate[0].weight.normal_()
        made.layer_gate[0].weight.normal_()
    return made


@pytest.fixture
def tree(network: CompactUniRestorer, tmp_path: Path) -> Path:
    return saved(network, tmp_path / "tree.safetensors", "test_unirestorer_compact", licence="CC0", metrics=[{"n": 1}])


def _spandrel() -> Any:
    try:
        import spandrel
    except (ImportError, RuntimeError):
        pytest.skip("spandrel is not installed, or its torchvision does not fit")
    return spandrel


def adapter_for(base: Compact, path: Path, method: str = "conv") -> tuple[Path, Compact]:
    """An adapter's file, and the adapted network."""
    adapted = copy.deepcopy(base)
    attach(adapted, method, "mine")
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, tensor in adapted.state_dict(keep_vars=True).items():
            if name not in base.state_dict() and tensor.is_floating_point():
                tensor.add_(0.05 * torch.rand(tensor.shape, generator=generator))
    save_adapter(path, adapted, "mine", "test_compact")
    return path, adapted.eval()


@pytest.fixture
def adapter(network: CompactUniRestorer, tmp_path: Path) -> tuple[Path, Compact]:
    return adapter_for(network.base, tmp_path / "adapter.safetensors")


def pictures(count: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(count, 3, 30, 22, generator=generator) ** torch.linspace(0.2, 5, count).view(-1, 1, 1, 1)


def opened(done: Joined) -> CompactUniRestorer:
    found, _ = load_model(str(done.path))
    assert isinstance(found, CompactUniRestorer)
    return found


@torch.inference_mode()
def untold(expert: Compact, x: torch.Tensor) -> torch.Tensor:
    """What a network makes of pictures by what it finds itself."""
    return expert(x, expert.analyse(x))


# -- the three kinds --------------------------------------------------------------------------------------------------


@torch.inference_mode()
@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_joins(network: CompactUniRestorer, tree: Path, tmp_path: Path, method: str) -> None:
    file, adapted = adapter_for(network.base, tmp_path / "adapter.safetensors", method)
    done = join_tree(tree, "noise", file, tmp_path / "new.safetensors")
    assert (done.expert, done.is_new, done.model) == (NOISE, False, f"adapter {method}")
    new, x = opened(done), pictures()
    context = new.analyse(x)
    assert not torch.allclose(untold(adapted, x), untold(network.base, x), atol=1e-4)
    torch.testing.assert_close(new.restore_with(NOISE, x, context), untold(adapted, x))
    torch.testing.assert_close(new.restore_with(0, x, context), untold(network.base, x))  # which stays unadapted
    for number in (5, 7):  # the others are what they were
        torch.testing.assert_close(
            new.restore_with(number, x, context), network.restore_with(number, x, network.analyse(x))
        )


@torch.inference_mode()
def test_weights_of_the_shared_network_join(network: CompactUniRestorer, tree: Path, tmp_path: Path) -> None:
    blocks = {"encoder_blocks": (1, 1), "decoder_blocks": (1, 3), "middle_blocks": 1}
    torch.manual_seed(1)
    mine = shaken(create_model("test_compact", **blocks), 1)
    same = {n: v for n, v in network.base.state_dict().items() if not n.startswith(("head.", "decoder1."))}
    mine.load_state_dict(same, strict=False)
    assert isinstance(mine, Compact)
    done = join_tree(
        tree, "rain-haze", saved(mine, tmp_path / "mine.safetensors", "test_compact"), tmp_path / "n.safetensors"
    )
    new, x = opened(done), pictures()
    torch.testing.assert_close(new.restore_with(done.expert, x, new.analyse(x)), untold(mine, x))
    form = new.options["forms"][str(done.expert)]
    assert form == {"own": ["decoder1.*", "head.*"], "decoder_blocks": [1, 3]}
    own = {name.split(".")[0] for name in dict(new.experts[done.expert].named_parameters())}
    assert own == {"decoder1", "head"}


@torch.inference_mode()
def test_another_network_joins(network: CompactUniRestorer, tree: Path, tmp_path: Path) -> None:
    torch.manual_seed(2)
    mine = shaken(create_model("test_restormer", dim=4, heads=(1, 1, 1, 1)), 2)
    torch.save({"params": mine.state_dict()}, tmp_path / "mine.pth")  # as another program would write it
    done = join_tree(tree, "heavy noise", tmp_path / "mine.pth", tmp_path / "new.safetensors")
    new, x = opened(done), pictures()
    assert done.model == new.words_of(done.expert) == "restormer"
    torch.testing.assert_close(new.restore_with(done.expert, x, new.analyse(x)), mine(x), rtol=0, atol=1e-5)
    again, card = load_model(str(done.path))
    assert card.parameters == sum(p.numel() for p in again.parameters())
    assert "CC0; " in card.licence  # nobody knows Restormer's file's licence, and that binds
    fast = accelerate(new)
    assert fast is not None
    context = {**new.analyse(x), "expert": torch.tensor([done.expert, 0, NOISE, done.expert])}
    torch.testing.assert_close(fast(x, context), new(x, context), rtol=0, atol=1e-4)


@torch.inference_mode()
def test_a_network_that_spandrel_knows_joins(tree: Path, tmp_path: Path) -> None:
    spandrel = _spandrel()
    module = importlib.import_module("spandrel.architectures.DnCNN.__arch.network_dncnn")
    torch.manual_seed(4)
    mine = module.DnCNN(in_nc=3, out_nc=3, nc=8, nb=9, act_mode="R").eval()
    torch.save(mine.state_dict(), tmp_path / "mine.pth")
    done = join_tree(tree, "stain", tmp_path / "mine.pth", tmp_path / "new.safetensors", types=["unknown"])
    new, x = opened(done), pictures(1)
    wanted = spandrel.ModelLoader("cpu").load_from_state_dict(mine.state_dict())(x)
    torch.testing.assert_close(new.restore_with(done.expert, x, new.analyse(x)), wanted, rtol=0, atol=1e-5)


class Doubler(RestorationNetwork):
    """Stands for what spandrel makes of a state dict: multiplies by a number, once for each integer."""

    def __init__(self, tensors: dict[str, torch.Tensor], source: str) -> None:
        super().__init__()
        self.gain, self.times = tensors["gain.weight"], int(tensors["times"])

    def forward(self, x: torch.Tensor, context: Context | None = None) -> torch.Tensor:
        return x * self.gain**self.times


@torch.inference_mode()
def test_tensors_of_another_project_come_back_as_they_were(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for user in ("pool", "expert_kinds"):
        monkeypatch.setattr(f"moir.universal.{user}.spandrel_expert", Doubler)
    tensors = {"gain.weight": torch.tensor([2.0]), "times": torch.tensor(3)}
    write_tensors(tmp_path / "mine.safetensors", tensors)
    done = join_tree(tree, "stain", tmp_path / "mine.safetensors", tmp_path / "new.safetensors", types=["unknown"])
    new, x = opened(done), pictures(2)
    assert (done.model, new.words_of(done.expert)) == ("spandrel", "spandrel")
    assert torch.equal(new.restore_with(done.expert, x, new.analyse(x)), 8 * x)
    held = new.experts[done.expert].state_dict()
    assert {name: (value.dtype, value.shape) for name, value in held.items()} == {
        name: (value.dtype, value.shape) for name, value in tensors.items()
    }


def test_what_nobody_knows_is_refused(tree: Path, tmp_path: Path) -> None:
    write_tensors(tmp_path / "odd.safetensors", {"weight": torch.ones(3)})
    with pytest.raises((CheckpointError, MissingExtraError), match="odd"):
        join_tree(tree, "noise", tmp_path / "odd.safetensors", tmp_path / "new.safetensors")


@torch.inference_mode()
def test_tiles_suit_every_expert(tree: Path, tmp_path: Path) -> None:
    torch.manual_seed(2)
    mine = saved(shaken(create_model("test_unet"), 2), tmp_path / "mine.safetensors", "test_unet")
    done = join_tree(tree, "noise", mine, tmp_path / "new.safetensors")
    new, card = load_model(str(done.path))
    assert (new.size_multiple, new.overlap) == (card.size_multiple, card.overlap) == (16, 128)
    fast = accelerate(new)
    assert fast is None or (fast.size_multiple, fast.overlap) == (16, 128)


# -- places in the tree -----------------------------------------------------------------------------------------------


@torch.inference_mode()
@pytest.mark.parametrize(
    ("types", "degree", "row"),
    [
        (("noise",), "medium", (0, NOISE, 8)),  # below the group of its type
        (("snow", "blur"), None, (0, 8, 9)),  # below a group of its own
        (("unknown",), None, (0, 8, 9)),
    ],
)
def test_nothing_chooses_a_new_leaf_yet(
    network: CompactUniRestorer,
    tree: Path,
    adapter: tuple[Path, Compact],
    tmp_path: Path,
    types: tuple[str, ...],
    degree: str | None,
    row: tuple[int, ...],
) -> None:
    done = join_tree(tree, "stain", adapter[0], tmp_path / "new.safetensors", types=types, degree=degree)
    new, x = opened(done), pictures(8)
    leaf = new.tree.leaves[-1]
    assert done.is_new
    assert (leaf.name, leaf.experts, leaf.degree, leaf.unnamed) == ("stain", row, degree, types == ("unknown",))
    assert not new.tree.is_clean(done.expert)
    assert new.waiting == (4,)
    assert torch.isneginf(new.analyse(x)["leaf_logits"][:, -1]).all()
    torch.testing.assert_close(new(x), network(x))
    told = new.instruct(new.analyse(x), [t for t in types if t != "unknown"] or ["rain"])
    assert not (told["leaf"] == 4).any()
    # Its own experts, down to the finest, are the newcomer.
    for number in row[row.index(done.expert) :]:
        torch.testing.assert_close(new.restore_with(number, x, new.analyse(x)), untold(adapter[1], x))


@torch.inference_mode()
def test_a_leaf_that_no_longer_waits_is_chosen_and_answers_to_its_task(
    tree: Path, adapter: tuple[Path, Compact], tmp_path: Path
) -> None:
    done = join_tree(tree, "stain", adapter[0], tmp_path / "new.safetensors", types=["snow"])
    new = opened(done)
    ready = create_model("test_unirestorer_compact", **{**new.options, "waiting": []}).eval()
    assert isinstance(ready, CompactUniRestorer)
    ready.load_state_dict(new.state_dict())
    x = pictures()
    told = ready.instruct(ready.analyse(x), ["snow"])
    assert told["leaf"].tolist() == [4] * 4
    assert {name for name, _ in ready.account(told)} == {"stain"}
    assert told["remove"][0].tolist() == [0, 0, 0, 1, 0, 0, 0, 1]  # the user's words, for whom they are understood


def test_a_second_newcomer_joins_beside_the_first(tree: Path, adapter: tuple[Path, Compact], tmp_path: Path) -> None:
    first = join_tree(tree, "stain", adapter[0], tmp_path / "one.safetensors", types=["unknown"])
    second = join_tree(first.path, "dust", adapter[0], tmp_path / "two.safetensors", types=["unknown"])
    new = opened(second)
    assert new.waiting == (4, 5)
    assert [leaf.experts for leaf in new.tree.leaves[-2:]] == [(0, 8, 9), (0, 10, 11)]
    assert [new.words_of(n) for n in (0, 1, 2, 8, 9, 10)] == [
        "shared network", "identity", "own parameters", "adapter conv", "as expert 8", "adapter conv",
    ]  # fmt: skip


def test_a_group_of_two_levels(network: CompactUniRestorer) -> None:
    tree, first = with_leaf(network.tree, Leaf("heavy rain-haze", ("rain", "haze"), (), "heavy"))
    assert (tree.leaves[-1].experts, first) == ((0, 3, 8), 8)
    assert tree.name_of(8) == "heavy rain-haze"


@torch.inference_mode()
def test_what_lies_in_shipped_weights_is_not_written_again(
    network: CompactUniRestorer, adapter: tuple[Path, Compact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tmp_path / "shipped"
    base = saved(network.base, shipped / "base.safetensors", "test_compact")
    part = {"weights": "base", "sha256": sha256_of(base)}
    own = {name: value for name, value in network.state_dict().items() if not name.startswith("base.")}
    write_tensors(tmp_path / "tree.safetensors", own)
    card = Card("tree", "test_unirestorer_compact", network.options, parts={"base.": part})
    card.write(tmp_path / "tree.json")
    monkeypatch.setattr("moir.models.WEIGHTS", shipped)
    done = join_tree(tmp_path / "tree.safetensors", "noise", adapter[0], tmp_path / "new.safetensors")
    assert Card.read(tmp_path / "new.json").parts == {"base.": part}
    x = pictures()
    new = opened(done)
    torch.testing.assert_close(new.restore_with(NOISE, x, new.analyse(x)), untold(adapter[1], x))


def test_one_restorer_runs_the_newcomer_like_any_expert(
    tree: Path, adapter: tuple[Path, Compact], tmp_path: Path
) -> None:
    done = join_tree(tree, "noise", adapter[0], tmp_path / "new.safetensors")
    restorer = moir.load(done.path, device="cpu", precision="float32", tile=None)
    x = pictures(1)[0]
    told = restorer(x, task="denoise")
    assert told.granularity in ("type", "degree", "all")
    network = restorer.engine.network
    assert isinstance(network, CompactUniRestorer)
    context = {**restorer.engine.analyse(x[None]), "expert": torch.tensor([NOISE])}
    with torch.inference_mode():
        wanted = adapter[1](x[None], {n: context[n] for n in ("embedding", "remove")}).clamp(0, 1)
    torch.testing.assert_close(restorer.engine.restore(x[None], context).pictures, wanted, rtol=0, atol=1e-5)
    assert len(restorer.inspect(x).estimate) == 7


def test_a_copy_and_a_move_keep_the_newcomer(network: CompactUniRestorer, tree: Path, tmp_path: Path) -> None:
    file, adapted = adapter_for(network.base, tmp_path / "adapter.safetensors", "adaptir")  # has running statistics
    new, x = opened(join_tree(tree, "noise", file, tmp_path / "new.safetensors")), pictures()
    before = new.restore_with(NOISE, x, new.analyse(x))
    torch.testing.assert_close(before, untold(adapted, x))
    torch.testing.assert_close(copy.deepcopy(new).restore_with(NOISE, x, new.analyse(x)), before)
    new.double().float()  # there and back again: its buffers are other tensors now, and must be those that act
    torch.testing.assert_close(new.restore_with(NOISE, x, new.analyse(x)), before)
    for buffer in new.experts[NOISE].buffers():
        buffer.add_(1)
    assert not torch.allclose(new.restore_with(NOISE, x, new.analyse(x)), before, atol=1e-4)


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_an_adapter_of_other_weights_is_refused(tree: Path, tmp_path: Path) -> None:
    torch.manual_seed(9)
    other = shaken(create_model("test_compact"), 9)
    assert isinstance(other, Compact)
    file, _ = adapter_for(other, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"other\.safetensors belongs to .* Only adapters for the tree's shared"):
        join_tree(tree, "noise", file, tmp_path / "new.safetensors")
    assert not (tmp_path / "new.safetensors").exists()


def test_a_network_that_enlarges_is_refused(tree: Path, tmp_path: Path) -> None:
    mine = saved(create_model("test_edt", task="sr_2").eval(), tmp_path / "mine.safetensors", "test_edt")
    with pytest.raises(InvalidValueError, match="enlarges pictures 2 times"):
        join_tree(tree, "noise", mine, tmp_path / "new.safetensors")


@pytest.mark.parametrize("model", ["test_nafnet", "test_moce_ir", "test_retinexformer"])
def test_a_network_that_decides_for_itself_is_refused(tree: Path, tmp_path: Path, model: str) -> None:
    torch.manual_seed(0)
    mine = saved(create_model(model).eval(), tmp_path / "mine.safetensors", model)
    with pytest.raises(InvalidValueError, match="decides on the whole picture what all its tiles must share"):
        join_tree(tree, "noise", mine, tmp_path / "new.safetensors")


def test_a_compact_network_with_an_estimator_of_its_own_is_refused(tree: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    for options, message in (({}, "an estimator that is not the shared"), ({"width": 4}, "an estimator that is not")):
        mine = saved(
            create_model("test_compact", **options).eval(), tmp_path / f"{len(options)}.safetensors", "test_compact"
        )
        with pytest.raises(InvalidValueError, match=message):
            join_tree(tree, "noise", mine, tmp_path / "new.safetensors")


def test_a_compact_network_of_another_width_is_refused(network: CompactUniRestorer, tree: Path, tmp_path: Path) -> None:
    mine = create_model("test_compact", width=4).eval()
    estimator = {n: v for n, v in network.base.state_dict().items() if n.startswith("estimator.")}
    mine.load_state_dict(estimator, strict=False)
    with pytest.raises(InvalidValueError, match="another width than the shared network"):
        join_tree(tree, "noise", saved(mine, tmp_path / "m.safetensors", "test_compact"), tmp_path / "new.safetensors")


@pytest.mark.parametrize(
    ("group", "arguments", "error", "message"),
    [
        ("all", {}, InvalidValueError, "expert 0 .* shared network"),
        ("clean", {}, InvalidValueError, "clean pictures, which are left as they are"),
        ("noise", {"types": ["noise"]}, InvalidValueError, "keeps its types"),
        ("noize", {}, UnknownNameError, "did you mean 'noise'.*--types unknown"),
        ("stain", {"types": ["rian"]}, UnknownNameError, "rain"),
        ("stain", {"types": ["unknown", "rain"]}, UnknownNameError, "unknown"),
        ("stain", {"types": ["rain"], "degree": "strong"}, UnknownNameError, "degree"),
    ],
)
def test_wrong_places_are_refused(
    tree: Path,
    adapter: tuple[Path, Compact],
    tmp_path: Path,
    group: str,
    arguments: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        join_tree(tree, group, adapter[0], tmp_path / "new.safetensors", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "new.safetensors").exists()


def test_nothing_is_overwritten_by_chance(tree: Path, adapter: tuple[Path, Compact], tmp_path: Path) -> None:
    done = join_tree(tree, "noise", adapter[0], tmp_path / "new.safetensors")
    with pytest.raises(OutputExistsError):
        join_tree(tree, "noise", adapter[0], done.path)
    with pytest.raises(InvalidValueError, match="give another name"):
        join_tree(tree, "noise", adapter[0], tree, overwrite=True)
    with pytest.raises(InvalidValueError, match="share one network"):
        join(tree, "noise", adapter[0], tmp_path / "pool.safetensors")
    with pytest.raises(InvalidValueError, match=r"NAME\.safetensors"):
        join_tree(tree, "noise", adapter[0], tmp_path / "new.pth")
    join_tree(tree, "noise", adapter[0], done.path, overwrite=True)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"adapter": {"options": {}}}, "method"),
        ({"adapter": {"method": "lara"}}, "lora"),
        ({"adapter": {"method": "lora"}, "model": "restormer"}, "adapter is needed"),
        ({"model": "restromer"}, "restormer"),
        ({"model": "test_nafnet"}, "decides on the whole picture"),
        ({"model": "spandrel", "options": {}}, "tensors"),
        ({"model": "spandrel", "tensors": {"head": ["float3", 2]}}, "'float3'"),
        ({"width": 4}, "'width'"),
        ("conv", "mapping"),
    ],
)
def test_forms_that_are_none_are_refused(form: object, message: str) -> None:
    with pytest.raises(moir.MoirError, match=message):
        kind = kind_of(form, {}, ())  # type: ignore[arg-type]
        kind.own(create_model("test_compact"))  # type: ignore[arg-type]


def test_a_form_for_an_expert_that_is_not_trained_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="expert 5 has a form, but is not trained"):
        create_model("test_unirestorer_compact", trained=[2], forms={"5": {}})
    with pytest.raises(InvalidValueError, match="waiting"):
        create_model("test_unirestorer_compact", waiting=[4])


# -- command line -----------------------------------------------------------------------------------------------------


def test_command_line(
    tree: Path,
    adapter: tuple[Path, Compact],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def moir_expert(*arguments: object, code: int = 0) -> str:
        monkeypatch.setattr("sys.argv", ["moir", "expert", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == code
        said = capsys.readouterr()
        return said.err if code or not said.out else said.out

    new = tmp_path / "new.safetensors"
    arguments = ["add", tree, "--group", "stain", "--types", "unknown", "--network", adapter[0], "--output", new]
    assert json.loads(moir_expert(*arguments, "--json")) == {
        "output": str(new), "expert": 8, "group": "stain", "model": "adapter conv", "new_group": True,
    }  # fmt: skip
    records = [json.loads(line) for line in moir_expert("list", new, "--json").splitlines()]
    assert [record["expert"] for record in records] == list(range(10))
    assert records[8] == {
        "expert": 8, "group": "stain", "granularity": "type", "model": "adapter conv", "file": str(new), "waits": True,
    }  # fmt: skip
    assert [record["waits"] for record in records[:8]] == [False] * 8
    listed = moir_expert("list", new)
    assert "type: stain" in listed
    assert listed.count("not chosen yet") == 2
    assert "exists" in moir_expert(*arguments, code=1)
    assert "--whole is for pools" in moir_expert(*arguments, "--overwrite", "--whole", code=1)
    assert "recipes/tree/join.yaml" in moir_expert(*arguments, "--overwrite")
