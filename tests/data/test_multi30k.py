"""Fetching Multi30k, from a server on this machine and from a folder."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dragoman import cli
from dragoman.data import multi30k
from dragoman.errors import DragomanError

CONTENT = {name: f"content of {name}\n".encode() * 99 for name in multi30k.CHECKSUMS}
PARALLEL = {name: text for name, text in CONTENT.items() if name.count(".") == 2}
DE = "val.de.gz"


class Server(ThreadingHTTPServer):
    """Serves CONTENT; `faults` holds, for a name, what goes wrong in the next requests for it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = dict(CONTENT)
        self.faults: dict[str, list[str]] = {}
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/raw"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        self.server.requests.append(name)
        fault = next(iter(self.server.faults.get(name, [])), "")
        if fault:
            self.server.faults[name].pop(0)
        if fault.isdigit() or name not in self.server.content:
            self.send_error(int(fault or 404))
            return
        body = self.server.content[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault == "wrong":
            body = bytes(len(body))
        self.wfile.write(body[: len(body) // 3] if fault == "cut" else body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name, content in CONTENT.items():
        monkeypatch.setitem(multi30k.CHECKSUMS, name, hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(multi30k, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def get(server: Server, root: Path, said: list[str] | None = None, **keys: object) -> list[Path]:
    """Fetch the German validation file."""
    say = [].append if said is None else said.append
    wanted = {"languages": ["de"], "splits": ["val"], "source": server.url, **keys}
    return multi30k.fetch(root, say=say, **wanted)  # type: ignore[arg-type]


def refusal(call: object) -> str:
    with pytest.raises(DragomanError) as caught:
        call()  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dragoman", "data", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def main(*arguments: str | Path) -> int:
    """Type ``dragoman data`` in this process, so that checksums can be replaced."""
    return cli.main(["data", *map(str, arguments)])


def test_the_default_is_everything() -> None:
    assert sorted(multi30k.wanted_files(None, None)) == sorted(PARALLEL)
    assert len(PARALLEL) == 22
    assert len(multi30k.wanted_files(["de", "en"], None)) == 12
    assert multi30k.wanted_files(["cs"], None) == [
        f"{split}.cs.gz" for split in ("train", "val", "test_2016_flickr", "test_2018_flickr")
    ]
    assert "test_2017_flickr.cs.gz" not in multi30k.wanted_files(None, ["test_2017_flickr"])
    assert len(multi30k.wanted_files(["de", "de"], ["val"])) == 1


def test_unknown_selections_are_refused() -> None:
    message = refusal(lambda: multi30k.wanted_files(["dee"], None))
    assert message.endswith("no language 'dee', expected de, en, fr or cs; did you mean 'de'?")
    message = refusal(lambda: multi30k.wanted_files(None, ["vall"]))
    assert message.endswith("did you mean 'val'?")
    message = refusal(lambda: multi30k.wanted_files(["de", "cs"], ["test_2017_mscoco"]))
    assert "'test_2017_mscoco', expected train, val, test_2016_flickr or test_2018" in message


def test_everything_is_fetched_once(server: Server, tmp_path: Path) -> None:
    root, said = tmp_path / "new" / "raw", list[str]()
    keys = {"languages": None, "splits": None, "monolingual": False}
    present = get(server, root, said, **keys)
    assert {path.name: path.read_bytes() for path in present} == PARALLEL
    assert {path.name for path in root.iterdir()} == set(PARALLEL)
    assert len(said) == 23
    assert said[0].startswith("[1/22] train.de.gz: fetched")
    requests = len(server.requests)
    assert get(server, root, said, **keys) == present
    assert len(server.requests) == requests
    assert "already there" in said[-2]


def test_what_was_fetched_before_a_fault_is_kept(server: Server, tmp_path: Path) -> None:
    """The same call goes on after the files that are whole."""
    server.faults["val.en.gz"] = ["cut"] * 3
    languages = ["de", "en"]
    assert "val.en.gz: no connection" in refusal(lambda: get(server, tmp_path, languages=languages))
    assert [path.name for path in tmp_path.iterdir()] == [DE], "half a file is never left behind"
    get(server, tmp_path, languages=languages)
    assert server.requests == [DE] + ["val.en.gz"] * 4


@pytest.mark.parametrize("before", [b"wrong", b"", CONTENT[DE][:100]])
def test_a_wrong_file_is_replaced(server: Server, tmp_path: Path, before: bytes) -> None:
    (tmp_path / DE).write_bytes(before)
    get(server, tmp_path)
    assert (tmp_path / DE).read_bytes() == CONTENT[DE]


@pytest.mark.parametrize("fault", ["500", "503", "429", "wrong", "cut"])
def test_passing_faults_are_tried_again(server: Server, tmp_path: Path, fault: str) -> None:
    server.faults[DE] = [fault, fault]
    said = list[str]()
    get(server, tmp_path, said)
    assert (tmp_path / DE).read_bytes() == CONTENT[DE]
    assert [line.rsplit("; ", 1)[-1] for line in said[:2]] == ["trying again"] * 2


def test_lasting_faults_are_told_in_one_line(server: Server, tmp_path: Path) -> None:
    server.faults[DE] = ["500"] * 9
    message = refusal(lambda: get(server, tmp_path))
    assert message.startswith(f"{server.url}/{DE}: the server answered 500")
    assert len(server.requests) == multi30k.ATTEMPTS


def test_a_file_the_server_does_not_have_is_not_tried_again(server: Server, tmp_path: Path) -> None:
    del server.content[DE]
    assert "answered 404" in refusal(lambda: get(server, tmp_path))
    assert len(server.requests) == 1


def test_a_wrong_checksum_never_gets_the_name(server: Server, tmp_path: Path) -> None:
    server.content[DE] = b"<html>log in to this network first</html>"
    assert "wrong SHA-256" in refusal(lambda: get(server, tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("source", ["gopher://127.0.0.1/raw", "http://[::1/raw", "raw"])
def test_addresses_that_cannot_be_fetched_are_refused(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multi30k, "BACKOFF_SECONDS", 0.001)
    message = refusal(lambda: multi30k.fetch(tmp_path, ["de"], ["val"], source=source))
    assert message.startswith(source)


def test_folders_that_cannot_be_written_are_refused(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"in the way")
    message = refusal(lambda: get(server, tmp_path / "file" / "raw"))
    assert "cannot be written" in message
    (tmp_path / "raw" / DE).mkdir(parents=True)
    assert "is a folder" in refusal(lambda: get(server, tmp_path / "raw"))


# From a folder.


def fill(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(CONTENT[name])
    return folder


def test_a_folder_gives_what_it_has(server: Server, tmp_path: Path) -> None:
    folder, said = fill(tmp_path / "from", DE, "val.en.gz"), list[str]()
    keys = {"languages": None, "splits": None, "monolingual": False, "source": str(folder)}
    present = get(server, tmp_path / "to", said, **keys)
    assert {path.name for path in present} == {DE, "val.en.gz"}
    assert {path.name for path in (tmp_path / "to").iterdir()} == {DE, "val.en.gz"}
    assert sum("skipped" in line for line in said) == 20
    assert server.requests == []
    # The folder may be the root itself.
    assert get(server, folder, source=str(folder)) == [folder / DE]


def test_a_home_folder_is_expanded(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    fill(tmp_path / "from", DE)
    assert get(server, Path("~/to"), source="~/from") == [tmp_path / "to" / DE]


def test_a_folder_without_what_was_asked_for_is_refused(server: Server, tmp_path: Path) -> None:
    folder, root = str(fill(tmp_path / "from", DE)), tmp_path / "to"
    message = refusal(lambda: get(server, root, splits=["train"], source=folder))
    assert message == f"{folder}: has no train.de.gz"
    message = refusal(lambda: get(server, root, languages=["fr"], splits=None, source=folder))
    assert message.startswith(f"{folder}: has no ")
    nowhere = str(tmp_path / "nowhere")
    assert "no such folder" in refusal(lambda: get(server, root, source=nowhere))


def test_a_wrong_file_in_a_folder_is_refused(server: Server, tmp_path: Path) -> None:
    folder, root = fill(tmp_path / "from"), tmp_path / "to"
    (folder / DE).write_bytes(b"wrong")
    message = refusal(lambda: get(server, root, source=str(folder)))
    assert message.startswith(f"{folder / DE}: ")
    assert not root.exists()


# The script.


def test_the_script_fetches(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.faults[DE] = ["500"]
    selection = ["--languages", "de", "en", "--splits", "val", "train"]
    assert main("--root", tmp_path, "--from", f"{server.url}/", *selection) == 0
    printed = capsys.readouterr()
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{split}.{language}.gz" for split in ("val", "train") for language in ("de", "en")
    }
    assert "[4/4] train.en.gz: fetched" in printed.out
    assert printed.out.endswith(f"4 of 4 files are in {tmp_path}\n")
    assert printed.err == ""


def test_the_script_also_fetches_the_monolingual_captions(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = server.url.replace("/raw", "/task1/raw")
    assert main("--root", tmp_path / "raw", "--from", address, "--languages", "en", "fr") == 0
    names = {path.name for path in (tmp_path / "task2").iterdir()}
    assert names == {f"train.{number}.en.gz" for number in range(1, 6)}
    assert capsys.readouterr().out.endswith(f"5 of 5 files are in {tmp_path / 'task2'}\n")
    assert main("--root", tmp_path / "only", "--from", address, "--no-monolingual") == 0
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["raw", "task2", "only"]
    # From a local copy, beside it; one without them is enough.
    copy = tmp_path / "copy"
    assert main("--root", copy / "raw", "--from", tmp_path / "raw") == 0
    assert {path.name for path in (copy / "task2").iterdir()} == names
    (tmp_path / "task2").rename(tmp_path / "gone")
    assert main("--root", tmp_path / "less" / "raw", "--from", tmp_path / "raw") == 0
    assert not (tmp_path / "less" / "task2").exists()


def test_the_script_stops_cleanly_when_interrupted(
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(multi30k, "_download", interrupt)
    assert main("--root", tmp_path, "--from", server.url) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_no_network_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as reserved:  # bound but not listening: connections are refused
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        finished = run("--root", tmp_path, "--from", url, "--splits", "val")
    assert finished.returncode == 2
    assert finished.stderr.startswith(f"error: {url}/{DE}: no connection")
    assert "MULTI30K=<folder>" in finished.stderr
    assert finished.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_script_refuses_in_one_line(tmp_path: Path) -> None:
    finished = run("--root", tmp_path, "--languages", "cs", "--splits", "test_2017_flickr")
    assert finished.returncode == 2
    assert finished.stderr.startswith("error: Multi30k in cs has no split 'test_2017_flickr'")
    assert finished.stderr.count("\n") == 1
