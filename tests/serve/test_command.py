import os
import signal
import subprocess
import sys
import threading

import httpx
import pytest

from .conftest import part


@pytest.fixture
def started(tmp_path):
    """``moir serve`` as a process of its own, on a free port."""
    processes = []

    def start(*arguments, **environment):
        command = [sys.executable, "-m", "moir", "serve", "--port", "0", "--device", "cpu", *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path)
        processes.append(process)
        for line in process.stderr:
            if "serving at" in line:
                return process, line.split("serving at ")[1].split()[0]
        raise AssertionError("it ended before it served")

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stderr.close()


def test_it_serves_and_ends_gracefully(started, png):
    process, url = started(MOIR_TOKEN="word")
    assert url.startswith("http://127.0.0.1:")
    head = {"Authorization": "Bearer word"}
    assert httpx.get(url).status_code == 200
    assert httpx.get(url + "v1/models").status_code == 401
    assert httpx.get(url + "readyz", headers={"Host": "rebound.example"}).status_code == 421
    too_much = httpx.post(url + "v1/restore", files=part(bytes(65 * 2**20)), headers=head, timeout=60)
    assert too_much.status_code == 413
    answers = []

    def ask():
        answers.append(httpx.post(url + "v1/restore", files=part(png), headers=head, timeout=60).status_code)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    while httpx.get(url + "metrics", headers=head).text.count("moir_admitted 0") and len(answers) < 6:
        pass
    process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(60)
    assert process.wait(60) == 0
    assert answers.count(200) >= 1
    assert set(answers) == {200}


def test_mistakes_end_at_once(tmp_path):
    def run(*arguments, code="import moir.cli; moir.cli.main()"):
        command = [sys.executable, "-c", f"import sys; sys.argv = ['moir', 'serve', *{arguments!r}]\n{code}"]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=60)

    missing = run(code="sys.modules['fastapi'] = None\nimport moir.cli; moir.cli.main()")
    assert missing.returncode == 1
    assert "pip install 'moir[serve]'" in missing.stderr
    assert "Traceback" not in missing.stderr
    unknown = run("--model", "compcat")
    assert unknown.returncode == 1
    assert "did you mean 'compact'" in unknown.stderr
