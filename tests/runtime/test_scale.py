"""Networks that make pictures larger, from tiles to files and benchmarks."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import moir
from moir.base.errors import InvalidValueError, TensorShapeError
from moir.batch.compare import write_comparison
from moir.batch.inputs import Job
from moir.batch.restoring import restore_many
from moir.batch.settings import Settings
from moir.checkpoints import Card, read_tensors, write_tensors
from moir.checkpoints.card import sha256_of
from moir.evaluation.methods import TOLD, ModelMethod
from moir.evaluation.protocols import protocol
from moir.evaluation.run import Options, evaluate
from moir.evaluation.settings import Sources, settings
from moir.models import create_model
from moir.networks.base import RestorationNetwork
from moir.picture import from_array, from_tensor, read, write
from moir.restore import Restorer
from moir.runtime import Engine
from moir.runtime.scaling import enlarged, scaled
from moir.runtime.tiling import add_tile, plan


class Enlarging(RestorationNetwork):
    """Enlarges bilinearly; every pixel sees its neighbours only, so that tiles can be exact."""

    size_multiple = 8
    overlap = 16

    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.seen = []

    def forward(self, x, context=None):
        self.seen.append(tuple(x.shape[-2:]))
        return self.weight * F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_larger_tiles_fit_together(scale):
    x = torch.rand(2, 3, 70, 101)
    canvas = torch.zeros(2, 3, 70 * scale, 101 * scale)
    for row, column in plan(70, 101, 40, 16, 8).tiles():
        part = x[..., row.start : row.stop, column.start : column.stop]
        result = F.interpolate(part, scale_factor=scale, mode="nearest")
        add_tile(canvas, result, scaled(row, scale), scaled(column, scale))
    torch.testing.assert_close(canvas, F.interpolate(x, scale_factor=scale, mode="nearest"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [2, 3])
def test_tiles_give_the_whole_larger_picture(scale, photograph):
    x = photograph[None, :, :90, :77]
    whole = Engine(Enlarging(scale), "cpu", "float32", tile=None).restore(x, {})
    assert (whole.pictures.shape, whole.tiles) == ((1, 3, 90 * scale, 77 * scale), 1)
    calls = []
    tiled = Engine(Enlarging(scale), "cpu", "float32", tile=48).restore(x, {}, lambda *done: calls.append(done))
    assert tiled.tiles == len(calls) > 4
    torch.testing.assert_close(tiled.pictures, whole.pictures, rtol=0, atol=1e-5)


def test_the_result_is_a_larger_picture_with_everything_the_file_held(tmp_path, photograph):
    file = tmp_path / "small.png"
    with Image.new("RGBA", (1, 1)) as image:
        exif = image.getexif()
        exif[282] = exif[283] = 100.0
        exif.get_ifd(34665).update({40962: 24, 40963: 20})
        exif[271] = "maker"
        pixels = (photograph[:, :20, :24].permute(1, 2, 0) * 255).byte().numpy()
        image = Image.fromarray(pixels)
        image.putalpha(Image.linear_gradient("L").resize((24, 20)))
        image.save(file, exif=exif.tobytes(), dpi=(100, 50))
    result = Restorer(Enlarging(3), "x3", device="cpu", precision="float32")(file)
    assert (result.report()["width"], result.report()["height"]) == (72, 60)
    assert result.image.size == (72, 60)
    result.save(tmp_path / "large.jpg")
    result.save(tmp_path / "large.png")
    written = read(tmp_path / "large.png")
    assert written.dpi == pytest.approx((300, 150), abs=0.1)
    assert written.alpha.shape == (60, 72)
    with Image.open(tmp_path / "large.jpg") as image:
        tags = image.getexif()
        inner = tags.get_ifd(34665)
        assert (image.size, tags[271], tags[282], inner[40962], inner[40963]) == ((72, 60), "maker", 300, 72, 60)
    write_comparison(read(file), result.picture, tmp_path / "both.png")
    with Image.open(tmp_path / "both.png") as image:
        assert image.size == (2 * 72 + 8, 60)


def test_strength_blends_with_the_enlarged_input(photograph):
    restorer = Restorer(Enlarging(2), "x2", device="cpu", precision="float32")
    x = photograph[:, :20, :24]
    none, half, all_ = (restorer(x, strength=strength).tensor for strength in (0, 0.5, 1))
    torch.testing.assert_close(none, enlarged(x[None], 2)[0])
    torch.testing.assert_close(half, (none + all_) / 2)
    assert none.shape == (3, 40, 48)
    assert not torch.equal(none, all_)


def test_pictures_grow_only_by_whole_numbers(photograph):
    picture = from_tensor(photograph[:, :20, :24])
    for shape in [(3, 40, 72), (3, 30, 36), (3, 10, 12), (3, 20, 25), (1, 40, 48), (40, 48)]:
        with pytest.raises(TensorShapeError, match="whole number of times larger"):
            picture.with_rgb(torch.zeros(shape))
    assert from_array(picture.to_numpy()[..., 0]).with_rgb(torch.zeros(3, 40, 48)).to_numpy().shape == (40, 48)


@pytest.fixture
def weights(tmp_path):
    """A file of weights of a tiny IPT for x2, with its card."""
    torch.manual_seed(0)
    network = create_model("test_ipt", task="sr_2", tiling="blended")
    path = tmp_path / "sr.safetensors"
    write_tensors(path, network.state_dict())
    card = Card(name="sr", model="test_ipt", options=network.options, sha256=sha256_of(path))
    card.write(path.with_suffix(".json"))
    return path


@pytest.fixture
def set5(tmp_path, photograph):
    """Two pictures in the layout of Set5 x2; the larger ones do not divide by 2."""
    for number, name in enumerate(("baby", "bird")):
        large = photograph[:, 60 * number : 60 * number + 57, :61]
        small = F.interpolate(large[None, :, :56, :60], scale_factor=0.5, mode="bicubic", antialias=True).clamp(0, 1)[0]
        write(from_tensor(large), tmp_path / "data" / "Set5" / "HR" / f"{name}.png")
        write(from_tensor(small), tmp_path / "data" / "Set5" / "LR_bicubic" / "X2" / f"{name}x2.png")
    return tmp_path / "data"


@pytest.mark.filterwarnings("ignore::moir.datasets.WrongCountWarning")
@pytest.mark.parametrize("task", [None, TOLD])
def test_benchmarks_of_super_resolution_are_scored_as_published(weights, set5, task):
    (setting,) = settings("set5_sr_2", Sources(root=set5))
    method = ModelMethod(weights, task=task, device="cpu", precision="float32")
    (evaluation,) = evaluate([method], [setting], Options(protocol=protocol("adaptir")))
    (summary,) = evaluation.summaries
    assert (summary.n, summary.failed, "input_psnr" in summary.means) == (2, 0, False)
    network = create_model("test_ipt", task="sr_2", tiling="blended").eval()
    network.load_state_dict(read_tensors(weights)[0])
    expected = []
    for name in ("baby", "bird"):
        low, high = read(set5 / f"Set5/LR_bicubic/X2/{name}x2.png").rgb, read(set5 / f"Set5/HR/{name}.png").rgb
        with torch.no_grad():
            pair = [network(low[None])[0].clamp(0, 1), high[:, :56, :60]]  # the target's top left part
        luma = []
        for picture in pair:  # whole levels, BT.601 luminance, a border of as many pixels as the scale
            red, green, blue = (picture.double() * 255).round()[:, 2:-2, 2:-2]
            luma.append((65.481 * red + 128.553 * green + 24.966 * blue) / 255 + 16)
        expected.append(20 * torch.log10(255 / (luma[0] - luma[1]).square().mean().sqrt()).item())
    assert summary.means["psnr"] == pytest.approx(sum(expected) / 2, abs=1e-4)


def test_a_file_is_loaded_and_restores(weights, photograph):
    result = moir.load(weights, device="cpu", precision="float32")(photograph[:, :25, :31])
    assert result.tensor.shape == (3, 50, 62)
    assert (result.model, result.tiles) == ("sr", 1)
    with pytest.raises(InvalidValueError, match="cannot be told"):
        moir.load(weights, device="cpu")(photograph[:, :25, :31], task="denoise")


def test_pictures_of_a_folder_are_made_larger_but_clips_are_refused(weights, photograph, tmp_path):
    write(from_tensor(photograph[:, :25, :31]), tmp_path / "a.png")
    wanted = Settings(str(weights), device="cpu", precision="float32")
    records = []
    restore_many([Job(tmp_path / "a.png", tmp_path / "out" / "a.png")], wanted, records.append)
    assert (records[0]["width"], records[0]["height"]) == (62, 50)
    assert read(tmp_path / "out" / "a.png").rgb.shape == (3, 50, 62)
    with pytest.raises(InvalidValueError, match="sr makes pictures 2 times larger, and videos keep their size"):
        restore_many([Job(tmp_path / "a.mp4", tmp_path / "b.mp4")], wanted, records.append)
