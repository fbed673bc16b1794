import io

import numpy as np
import pytest
from PIL import Image
from skimage import data

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
pytest.importorskip("python_multipart", reason="the extra 'serve' is not installed")
pytest.importorskip("httpx", reason="Starlette's test client needs httpx")

from starlette.testclient import TestClient

from moir.serve import Settings, create_app


def as_file(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def part(content: bytes, name: str = "a.png"):
    """A multipart body with one picture."""
    return {"file": (name, content)}


@pytest.fixture(scope="session")
def png() -> bytes:
    return as_file(data.astronaut()[:48, :64])


@pytest.fixture
def client_of(tiny_restorer):
    """Make a client of a server with the tiny model."""
    opened = []

    def make(restorer=None, **limits):
        app = create_app({"tiny": restorer or tiny_restorer}, Settings(**limits))
        client = TestClient(app, raise_server_exceptions=False)
        client.__enter__()  # starts the application's lifespan
        opened.append(client)
        return client

    yield make
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def client(client_of):
    return client_of()
