"""CLIP's tokens, the texts of degradations, and CLIP's weights."""

import gzip
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from moir.base.errors import CheckpointError, InvalidValueError, UnknownNameError
from moir.base.names import DEGREES, TYPES
from moir.checkpoints import write_tensors
from moir.models import create_model
from moir.universal.clustering import Label
from moir.universal.daclip import DaClip
from moir.universal.daclip_input import preprocess_training, random_square
from moir.universal.daclip_text import degradation_text, title
from moir.universal.daclip_tokens import Tokenizer, read_tokenizer
from moir.universal.daclip_weights import read_clip, read_controller, write_controller
from moir.universal.losses import contrastive_loss

TINY = {"features": 16, "side": 64, "width": 16, "layers": 2, "text_width": 16, "text_layers": 1, "vocabulary": 600}


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer([("a", "a"), ("l", "o"), ("lo", "w</w>"), ("'", "s</w>"), ("a", "a</w>")])


def test_pairs_are_merged_in_their_order(tokenizer: Tokenizer) -> None:
    assert tokenizer.words("low") == ["low</w>"]
    assert tokenizer.words("lo") == ["l", "o</w>"]
    assert tokenizer.words("aaaaa") == ["aa", "aa", "a</w>"]  # once merged, a symbol is no longer half of a pair
    assert tokenizer.words("aaaa") == ["aa", "aa</w>"]
    assert tokenizer.words("aaa") == ["aa", "a</w>"]


def test_words_are_cut_as_clip_cuts_them(tokenizer: Tokenizer) -> None:
    assert tokenizer.words("LOW\n  low's &amp;amp; 12!!") == [
        "low</w>", "low</w>", "'s</w>", "&</w>", "1</w>", "2</w>", "!", "!</w>",
    ]  # fmt: skip
    assert tokenizer.words("") == []
    assert tokenizer.words("é") == ["Ã", "©</w>"]  # two bytes, as characters that stand for them


def test_texts_start_end_and_are_filled_up_or_cut(tokenizer: Tokenizer) -> None:
    tokens = tokenizer(["low", "low " * 50, ""], context=6)
    assert tokens.shape == (3, 6)
    assert tokens.dtype == torch.int64
    start, end = tokenizer.start, tokenizer.end
    assert (start, end, tokenizer.vocabulary) == (517, 518, 519)
    low = tokenizer.numbers["low</w>"]
    assert tokens.tolist() == [[start, low, end, 0, 0, 0], [start, low, low, low, low, end], [start, end, 0, 0, 0, 0]]
    with pytest.raises(InvalidValueError, match="context=1"):
        tokenizer(["low"], context=1)


def test_vocabulary_files(tmp_path: Path) -> None:
    text = "#version\nl o\nlo w</w>\nx y\n"
    (tmp_path / "plain.txt").write_text(text)
    (tmp_path / "packed.txt.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("plain.txt", "packed.txt.gz"):
        assert read_tokenizer(tmp_path / name, merges=2).vocabulary == 512 + 2 + 2
    with pytest.raises(CheckpointError, match="bpe_simple_vocab_16e6"):
        read_tokenizer(tmp_path / "none.txt")
    for name, content in (("empty", b""), ("one", b"#v\nword\n"), ("cut.gz", gzip.compress(b"x" * 99)[:20])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match="no vocabulary of byte pairs"):
            read_tokenizer(tmp_path / name)


def test_every_type_and_degree_has_a_text_of_its_own_type() -> None:
    texts = {type_: {degradation_text(Label((type_,), degree)) for degree in DEGREES} for type_ in TYPES}
    assert [len(texts[type_]) for type_ in TYPES] == [3, 3, 2, 3, 2, 2, 3]  # the paper's 18
    assert len(set.union(*texts.values())) == 18
    assert title("A dog.", degradation_text(Label(("rain", "haze")))) == "A dog, with rain and haze"
    with pytest.raises(UnknownNameError, match="did you mean 'rain'"):
        degradation_text(Label(("rian",)))


def test_the_controller_starts_as_clips_tower(tmp_path: Path) -> None:
    torch.manual_seed(1)
    clip = DaClip(**TINY).clip
    state = {**clip.state_dict(), "attn_mask": torch.zeros(77, 77)}  # some programs save the causal mask, too
    write_tensors(tmp_path / "clip.safetensors", state)
    network = read_clip(tmp_path / "clip.safetensors").eval()
    x = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        found = network.encode_image(x)
        torch.testing.assert_close(found.degradation, found.content)  # nothing is steered yet
        hidden = clip.visual.embed(x)
        for block in clip.visual.transformer.resblocks:
            hidden = block(hidden)
        torch.testing.assert_close(found.content, clip.visual.pool(hidden))


def test_a_controller_is_read_from_whatever_holds_it(tmp_path: Path) -> None:
    whole = DaClip(**TINY).eval()
    write_tensors(tmp_path / "daclip.safetensors", whole.state_dict())
    write_controller(tmp_path / "controller.safetensors", whole, {"steps": 3})
    extractor = {k: v for k, v in TINY.items() if k in ("features", "side", "width", "layers")}
    restorer = create_model("test_unirestorer", extractor=extractor)
    restorer.daclip_model.visual_control.load_state_dict(whole.visual_control.state_dict())
    torch.save(restorer.state_dict(), tmp_path / "unirestorer.pth")
    x = torch.rand(1, 3, 64, 64)
    for name in ("daclip.safetensors", "controller.safetensors", "unirestorer.pth"):
        network = read_controller(tmp_path / name)
        assert not hasattr(network, "clip")
        assert not any(p.requires_grad for p in network.parameters())
        with torch.inference_mode():
            assert torch.equal(network(x), whole(x))
    again = read_clip(tmp_path / "daclip.safetensors")
    assert torch.equal(again.visual_control.proj, whole.visual_control.proj)


def test_other_files_are_refused(tmp_path: Path) -> None:
    write_tensors(tmp_path / "other.safetensors", {"weight": torch.ones(2)})
    with pytest.raises(CheckpointError, match="no image controller"):
        read_controller(tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="neither CLIP"):
        read_clip(tmp_path / "other.safetensors")
    state = DaClip(**TINY).clip.state_dict()
    state.pop("ln_final.bias")
    write_tensors(tmp_path / "part.safetensors", state)
    with pytest.raises(CheckpointError, match=r"missing: ln_final.bias"):
        read_clip(tmp_path / "part.safetensors")


def test_the_contrastive_loss_is_the_mean_of_both_directions() -> None:
    features, texts = torch.randn(5, 8), torch.randn(5, 8)
    scale = torch.tensor(math.log(10))
    cosines = torch.tensor(
        [[float(torch.cosine_similarity(f, t, dim=0)) for t in texts] for f in features], dtype=torch.float64
    )
    rows, columns = (10 * cosines).log_softmax(1).diagonal(), (10 * cosines).log_softmax(0).diagonal()
    wanted = -(rows.mean() + columns.mean()) / 2
    assert float(contrastive_loss(features, texts, scale)) == pytest.approx(float(wanted), abs=1e-5)
    assert float(contrastive_loss(3 * texts, texts, scale)) < float(contrastive_loss(features, texts, scale))
    assert float(contrastive_loss(F.normalize(torch.eye(4)), torch.eye(4), torch.tensor(4.6))) < 1e-6


def test_training_squares_are_as_published() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [random_square(400, 300, generator) for _ in range(300)]
    lengths = [length for _, _, length in drawn]
    assert min(lengths) >= 224
    assert max(lengths) <= 300
    assert max(lengths) - min(lengths) > 60
    assert all(0 <= left <= 400 - side and 0 <= top <= 300 - side for left, top, side in drawn)
    assert random_square(90, 60, generator)[2] == 60  # smaller than the extractor's side: all there is
    shown = preprocess_training(Image.new("RGB", (300, 300), (255, 0, 0)), generator, side=32)
    assert shown.shape == (3, 32, 32)
    assert shown.flatten(1).std(dim=1).max() < 1e-6
    assert float(shown[0, 0, 0]) == pytest.approx((1 - 0.48145466) / 0.26862954, abs=1e-5)
