"""A clip with sound, uneven timestamps, rotation, colour tags and a cut, restored and read back."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from moir.base.errors import PictureFormatError, PictureNotFoundError
from moir.batch import Job, Settings
from moir.batch.manifest import Manifest, read_done
from moir.batch.store import is_recorded
from moir.batch.video import CutDetector, flicker, restore_clip
from moir.batch.video import clip as clip_module
from moir.batch.video.clip import restore_frames, work_folder
from moir.batch.video.colour import to_frame, to_tensor
from moir.batch.video.opening import Facts, facts_of, frames, opened
from moir.batch.video.plan import make_plan
from moir.batch.video.routing import medoid

av = pytest.importorskip("av", reason="needs the extra 'video'")

WIDTH, HEIGHT, FRAMES, CUT = 64, 48, 14, 8
TIMES = [0, 40, 80, 130, 150, 210, 250, 300, 333, 380, 400, 480, 500, 560]
"""Timestamps in ms: no two steps in a row alike."""


def scene(number):
    """Two scenes with a cut between them; a bar moves in both. (H, W, 3) uint8."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[:] = (190, 170, 120) if number < CUT else (20, 40, 60)
    picture[:, 4 * number : 4 * number + 6] = (90, 60, 110) if number < CUT else (80, 110, 70)
    picture[::6] //= 2
    return picture


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    with av.open(str(path), "w", options={"video_track_timescale": "1000"}) as container:
        container.metadata["title"] = "A test"
        video = container.add_stream("libx264", rate=24, options={"crf": "8", "preset": "ultrafast", "bf": "2"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        context = video.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = 9, 14, 9, 1  # BT.2020
        video.set_display_rotation(90)
        audio = container.add_stream("aac", rate=16000, layout="mono")
        facts = Facts("h264", WIDTH, HEIGHT, "yuv420p", Fraction(1, 1000), Fraction(24), None, 9, 14, 9, 1, None)
        for number, time in enumerate(TIMES):
            rgb = torch.from_numpy(scene(number)).permute(2, 0, 1).float() / 255
            frame = to_frame(rgb, facts, "yuv420p")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        tone = (np.sin(np.arange(9600) / 8) * 9000).astype(np.int16)
        sound = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        sound.rate, sound.pts = 16000, 0
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
    return path


def content(path):
    """Everything of a clip that must be kept, and its frames."""
    with opened(path) as container:
        decoded = list(frames(container))
        facts = facts_of(container, decoded[0])
        pictures = torch.stack([to_tensor(frame, facts) for frame in decoded])
        times = [frame.pts * facts.time_base for frame in decoded]
        title = container.metadata.get("title")
    sound = []
    with opened(path) as container:
        for packet in container.demux(container.streams.audio[0]):
            if packet.dts is not None:
                sound.append((packet.pts * packet.time_base, bytes(packet)))
    return facts, times, pictures, sound, title


@pytest.fixture
def restorer(tiny_restorer):
    return tiny_restorer


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_all_but_the_pixels_is_kept(clip, restorer, tmp_path, suffix):
    output = tmp_path / f"out{suffix}"
    # Strength 0 leaves the pixels alone, so that what the way through costs can be measured too.
    record = restore_clip(Job(clip, output), Settings(strength=0.0), restorer)
    before, after = content(clip), content(output)
    assert record["frames"] == FRAMES
    assert [shot["frames"] for shot in record["shots"]] == [CUT, FRAMES - CUT]
    # AAC begins before time 0, which Matroska cannot hold: there the whole clip is moved by those 64 ms.
    shift = Fraction(64, 1000) if suffix == ".mkv" else 0
    assert before[1] == [Fraction(time, 1000) for time in TIMES]
    assert after[1] == [time + shift for time in before[1]]
    for name in ("primaries", "transfer", "matrix", "range", "width", "height", "codec"):
        assert getattr(after[0], name) == getattr(before[0], name), name
    assert (before[0].primaries, before[0].transfer, before[0].matrix, before[0].range) == (9, 14, 9, 1)
    assert before[0].display_matrix is not None
    assert after[0].display_matrix == before[0].display_matrix
    assert [data for _, data in after[3]] == [data for _, data in before[3]]
    assert len(before[3]) > 5
    assert all(abs(a - b - shift) <= Fraction(1, 1000) for (a, _), (b, _) in zip(after[3], before[3], strict=True))
    assert after[4] == "A test"
    assert (after[2] - before[2]).mean((0, 2, 3)).abs().max() < 0.004
    assert -10 * (after[2] - before[2]).square().mean().log10() > 36
    assert not work_folder(output).exists()


def test_a_kill_costs_one_segment_and_the_result_is_the_same(clip, restorer, tmp_path, monkeypatch):
    monkeypatch.setattr("moir.batch.video.plan.LONGEST", 5)
    whole, resumed = tmp_path / "whole.mp4", tmp_path / "resumed.mp4"
    restore_clip(Job(clip, whole), Settings(), restorer)
    written = []
    real = clip_module.write_segment

    def dying(path, *arguments):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        return real(path, *arguments)

    monkeypatch.setattr(clip_module, "write_segment", dying)
    manifest = Manifest(tmp_path / "m.jsonl", "k")
    with pytest.raises(KeyboardInterrupt):
        restore_clip(Job(clip, resumed), Settings(), restorer, manifest=manifest)
    assert not resumed.exists()
    monkeypatch.setattr(
        clip_module, "write_segment", lambda path, *rest: (written.append(path.name), real(path, *rest))[1]
    )
    steps = []
    restore_clip(Job(clip, resumed), Settings(), restorer, manifest=manifest, resume=True,
                 on_step=lambda done, total: steps.append((done, total)))  # fmt: skip
    assert written == ["000000.nut", "000001.nut", "000002.nut", "000003.nut"]
    assert steps[0] == (5, FRAMES)
    assert steps[-1] == (FRAMES, FRAMES)
    assert steps == sorted(steps)
    one, other = content(whole), content(resumed)
    assert torch.equal(one[2], other[2])
    assert one[1] == other[1]
    (done,) = read_done(manifest.path).values()
    assert is_recorded(resumed, done)


def test_other_settings_do_not_take_old_segments(clip, tiny_model, tmp_path):
    output = tmp_path / "out.mp4"
    settings = Settings(str(tiny_model), device="cpu", precision="float32", strength=0.0)
    work_folder(output).mkdir()
    (work_folder(output) / "000000.nut").write_bytes(b"of another run")
    record = restore_clip(Job(clip, output), settings, settings.load(), resume=True)
    assert record["frames"] == FRAMES
    assert len(content(output)[1]) == FRAMES


def test_every_frame_of_a_shot_has_one_routing(clip, restorer, tmp_path, monkeypatch):
    seen = []
    real = clip_module.restore_frames

    def watched(pictures, restorer, context, strength):
        seen.append(context)
        return real(pictures, restorer, context, strength)

    monkeypatch.setattr(clip_module, "restore_frames", watched)
    restore_clip(Job(clip, tmp_path / "out.mkv"), Settings(tasks=("denoise",)), restorer)
    assert [id(context) for context in seen] == [id(seen[0])] * CUT + [id(seen[-1])] * (FRAMES - CUT)
    assert seen[0] is not seen[-1]
    assert seen[0]["remove"][0].tolist() == [1, 0, 0, 0, 0, 0, 0, 1]  # noise only, as an instruction


def test_cuts_but_no_pans_and_no_flashes():
    rng = np.random.default_rng(0)
    wide = np.kron(rng.integers(0, 255, (9, 60)), np.ones((4, 4))).astype(np.float32)

    def cuts(sequence):
        detector = CutDetector()
        found = [detector.push(np.asarray(small, np.float32)) for small in sequence]
        return [cut for cut in (*found, detector.finish()) if cut is not None]

    pan = [wide[:, 6 * i : 6 * i + 64] for i in range(20)]
    assert cuts(pan) == []
    flash = [pan[0]] * 5 + [np.full((36, 64), 250.0)] + [pan[0]] * 5
    assert cuts(flash) == []
    noisy = [pan[0] + rng.normal(0, 8, (36, 64)) for _ in range(10)]
    assert cuts(noisy) == []
    assert cuts([*noisy, *([255 - pan[0] / 4] * 3), *([pan[0] / 5] * 3)]) == [10, 13]
    assert cuts([pan[0], 255 - pan[0] / 4]) == [1]


def test_the_routing_of_the_odd_frame_is_not_taken():
    contexts = [{"a": torch.tensor([[v]]), "expert": torch.tensor([e])} for v, e in ((0.9, 3), (0.1, 1), (0.0, 1))]
    assert medoid(contexts)["expert"].item() == 1


@pytest.mark.parametrize(("matrix", "full"), [(1, 1), (5, 1), (9, 2), (2, 0)])
def test_colours_come_back_by_every_matrix_and_range(matrix, full, photograph):
    facts = Facts("h264", 64, 64, "yuv444p10le", Fraction(1, 25), Fraction(25), None, 2, 2, matrix, full, None)
    picture = photograph[:, :64, :64]
    frame = to_frame(picture, facts, "yuv444p10le")
    back = to_tensor(frame, facts)
    assert (back - picture).abs().max() < 0.004
    if matrix == 1:  # H.273: with BT.709, pure blue has this luma
        blue = torch.zeros(3, 64, 64)
        blue[2] = 1
        luma = np.frombuffer(to_frame(blue, facts, "yuv444p10le").planes[0], np.uint16)
        assert abs(float(luma.mean()) - (64 + 876 * 0.0722)) < 2


def test_flicker_is_of_the_error_alone(photograph):
    clean = torch.stack([photograph[:, i : i + 64, :64] for i in range(4)])
    assert flicker(clean + 0.1, clean) == pytest.approx(0, abs=1e-3)
    pumping = clean + torch.tensor([0.0, 0.1, 0.0, 0.1]).view(4, 1, 1, 1)
    assert flicker(pumping, clean) == pytest.approx(25.5, rel=1e-4)


def test_routing_per_shot_flickers_less(photograph):
    """The shipped weights, noise of changing strength: per-frame routing pumps, per-shot routing does less."""
    import moir

    generator = torch.Generator().manual_seed(0)
    clean = torch.stack([photograph[:, 2 * i : 2 * i + 96, 60:156] for i in range(6)])
    sigma = torch.tensor([10.0, 40, 12, 45, 9, 42]).view(6, 1, 1, 1) / 255
    noisy = (clean * 0.5 + sigma * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
    shipped = moir.load(device="cpu", precision="float32")
    context = medoid([shipped.engine.analyse(noisy[i : i + 1]) for i in range(6)])
    by_shot = torch.stack([picture for picture, _ in restore_frames(noisy, shipped, context)])
    by_frame = torch.stack([picture for picture, _ in restore_frames(noisy, shipped, None)])
    assert flicker(by_shot, clean) < flicker(by_frame, clean)


def test_what_is_no_clip_is_refused(restorer, tmp_path):
    with pytest.raises(PictureNotFoundError, match="does not exist"):
        restore_clip(Job(tmp_path / "no.mp4", tmp_path / "o.mp4"), Settings(), restorer)
    (tmp_path / "text.mp4").write_text("no clip " * 50)
    with pytest.raises(PictureFormatError, match="cannot be read as a clip"):
        restore_clip(Job(tmp_path / "text.mp4", tmp_path / "o.mp4"), Settings(), restorer)
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), format="s16", layout="mono")
        sound.rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(PictureFormatError, match="no video stream"):
        make_plan(tmp_path / "sound.mkv")
