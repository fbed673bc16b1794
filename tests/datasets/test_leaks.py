"""Leaks that are planted are found, and nothing else is."""

from moir.datasets import check


def _rain(put, tmp_path) -> None:
    for n in range(4):
        put(f"denoising/BSD400/{n}.png", seed=n, size=(48, 32))
        put(f"Rain100L/rainy/rain-00{n}.png", seed=200 + n, size=(48, 32))
        put(f"Rain100L/gt/norain-00{n}.png", seed=100 + n, size=(48, 32))


def test_no_false_alarm(put, tmp_path) -> None:
    _rain(put, tmp_path)
    put("denoising/BSD400/black.png", seed=1).write_bytes(_flat(tmp_path, 0))
    put("Rain100L/gt/norain-009.png").write_bytes(_flat(tmp_path, 255))
    put("Rain100L/rainy/rain-009.png", 7)
    report = check(tmp_path)
    assert report.leaks == []
    assert report.notes == []


def test_equal_files(put, tmp_path) -> None:
    _rain(put, tmp_path)
    copy = put("Rain100L/gt/norain-002.png")
    copy.write_bytes((tmp_path / "denoising/BSD400/3.png").read_bytes())
    (leak,) = check(tmp_path, leaks="exact").leaks
    assert (leak.kind, leak.train, leak.test) == ("exact", "bsd400", "rain100l")
    assert [(a.name, b.name) for a, b, _ in leak.files] == [("3.png", "norain-002.png")]
    assert check(tmp_path).leaks == [leak]  # the same files are not told a second time as look-alikes
    assert check(tmp_path, leaks="off").leaks == []


def test_look_alikes(put, tmp_path) -> None:
    _rain(put, tmp_path)
    put("Rain100L/gt/norain-000.jpg", seed=2, size=(96, 64), quality=60)
    (tmp_path / "Rain100L/gt/norain-000.png").unlink()
    assert check(tmp_path, leaks="exact").leaks == []
    (leak,) = check(tmp_path).leaks
    assert (leak.kind, leak.train, leak.test) == ("look-alike", "bsd400", "rain100l")
    ((train, test, value),) = leak.files
    assert (train.name, test.name) == ("2.png", "norain-000.jpg")
    assert 0.85 < value <= 1


def test_known_overlaps_are_told(put, tmp_path) -> None:
    put("BSDS500/data/images/val/1.jpg", 1, quality=95)
    put("CBSD68/original_png/0000.png", 1)
    report = check(tmp_path)
    assert [leak.kind for leak in report.leaks] == ["look-alike"]
    assert [note[:25] for note in report.notes] == ["known: bsds500 and cbsd68"]


def test_reside_against_sots(put, tmp_path) -> None:
    for n in range(3):
        put(f"dehazing/RESIDE/part{n}/{n}_1_0.1.jpg", 50 + n)
        put(f"dehazing/RESIDE/clear/{n}.jpg", n, size=(64, 48), quality=80)
        put(f"dehazing/SOTS/outdoor/hazy/{n}_0.8.jpg", 60 + n)
        put(f"dehazing/SOTS/outdoor/gt/{n}.png", 10 * n + 2, size=(96, 72))
    (leak,) = check(tmp_path).leaks
    assert (leak.train, leak.test, len(leak.files)) == ("ots", "sots", 1)
    assert leak.files[0][0].name == "2.jpg"


def test_large_sets_are_sampled_and_told(put, tmp_path, monkeypatch) -> None:
    _rain(put, tmp_path)
    put("Rain100L/gt/norain-003.png", seed=1, size=(64, 48))
    monkeypatch.setattr("moir.datasets.checking.QUICK_LIMIT", 2)
    report = check(tmp_path)
    assert report.notes[0].startswith("bsd400: 2 of 4 pictures were compared by look")
    assert report.leaks == []
    assert len(check(tmp_path, leaks="full").leaks) == 1


def test_own_training_folder(put, tmp_path) -> None:
    put("root/CBSD68/original_png/0000.png", 1)
    put("mine/deep/photo.jpg", 1)
    put("mine/other.png", 2)
    (leak,) = check(tmp_path / "root", train=[tmp_path / "mine"]).leaks
    assert (leak.train, leak.test) == (str(tmp_path / "mine"), "cbsd68")
    assert leak.files[0][0].name == "photo.jpg"


def test_sets_that_share_clean_pictures_are_compared_once(put, tmp_path) -> None:
    for kind in ("clear", "low", "haze", "low_haze"):
        put(f"cdd11/train/{kind}/1.png", 1)
        put(f"cdd11/test/{kind}/1.png", 1, size=(48, 32))
    (leak,) = check(tmp_path).leaks
    assert (leak.train, leak.test) == ("cdd11_train_*", "cdd11_*")


def _flat(tmp_path, level: int) -> bytes:
    from PIL import Image

    path = tmp_path / "flat.png"
    Image.new("RGB", (24, 16), (level,) * 3).save(path)
    data = path.read_bytes()
    path.unlink()
    return data
