"""The pictures of docs/adaptation-report.md: what is left of damage, PSNR against size, spectra of the branches."""

from pathlib import Path

import matplotlib
import torch
from damages import DAMAGES
from damages import damage as spoil
from skimage import data
from study import Pictures

from moir.adapted import load_adapter
from moir.adapters import attached, set_active
from moir.adapters.adaptir import AdaptIR
from moir.metrics import psnr
from moir.models import load_model

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SIDE = 144
"""Side of the crops of a sheet, pixels."""

GAP, TITLE, DPI = 4, 18, 100
"""Of a sheet: pixels between crops and above them, and per inch."""

SEED = 7
"""Of the damage on a sheet."""

RINGS = 24


def size_curve(
    points: dict[str, list[tuple[int, float]]], level: dict[str, tuple[int, float]], base: float | None, file: Path
) -> None:
    """Draw PSNR against parameters.

    Args:
        points: Of each method: parameters and PSNR, dB.
        level: Single points to compare with, by name.
        base: PSNR of the network alone.
        file: To write.
    """
    figure, axes = plt.subplots(figsize=(7, 4.2))
    for method, own in points.items():
        axes.plot(*zip(*sorted(own), strict=True), marker="o", label=method)
    for marker, (name, (count, value)) in zip("s^", level.items(), strict=False):
        axes.plot(count, value, marker=marker, linestyle="none", color="black", label=f"{name} ({count:,})")
    if base is not None:
        axes.axhline(base, color="grey", linestyle="--", label="compact alone")
    axes.set(xscale="log", xlabel="trained parameters", ylabel="PSNR on unseen pictures, dB")
    axes.set_xticks([10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000])
    axes.xaxis.set_major_formatter(lambda count, _: f"{count / 1e3:g}k" if count < 1e6 else f"{count / 1e6:g}M")
    axes.xaxis.set_minor_formatter(lambda *_: "")
    axes.grid(alpha=0.3)
    axes.set_title("salt-and-pepper, 100 pairs")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    figure.savefig(file, dpi=100)
    plt.close(figure)


@torch.no_grad()
def sheet(adapters: Path, gallery: Path) -> str:
    """Input, network alone, AdaptIR, the convolutional adapter, original; one row for each damage.

    On a photograph of scikit-image (CC0), so that the sheet may be passed on.
    """
    clean = torch.from_numpy(data.coffee()[100:292, 150:342].copy()).permute(2, 0, 1)
    methods = {"adaptir": "AdaptIR", "conv": "conv"}
    rows: dict[str, list[torch.Tensor]] = {}
    for damage in DAMAGES:
        files = [adapters / f"{damage}_100_{method}.safetensors" for method in methods]
        if not all(file.exists() for file in files):
            continue
        x, network = spoil(clean, damage, SEED)[None].float() / 255, load_model("compact")[0]
        row = [x, network(x)]
        for number, file in enumerate(files):
            load_adapter(network, file, f"n{number}")
            set_active(network, f"n{number}")
            row.append(network(x))
        rows[damage] = [picture.clamp(0, 1) for picture in (*row, clean[None].float() / 255)]
    if not rows:
        return "Pictures: no run from 100 pairs has kept its adapters yet."
    columns = ("input", "compact alone", *methods.values(), "original")
    across, down, margin = SIDE + GAP, SIDE + TITLE, TITLE
    width, height = margin + across * len(columns), down * len(rows)
    figure = plt.figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    for line, (damage, row) in enumerate(rows.items()):
        for place, (picture, column) in enumerate(zip(row, columns, strict=True)):
            left, bottom = margin + place * across, height - (line + 1) * down + GAP  # every pixel on a pixel
            panel = figure.add_axes((left / width, bottom / height, SIDE / width, SIDE / height))
            panel.imshow(picture[0, :, :SIDE, :SIDE].permute(1, 2, 0), interpolation="nearest")
            panel.set_axis_off()
            value = "" if column == "original" else f", {float(psnr(picture, row[-1])):.1f} dB"
            panel.set_title(column + value, fontsize=7, pad=2)
        centre = (height - line * down - TITLE - SIDE / 2) / height
        figure.text(0.5 * margin / width, centre, damage, rotation=90, ha="center", va="center", fontsize=8)
    figure.savefig(gallery / "sheet.jpg", dpi=DPI, pil_kwargs={"quality": 92, "subsampling": 0})
    plt.close(figure)
    missing = [damage for damage in DAMAGES if damage not in rows]
    note = f" Not shown, because no adapters were kept: {', '.join(missing)}." if missing else ""
    return (
        "![damage and what is left of it](gallery/adaptation/sheet.jpg)\n\nA part of a photograph of "
        f"scikit-image (CC0), adapters from 100 pairs; PSNR of 192x192 px.{note}"
    )


@torch.no_grad()
def branches(adapters: Path, pictures: Pictures, gallery: Path) -> str:
    """Amplitude over frequency of what AdaptIR's branches give, per damage (the paper's figure of how it works)."""
    found = {}
    for damage in DAMAGES:
        file = adapters / f"{damage}_100_adaptir.safetensors"
        if file.exists():
            found[damage] = _branches(file, pictures.test_pairs(damage)[0])
    if not found:
        return "Not measured: no run of AdaptIR from 100 pairs has kept its adapter yet."
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.6))
    for damage, (local, frequency, channels) in found.items():
        for panel, values in zip(panels[:2], (local, frequency), strict=True):
            panel.plot((torch.arange(RINGS) + 0.5) / RINGS, values.log10() - values[0].log10(), label=damage)
        panels[2].plot(range(1, len(channels) + 1), channels, marker=".", label=damage)
    panels[0].set(title="local interaction", ylabel="relative log10 amplitude")
    panels[1].set(title="frequency affine (global)")
    bottom = min(panel.get_ylim()[0] for panel in panels[:2])
    for panel in panels[:2]:
        panel.set(xlabel="frequency / Nyquist", xlim=(0, 1), ylim=(bottom, 0.05))
    panels[2].set(title="channel gating", xlabel="channel, the largest first", ylabel="mean |gate|", ylim=(0, None))
    panels[2].legend(fontsize=8)
    for panel in panels:
        panel.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(gallery / "branches.png", dpi=90)
    plt.close(figure)
    left = [damage for damage in DAMAGES if damage not in found]
    note = f" Not measured, because no adapter was kept: {', '.join(left)}." if left else ""
    return (
        "![Fourier amplitude of the branches](gallery/adaptation/branches.png)\n\nWhat the branches give at half "
        "resolution, on the 8 unseen pictures. Left and middle: log-amplitude\nover rings of equal frequency, the mean "
        "over channels, modules and pictures, relative to the lowest ring; a flatter line\nhas more of the high "
        "frequencies. Right: the gate of a channel is one number for the whole map, so its spectrum is a\nsingle point "
        f"at frequency 0; shown are the sizes of the gates, sorted, the mean over modules and pictures.{note}"
    )


def _branches(file: Path, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Amplitudes of the local and the frequency branch over rings, and the gates of channels, the largest first."""
    network = load_model("compact")[0]
    load_adapter(network, file, "new")
    local, frequency, gates = [], [], []

    def look(module: AdaptIR, features: torch.Tensor) -> None:
        z = module.BN(module.head(features))
        local.append(_over_rings(module.local(z)))
        frequency.append(_over_rings(module.frequency(z)))
        gates.append(module.channels(z).abs().flatten(1).mean(0).sort(descending=True).values)

    for placement in attached(network)["new"].placements:
        module, entry = placement.adapter, placement.entry
        if isinstance(module, AdaptIR) and entry is not None and placement.path.startswith(("encoder1", "decoder1")):
            entry.register_forward_pre_hook(lambda _, args, module=module: look(module, args[0]))
    network(inputs)
    assert local, "compact has no adapters at half resolution"
    means = [torch.stack(values).mean(0) for values in (local, frequency, gates)]
    return means[0], means[1], means[2]


def _over_rings(features: torch.Tensor) -> torch.Tensor:
    """Mean amplitude over rings of equal frequency, from 0 to Nyquist's; (N, C, H, W) to (RINGS,)."""
    amplitude = torch.fft.fftshift(torch.fft.fft2(features, norm="ortho").abs(), dim=(-2, -1)).mean((0, 1))
    height, width = amplitude.shape
    rows, columns = torch.meshgrid(torch.arange(height) - height // 2, torch.arange(width) - width // 2, indexing="ij")
    radius = torch.hypot(rows / (height / 2), columns / (width / 2))
    ring = (radius * RINGS).long().clamp(max=RINGS)  # corners beyond Nyquist's frequency go to a ring that is left out
    total = torch.zeros(RINGS + 1).index_add_(0, ring.flatten(), amplitude.flatten())
    return (total / torch.bincount(ring.flatten(), minlength=RINGS + 1))[:RINGS]
