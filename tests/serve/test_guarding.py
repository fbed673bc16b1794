from moir.serve.failures import answer

from .conftest import part


def test_token(client_of, png):
    client = client_of(token="a long word")
    for headers in ({}, {"Authorization": "Bearer a long wor"}, {"Authorization": "Basic a long word"}):
        refused = client.post("/v1/restore", files=part(png), headers=headers)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer")
        assert client.get("/metrics", headers=headers).status_code == 401
    allowed = {"Authorization": "Bearer a long word"}
    assert client.post("/v1/restore", files=part(png), headers=allowed).status_code == 200
    assert client.get("/metrics", headers=allowed).status_code == 200
    assert client.get("/healthz").status_code == 200
    assert client.get("/").status_code == 200


def test_pages_of_other_origins_are_refused_unless_allowed(client_of, png):
    foreign = {"Origin": "https://elsewhere.example"}
    closed = client_of()
    refused = closed.post("/v1/restore", files=part(png), headers=foreign)
    assert refused.status_code == 403
    assert "access-control-allow-origin" not in refused.headers
    assert closed.post("/v1/restore", files=part(png), headers={"Origin": "http://testserver"}).status_code == 200
    open_ = client_of(cors=("https://elsewhere.example",), token="word")
    ask = {**foreign, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    assert open_.options("/v1/restore", headers=ask).status_code == 200
    done = open_.post("/v1/restore", files=part(png), headers={**foreign, "Authorization": "Bearer word"})
    assert done.status_code == 200
    assert done.headers["access-control-allow-origin"] == "https://elsewhere.example"
    other = {"Origin": "https://third.example", "Authorization": "Bearer word"}
    assert open_.post("/v1/restore", files=part(png), headers=other).status_code == 403


def test_only_its_own_host_names(client_of):
    client = client_of(hosts=("127.0.0.1", "localhost"))
    assert client.get("/healthz").status_code == 421
    assert client.get("/healthz", headers={"Host": "localhost:8000"}).status_code == 200
    assert client.get("/healthz", headers={"Host": "rebound.example:8000"}).status_code == 421


def test_a_bug_shows_nothing_of_the_inside(client_of, tiny_restorer, png, monkeypatch):
    def broken(*args, **options):
        raise ValueError("secret /home/somebody/model.safetensors")

    monkeypatch.setattr(tiny_restorer, "batch", broken)
    failed = client_of(tiny_restorer).post("/v1/restore", files=part(png))
    assert failed.status_code == 500
    assert list(failed.json()) == ["error"]
    assert "secret" not in failed.text


def test_memory_that_runs_out_is_no_bug():
    told = answer(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert told.status_code == 503
    assert told.headers["retry-after"]
