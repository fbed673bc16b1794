import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from moir.base.errors import InvalidValueError, TensorShapeError, UnknownNameError
from moir.base.names import TYPES
from moir.universal.daclip import DaClip
from moir.universal.daclip_input import MEAN, STD, preprocess, preprocess_batch
from moir.universal.losses import router_loss, scaled_log_variance, through_gate, uncertainty_loss
from moir.universal.router import Router, level_balance, prune
from moir.universal.tree import Leaf, Tree, grouped, official_tree

PUBLISHED_ROWS = [
    *((0, 1, e) for e in (8, 9, 10)),
    *((0, 2, e) for e in (11, 12, 13)),
    *((0, 3, e) for e in (14, 15, 16)),
    *((0, 4, e) for e in range(17, 24)),
    *((0, 5, e) for e in (24, 25)),
    *((0, 6, e) for e in (26, 27)),
    *((0, 7, e) for e in (28, 29)),
]


def test_the_published_table() -> None:
    tree = official_tree()
    assert list(tree.rows) == PUBLISHED_ROWS
    assert tree.experts == 30
    assert (tree.level_of(0), tree.level_of(7), tree.level_of(8)) == ("all", "type", "degree")
    assert (tree.name_of(0), tree.name_of(7), tree.name_of(29)) == ("all", "blur", "blur-2")
    assert official_tree(23).experts == 31
    with pytest.raises(InvalidValueError, match="22 or 23 leaves, not 19"):
        official_tree(19)


def test_published_instructions() -> None:
    tree = official_tree()
    mask = tree.leaf_mask(["rain"])
    assert [i for i, pruned in enumerate(mask.tolist()) if not pruned] == list(range(9, 16))
    assert tree.level_mask(mask).tolist() == [True, False, False]
    everything = tree.leaf_mask(TYPES)
    assert not everything.any()
    assert not tree.level_mask(everything).any()


@given(st.lists(st.tuples(st.integers(1, 5), st.sets(st.sampled_from(TYPES), min_size=1)), min_size=1, max_size=8))
def test_trees_survive_json_and_instructions_leave_something(groups: list[tuple[int, set[str]]]) -> None:
    tree = grouped([(count, tuple(sorted(types))) for count, types in groups])
    assert Tree.from_options(json.loads(json.dumps(tree.to_options()))) == tree
    assert tree.experts == 1 + len(groups) + sum(count for count, _ in groups)
    for type_ in {t for _, types in groups for t in types}:
        mask = tree.leaf_mask([type_])
        assert not mask.all()
        assert all(type_ in leaf.types for leaf, pruned in zip(tree.leaves, mask.tolist(), strict=True) if not pruned)
        levels = tree.level_mask(mask)
        assert not levels[-1]
        # What stays serves nothing that was pruned.
        table = tree.table()[~mask][:, ~levels]
        assert not torch.isin(table, tree.table()[mask]).any()


def test_wrong_trees_are_named() -> None:
    with pytest.raises(InvalidValueError, match="one per level"):
        Tree((Leaf("a", (), (0, 1)),))
    with pytest.raises(InvalidValueError, match="one level and one parent"):
        Tree((Leaf("a", (), (0, 1, 3)), Leaf("b", (), (0, 2, 3))))
    with pytest.raises(InvalidValueError, match="no experts"):
        Tree(())
    with pytest.raises(InvalidValueError, match="not a tree"):
        Tree.from_options({"leaves": [{"name": "a"}]})
    with pytest.raises(UnknownNameError, match="did you mean 'rain'"):
        Tree((Leaf("a", ("rian",), (0, 1, 2)),))


@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 10**6))
def test_pruned_choices_are_never_taken(batch: int, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, count, generator=generator)
    mask = torch.rand(batch, count, generator=generator) < 0.6
    pruned = prune(logits, mask)
    chosen = pruned.argmax(1)
    assert torch.isfinite(pruned.gather(1, chosen[:, None])).all()
    for row in range(batch):
        assert mask[row].all() or not mask[row, chosen[row]]
        assert not mask[row].all() or chosen[row] == logits[row].argmax()


def test_a_new_router_wants_everything_equally_and_noise_decides() -> None:
    router = Router(features=8, leaves=4)
    route = router.eval()(torch.randn(6, 8))
    torch.testing.assert_close(route.leaf_probability, torch.full((6, 4), 0.25))
    assert level_balance(route.level_probability).item() == pytest.approx(0, abs=1e-6)
    noisy = router.train()(torch.randn(2000, 8))
    # softplus(0) + 0.01, as the second half of the gate is zero too
    assert noisy.leaf_logits.std().item() == pytest.approx(math.log(2) + 0.01, rel=0.03)
    with pytest.raises(TensorShapeError, match=r"\(B, 8\)"):
        router(torch.randn(2, 9))


def test_uncertainty_loss_is_the_gaussian_likelihood() -> None:
    mu, s, c = torch.randn(3, 5), torch.randn(3, 5), torch.randn(3, 5)
    wanted = -torch.distributions.Normal(mu, (0.5 * s).exp()).log_prob(c).mean() - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(uncertainty_loss(mu, s, c), wanted)
    # The best log-variance for a miss d is ln d^2: a large miss is best answered by a large variance.
    s = torch.full((1, 1), math.log(4.0), requires_grad=True)
    uncertainty_loss(torch.zeros(1, 1), s, torch.full((1, 1), 2.0)).backward()
    assert s.grad is not None
    assert abs(s.grad.item()) < 1e-6


def test_scaled_log_variance() -> None:
    raw, gamma, beta = torch.tensor([0.0, 1e4]), torch.tensor([1e-4]), torch.tensor([-7.0])
    wanted = [math.log(1e-6 + math.exp(-7)), math.log(1e-6 + math.exp(-6))]
    torch.testing.assert_close(scaled_log_variance(raw, gamma, beta), torch.tensor(wanted))


def test_the_gate_changes_nothing_and_gets_the_published_gradient() -> None:
    y, gate = torch.rand(2, 3, 4, 4), torch.tensor([0.5, 1.5], requires_grad=True)
    out = through_gate(y, gate)
    assert torch.equal(out, y)
    weight = torch.rand(2, 3, 4, 4)
    (out * weight).sum().backward()
    assert gate.grad is not None
    torch.testing.assert_close(gate.grad, (y * weight).sum(dim=(1, 2, 3)) / gate.detach())  # dy/dg = y/g


def test_router_loss_has_three_terms() -> None:
    route = Router(features=8, leaves=4).eval()(torch.randn(3, 8))
    y, centres = torch.rand(3, 3, 4, 4), torch.randn(3, 8)
    found = router_loss(y, y + 0.25, route, centres, uncertainty=0.5)
    assert found["l1"].item() == pytest.approx(0.25, rel=1e-5)
    assert found["uncertainty"] == 0.5 * uncertainty_loss(route.mu, route.log_variance, centres)
    assert found["balance"].item() == pytest.approx(0, abs=1e-6)


def _unnormalised(shown: torch.Tensor) -> torch.Tensor:
    return shown * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)


@pytest.mark.parametrize(
    ("size", "resized", "at"), [((300, 200), (336, 224), (56, 0)), ((101, 333), (224, 738), (0, 257))]
)
def test_the_middle_square_of_the_resized_picture(
    size: tuple[int, int], resized: tuple[int, int], at: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    wanted = np.asarray(picture.resize(resized, Image.Resampling.BICUBIC))[at[1] :, at[0] :][:224, :224]
    shown = _unnormalised(preprocess(picture))
    assert torch.equal((shown * 255).round().to(torch.uint8), torch.from_numpy(wanted.copy()).permute(2, 0, 1))
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    assert torch.equal(preprocess_batch(tensor)[0], preprocess(picture))


def test_colours_are_converted_after_resizing() -> None:
    # Index 1 between 0 and 2 in the palette would appear if indices became colours first and were then averaged.
    indices = np.zeros((10, 10), np.uint8)
    indices[:, 5:] = 2
    picture = Image.fromarray(indices, mode=None).convert("P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    shown = (_unnormalised(preprocess(picture)) * 255).round()
    assert {tuple(c.tolist()) for c in shown.flatten(1).T} == {(255, 0, 0), (0, 0, 255)}


def test_long_strips_stay_small() -> None:
    strip = torch.rand(1, 3, 1, 50_000)
    assert preprocess_batch(strip).shape == (1, 3, 224, 224)
    assert preprocess_batch(strip.transpose(2, 3)).isfinite().all()
    assert preprocess(Image.new("L", (1, 1), 255)).shape == (3, 224, 224)


def test_text_features_depend_on_nothing_after_the_end() -> None:
    small = {"features": 8, "width": 16, "layers": 1, "text_width": 16, "text_layers": 2, "vocabulary": 20}
    clip = DaClip(**small).eval().clip
    tokens = torch.zeros(2, 77, dtype=torch.int64)
    tokens[:, :4] = torch.tensor([17, 3, 5, 19])
    with torch.inference_mode():
        before = clip.encode_text(tokens)
        tokens[0, 6], tokens[1, 2] = 7, 9
        after = clip.encode_text(tokens)
    assert before.shape == (2, 8)
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1])


def test_a_new_controller_leaves_clip_as_it_is() -> None:
    small = {"features": 8, "width": 16, "layers": 2, "text_width": 16, "text_layers": 1, "vocabulary": 20}
    model = DaClip(**small).eval()
    x = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        content = model.encode_image(x).content
        torch.nn.init.normal_(model.visual_control.conv1.weight)
        assert torch.equal(model.encode_image(x).content, content)
        torch.nn.init.normal_(model.visual_control.transformer.zero_modules[0].weight)
        assert not torch.allclose(model.encode_image(x).content, content)
    with pytest.raises(TensorShapeError, match="224"):
        model(torch.rand(1, 3, 32, 32))
