import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from moir.picture import decode

from .conftest import as_file, part


def report_of(answer):
    return json.loads(answer.headers["X-Moir-Report"])


def test_restore_gives_what_the_restorer_gives(client, tiny_restorer, png):
    answer = client.post("/v1/restore", files=part(png, "holiday/cät.png"), data={"strength": "0.5"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    expected = tiny_restorer(decode(png), strength=0.5)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), expected.picture.to_numpy())
    report = report_of(answer)
    assert list(report) == ["input", "output", *expected.report()]
    assert report.pop("seconds") > 0
    same = {**expected.report(), "input": "cät.png", "output": "cät_restored.png"}
    same.pop("seconds")
    assert report == same
    assert "c%C3%A4t_restored.png" in answer.headers["content-disposition"]


def test_options_may_come_in_the_address_and_fields_count_first(client, png):
    answer = client.post("/v1/restore?strength=0.25&format=webp", files=part(png))
    assert (report_of(answer)["strength"], answer.headers["content-type"]) == (0.25, "image/webp")
    answer = client.post("/v1/restore?strength=0.25", files=part(png), data={"strength": "0"})
    assert report_of(answer)["strength"] == 0
    assert np.array_equal(decode(answer.content).to_numpy(), decode(png).to_numpy())


def test_metadata_is_kept(client):
    exif = Image.Exif()
    exif[0x013B] = "A. Painter"
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    answer = client.post("/v1/restore", files=part(as_file(pixels, "JPEG", exif=exif, dpi=(72, 72)), "a.JPG"))
    assert report_of(answer)["output"] == "a_restored.JPG"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.getexif()[0x013B] == "A. Painter"
        assert image.info["dpi"] == (72, 72)


def test_inspect_is_the_report_without_what_was_not_done(client, png):
    told = client.post("/v1/inspect", files=part(png)).json()
    report = report_of(client.post("/v1/restore", files=part(png)))
    for gone in ("output", "strength", "tiles"):
        del report[gone]
    assert list(told) == list(report)
    assert {k: v for k, v in told.items() if k != "seconds"} == {k: v for k, v in report.items() if k != "seconds"}
    probabilities = [finding["probability"] for finding in told["estimate"]]
    assert probabilities == sorted(probabilities, reverse=True)


def test_degrade_damages_the_same_way_twice(client, png):
    answers = [
        client.post("/v1/degrade", files=part(png), data={"with": "noise=25", "seed": seed}) for seed in (3, 3, 4)
    ]
    assert [a.status_code for a in answers] == [200] * 3
    assert answers[0].content == answers[1].content != answers[2].content
    assert [d["type"] for d in report_of(answers[0])["damage"]] == ["noise"]


def test_preview_shows_what_browsers_cannot(client):
    pixels = np.arange(12 * 10 * 3, dtype=np.uint16).reshape(12, 10, 3).astype(np.uint8)
    answer = client.post("/v1/preview", files=part(as_file(pixels, "TIFF"), "a.tif"))
    assert answer.headers["content-type"] == "image/png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), pixels)


def huge_png() -> bytes:
    """A PNG of a few bytes that declares a thousand million pixels."""
    header = struct.pack(">IIBBBBB", 40000, 25000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize(
    ("content", "options", "status", "words"),
    [
        (b"hello", {}, 422, "not a picture that moir reads"),
        (b"", {}, 422, "empty"),
        (b"\x89PNG\r\n\x1a\n then nothing", {}, 422, "PNG header"),
        (huge_png(), {}, 413, "pixels"),
        (None, {"strength": "2"}, 422, "strength '2'"),
        (None, {"strength": "nan"}, 422, "strength"),
        (None, {"task": "derian"}, 422, "did you mean 'derain'"),
        (None, {"strenth": "1"}, 422, "did you mean 'strength'"),
        (None, {"format": "gif"}, 422, "format"),
        (None, {"quality": "0"}, 422, "quality"),
        (None, {"model": "/etc/passwd"}, 422, "unknown model"),
        (None, {"model": "../weights/compact.safetensors"}, 422, "unknown model"),
        (None, {"model": "hf://someone/something"}, 422, "unknown model"),
    ],
)
def test_mistakes_are_told(client, png, content, options, status, words):
    answer = client.post("/v1/restore", files=part(png if content is None else content, "a.png"), data=options)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"]
    assert "Traceback" not in answer.text


def test_requests_without_a_picture(client, png):
    assert client.post("/v1/restore").status_code == 422
    assert client.post("/v1/restore", data={"file": "/etc/passwd"}).status_code == 422
    assert client.post("/v1/restore", files={"picture": ("a.png", png)}).status_code == 422
    two = client.post("/v1/restore", files=[("file", ("a.png", png)), ("file", ("b.png", png))])
    assert two.status_code == 400
    broken = client.post("/v1/restore", content=b"xx", headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert broken.status_code in (400, 422)
    for answer in (client.get("/v1/restore"), client.get("/nowhere"), two, broken):
        assert list(answer.json()) == ["error"]


def test_limits_of_bytes_and_pixels(client_of, png):
    client = client_of(max_bytes=len(png) - 1)
    assert client.post("/v1/restore", files=part(png)).status_code == 413
    declared = client.post("/v1/restore", content=b"x", headers={"Content-Length": str(10**9)})
    assert declared.status_code == 413

    def endless():
        yield b"--b\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\n"
        for _ in range(100):
            yield bytes(10**5)

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert client.post("/v1/restore", content=endless(), headers=headers).status_code == 413
    client = client_of(max_pixels=48 * 64 - 1)
    answer = client.post("/v1/restore", files=part(png))
    assert answer.status_code == 413
    assert "3,072 pixels" in answer.json()["error"]


def test_facts(client, png):
    offer = client.get("/v1/models").json()
    assert offer["models"][0]["name"] == "tiny"
    assert offer["models"][0]["default"]
    assert "compact" in [m["name"] for m in offer["models"]]
    assert "derain" in offer["tasks"]
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").status_code == 200
    client.post("/v1/restore", files=part(png))
    client.get("/some/stranger")
    text = client.get("/metrics").text
    assert 'moir_requests_total{route="/v1/restore",status="200"} 1' in text
    assert 'moir_requests_total{route="other",status="404"} 1' in text
    assert f"moir_pixels_total {48 * 64}" in text
    assert 'moir_batch_size_bucket{le="1"} 1' in text
    assert "stranger" not in text


def test_the_description_has_examples_and_every_answer(client):
    paths = client.get("/openapi.json").json()["paths"]
    restore = paths["/v1/restore"]["post"]
    assert set(restore["requestBody"]["content"]) == {"multipart/form-data"}
    assert restore["responses"]["200"]["headers"]["X-Moir-Report"]["example"]["model"]
    assert {"413", "422", "429", "504"} <= set(restore["responses"])
    assert {"/v1/inspect", "/v1/models", "/healthz", "/readyz", "/metrics"} <= set(paths)


def test_the_page_has_no_foreign_parts(client):
    page = client.get("/")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    names = ["app.js", "api.js", "viewer.js", "zip.js", "words.js", "damage.js", "style.css", "icon.svg"]
    texts = [page.text]
    for name in names:
        answer = client.get(f"/page/{name}")
        assert answer.status_code == 200
        texts.append(answer.text.replace("http://www.w3.org/2000/svg", ""))
    for text in texts:
        assert "http:" not in text
        assert "https:" not in text
    assert client.get("/page/../app.py").status_code == 404
    assert client.get("/page/%2e%2e/app.py").status_code == 404
