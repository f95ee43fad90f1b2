"""Multi30k: what it consists of, how its files are checked, and how they are fetched.

Elliott, Frank, Sima'an and Specia (2016), "Multi30K: Multilingual English-German Image
Descriptions"; Task 1, the parallel captions, one sentence a line, line N the same picture in every
language. For non-commercial research and education.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from dragoman.data.formats import check_file, remembered_sha256, sha256_of
from dragoman.errors import DragomanError, nearest, one_of

LANGUAGES = ("de", "en", "fr", "cs")
SPLITS = (
    "train",
    "val",
    "test_2016_flickr",
    "test_2017_flickr",
    "test_2017_mscoco",
    "test_2018_flickr",
)
URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw"
MONOLINGUAL_URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task2/raw"
ATTEMPTS = 3
BACKOFF_SECONDS = 1.0  # doubled after every attempt
TIMEOUT_SECONDS = 30.0

CHECKSUMS = {
    "test_2016_flickr.cs.gz": "200a4a74cc9560f051924abb9803be008d1908d77f747e9141aeb86dfd2797f1",
    "test_2016_flickr.de.gz": "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8",
    "test_2016_flickr.en.gz": "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
    "test_2016_flickr.fr.gz": "6d326e188d259fb1d04ac19eae3af956559b3a0b93d7635e56c90987c40c8b90",
    "test_2017_flickr.de.gz": "a2c89666db00c495cd8513b9d708d5a3acc205d7de312ef2bf5fb7ebc1540aee",
    "test_2017_flickr.en.gz": "76a444ee25172e72695cddb13ae4a3bda59430617be88e0bb46b60504f054074",
    "test_2017_flickr.fr.gz": "3ba671ceb2299f3304ffafefea7a833d08632fbaf0ba18546f8a2ec2391af496",
    "test_2017_mscoco.de.gz": "799e4854c25d601cb6cb6be29eabe5667734c61ace2f495e03e429031a0bc338",
    "test_2017_mscoco.en.gz": "aab300bfb4427697987e02cd0aacd44bfe8aa50456231b6474c08038bbed2b58",
    "test_2017_mscoco.fr.gz": "754f3072ba9f124569ba5258b32730fc1d214bbf8e0c6dfb2b74401676220db0",
    "test_2018_flickr.cs.gz": "7d0a9db904f94c554a8c58049a9f3a5357c27f46cc3d710d70cb0b4a2585b8c2",
    "test_2018_flickr.de.gz": "ddd0130c7d97482dc5197a02141dae8dd79f20f03586c480d675c09a32daf608",
    "test_2018_flickr.en.gz": "ef4f4844037d4c5dea75c9a8ed5fd78905967a26f67c255e230cc9780032654d",
    "test_2018_flickr.fr.gz": "fb2b83fcceb937a4f7e3e93c1c51c22aba92f1e342391e6b5ba392b16a920501",
    "train.cs.gz": "a65adb8b32e3bc664f21ecba7a6e7f6950fd1f405e135f7c312faabdb6255077",
    "train.de.gz": "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
    "train.en.gz": "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
    "train.fr.gz": "622e75069e9f4c577425c4f277116ce66e63a2401c0a2312d90073cb12379a3c",
    "val.cs.gz": "b63226e05c4bd5dd6a42897d74b86a1b9d2c31498252c572b1ea7f7996927fcc",
    "val.de.gz": "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a",
    "val.en.gz": "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28",
    "val.fr.gz": "ca3106f1a72390591d25f6c45cb4cd39dec4cd3f123e099748a3ce5256c160e9",
}
# Task 2: five independent captions of every training picture and language; not parallel text, but
# monolingual text of the same domain.
MONOLINGUAL_CHECKSUMS = {
    "train.1.de.gz": "0002241b52aba5160c08d644ea0d64a9bf46a2dfffcf619c9e3cdaa55b357004",
    "train.1.en.gz": "a0e057f07a9733199c0d755d77f6d583dc6f40a3180734b1130a216e2fdf3a3b",
    "train.2.de.gz": "ac7c29258b90aec0b64d677c5bfc831fc402e6296d0aa9cc7a3433ddbff85c37",
    "train.2.en.gz": "d79dd70a9eafb2d1fe40151621278c4ae69b3c148c5052a53d7c7a41bf3ba023",
    "train.3.de.gz": "ec5e6508813814aa31311b34e26e24f903dd7701f8d0668313259b7f975d7aa0",
    "train.3.en.gz": "86e16fdcc699bcb6bca0f87c3cf1051f7de5ee3674dd588cedc5200194282749",
    "train.4.de.gz": "bcee8ac6eb47d8a7dc8cff47d9a0fbd80b4363cfda22021bacd297f9604221a4",
    "train.4.en.gz": "3771b84e010ad6197806d2a1188cb07c12149e3e0d178dd5966dee5763733686",
    "train.5.de.gz": "dccb0ca6ff25e0b1f0d385f59fb809184e0db89622d88371725e3ec46d43bfc0",
    "train.5.en.gz": "73988689307fe836994eae59735dc840c15da9775455fa76e6ed22606a042a91",
}


def check_language(language: str, key: str) -> None:
    """Refuse a language Multi30k does not have; ``key`` is what the message names."""
    if language not in LANGUAGES:
        raise DragomanError(
            f"{key}: Multi30k has no language '{language}', expected {one_of(LANGUAGES)}"
            f"{nearest(language, LANGUAGES)}"
        )


def check_split(split: str, languages: Sequence[str]) -> None:
    """Refuse a split that does not exist, or not in all of ``languages``."""
    if split not in SPLITS:
        raise DragomanError(
            f"Multi30k has no split '{split}', expected {one_of(SPLITS)}{nearest(split, SPLITS)}"
        )
    for language in languages:
        if split not in splits_of(language):
            raise DragomanError(
                f"Multi30k has no split '{split}' in language '{language}'; "
                f"the splits of '{language}' are {', '.join(splits_of(language))}"
            )


def splits_of(*languages: str) -> list[str]:
    """Return the splits that exist in all of ``languages``."""
    return [s for s in SPLITS if all(f"{s}.{language}.gz" in CHECKSUMS for language in languages)]


def find_file(root: Path, split: str, language: str) -> Path:
    """Return the verified ``<split>.<language>.gz`` under ``root``, or else the unpacked file.

    The sums are those of the packed files; an unpacked file is taken as it is.

    Raises:
        DragomanError: if neither is there, or the packed file has the wrong SHA-256.
    """
    packed = root / f"{split}.{language}.gz"
    unpacked = packed.with_suffix("")
    if not packed.exists():
        if unpacked.exists():
            return check_file(unpacked)
        raise DragomanError(f"{packed}: no such file; `make data` fetches Multi30k")
    found, expected = remembered_sha256(packed), CHECKSUMS[packed.name]
    if found != expected:
        raise DragomanError(
            f"{packed}: not the file of Multi30k (SHA-256 {found[:8]}..., expected "
            f"{expected[:8]}...); fetch it again with `make data`"
        )
    return packed


# Fetching: every file arrives as <name>.part and gets its name only once its sum is right.


class _TryAgain(Exception):
    """A download failed in a way that may not happen again."""


def wanted_files(languages: Sequence[str] | None, splits: Sequence[str] | None) -> list[str]:
    """Return the names of the files of some languages and splits; ``None`` stands for all.

    Raises:
        DragomanError: for an unknown language or split, and for a split named together with a
            language that does not have it.
    """
    for language in languages or ():
        check_language(language, "--languages")
    for split in splits or ():
        check_split(split, languages or ())
    names = [f"{s}.{language}.gz" for s in splits or SPLITS for language in languages or LANGUAGES]
    return [name for name in dict.fromkeys(names) if name in CHECKSUMS]


def fetch(
    root: Path,
    languages: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    *,
    url: str = URL,
    folder: Path | None = None,
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Bring files of Multi30k into ``root``, from ``url`` or from a local ``folder``.

    Files that are there and right are left alone, a wrong one is replaced, and an interrupted
    download goes on where it stopped. A file that ``folder`` lacks is passed over with a note,
    unless its split was asked for by name. Returns the paths of the files that are now in place.

    Raises:
        DragomanError: for a selection that does not exist, no network, a server's refusal, a
            wrong checksum, and a folder or disk that cannot be read or written.
    """
    names = wanted_files(languages, splits)
    present = _bring(names, root, url, folder, splits is not None, say)
    for language in languages or ():
        if not any(path.name.endswith(f".{language}.gz") for path in present):
            raise DragomanError(f"{folder}: holds no file of Multi30k in language '{language}'")
    if not present:
        raise DragomanError(f"{folder}: holds no file of Multi30k, such as {names[0]}")
    return present


def fetch_monolingual(
    root: Path,
    languages: Sequence[str] | None = None,
    *,
    url: str = MONOLINGUAL_URL,
    folder: Path | None = None,
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Bring the independent captions of the training pictures into ``root``, as ``fetch`` does.

    There are some in German and in English; a ``folder`` that is not there is passed over.
    """
    names = [
        name
        for name in MONOLINGUAL_CHECKSUMS
        if languages is None or name.split(".")[2] in languages
    ]
    if folder is not None and not folder.is_dir():
        say(f"{folder}: not there, so the monolingual captions are left out")
        return []
    return _bring(names, root, url, folder, False, say)


def _bring(
    names: Sequence[str],
    root: Path,
    url: str,
    folder: Path | None,
    required: bool,
    say: Callable[[str], None],
) -> list[Path]:
    """Fetch or copy files by name; ``required`` ones must be in ``folder``."""
    if folder is not None and not folder.is_dir():
        raise DragomanError(f"{folder}: no such folder to take Multi30k from")
    if folder is None and not url.lower().startswith(("http://", "https://")):
        raise DragomanError(f"{url}: not an http or https address; --from takes a local folder")
    present: list[Path] = []
    for number, name in enumerate(names, 1):
        path, step = root / name, f"[{number}/{len(names)}] {name}"
        if _already_right(path, say):
            say(f"{step}: already there")
        elif folder is None:
            _download(f"{url.rstrip('/')}/{name}", path, say)
            say(f"{step}: fetched, {path.stat().st_size:,} bytes, checksum right")
        elif (folder / name).exists():
            _copy(folder / name, path)
            say(f"{step}: copied, checksum right")
        elif required:
            raise DragomanError(f"{folder / name}: no such file")
        else:
            say(f"{step}: skipped, {folder} does not have it")
            continue
        present.append(path)
    return present


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses while ``path`` is written into one line."""
    try:
        yield
    except OSError as problem:
        raise DragomanError(f"{path}: cannot be written ({problem.strerror or problem})") from None


def _checksum(path: Path) -> str:
    """Return the sum a file must have; no name is used twice in the two tasks."""
    return CHECKSUMS.get(path.name) or MONOLINGUAL_CHECKSUMS[path.name]


def _already_right(path: Path, say: Callable[[str], None]) -> bool:
    """Tell whether ``path`` is in place and right; remove it where it is wrong."""
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        return False
    if sha256_of(path) == _checksum(path):
        return True
    say(f"{path}: wrong checksum; it is fetched anew")
    with _writing(path):
        path.unlink()
    return False


def _accept(part: Path, path: Path) -> bool:
    """Give ``part`` its final name if its sum is right; remove it if not."""
    right = sha256_of(part) == _checksum(path)
    with _writing(path):
        if right:
            os.replace(part, path)
        else:
            part.unlink()
    return right


def _copy(source: Path, path: Path) -> None:
    part = path.with_name(f"{path.name}.part")
    check_file(source)
    with _writing(path):
        shutil.copyfile(source, part)
    if not _accept(part, path):
        raise DragomanError(f"{source}: not the file of Multi30k (wrong SHA-256)")


def _download(url: str, path: Path, say: Callable[[str], None]) -> None:
    part = path.with_name(f"{path.name}.part")
    wait = BACKOFF_SECONDS
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _transfer(url, part)
            if _accept(part, path):
                return
            raise _TryAgain("the file received has the wrong SHA-256")
        except _TryAgain as problem:
            if attempt == ATTEMPTS:
                raise DragomanError(
                    f"{url}: {problem} ({ATTEMPTS} attempts); check the network, or take a local "
                    "copy with `make data MULTI30K=<folder>`"
                ) from None
            say(f"{path.name}: {problem}; trying again in {wait:g} s")
            time.sleep(wait)
            wait *= 2


def _transfer(url: str, part: Path) -> None:
    """Receive ``url`` into ``part``, going on after the bytes that are there already."""
    start = part.stat().st_size if part.exists() else 0
    try:
        request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as problem:
        if problem.code == 416 and start:  # the part is whole, or longer than the file
            return
        answer = f"the server answered {problem.code} {problem.reason}"
        if problem.code in (408, 429) or problem.code >= 500:
            raise _TryAgain(answer) from None
        raise DragomanError(f"{url}: {answer}") from None
    except ValueError as problem:  # an address that cannot be understood
        raise DragomanError(f"{url}: not a usable address ({problem})") from None
    except (OSError, http.client.HTTPException) as problem:
        reason = getattr(problem, "reason", None) or problem or type(problem).__name__
        raise _TryAgain(f"no connection ({reason})") from None
    with response:
        # A server that knows no ranges answers 200 with the whole file.
        if response.status == 206:
            if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                raise _TryAgain("the server sent another range than was asked for")
        else:
            start = 0
        _receive(response, part, start)


def _receive(response: http.client.HTTPResponse, part: Path, start: int) -> None:
    """Write the body of a response after byte ``start`` of ``part``."""
    length = response.headers.get("Content-Length", "")
    total = start + int(length) if length.isdecimal() else None
    bar = tqdm(
        total=total,
        initial=start,
        desc=part.stem,
        unit="B",
        unit_scale=True,
        leave=False,
        disable=not sys.stderr.isatty(),
    )
    done = start
    with bar, _writing(part), part.open("ab" if start else "wb") as stream:
        while chunk := _next_bytes(response):
            stream.write(chunk)
            done += len(chunk)
            bar.update(len(chunk))
    if total is not None and done < total:
        raise _TryAgain(f"the connection ended after {done:,} of {total:,} bytes")


def _next_bytes(response: http.client.HTTPResponse) -> bytes:
    """Read on; a broken connection must not be taken for a disk that refuses the bytes."""
    try:
        return response.read(1 << 16)
    except (OSError, http.client.HTTPException) as problem:
        raise _TryAgain(f"the connection broke ({problem or type(problem).__name__})") from None
