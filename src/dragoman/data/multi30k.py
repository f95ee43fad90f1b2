"""Multi30k: what it consists of, how its files are checked, and how they are fetched.

Elliott, Frank, Sima'an and Specia (2016), "Multi30K: Multilingual English-German Image
Descriptions"; Task 1, the parallel captions, one sentence a line, line N the same picture in every
language; Task 2, five independent captions of every training picture in German and in English,
which are not parallel, but monolingual text of the same domain. For non-commercial research and
education.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from dragoman.data.lines import check_file, remembered_sha256, sha256_of
from dragoman.errors import DragomanError, check_known
from dragoman.files import write_atomic

LANGUAGES = ("de", "en", "fr", "cs")
_TESTS = ("test_2016_flickr", "test_2017_flickr", "test_2017_mscoco", "test_2018_flickr")
SPLITS = ("train", "val", *_TESTS)
URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw"
ATTEMPTS = 3
BACKOFF_SECONDS = 1.0  # doubled after every attempt
TIMEOUT_SECONDS = 30.0

# The files of both tasks, none of which share a name, in the format of `sha256sum --check`.
CHECKSUMS = {
    name: digest
    for line in Path(__file__).with_suffix(".sha256").read_text("ascii").splitlines()
    for digest, name in [line.split()]
}


def check_split(split: str, languages: Sequence[str]) -> None:
    """Refuse a split that does not exist in all of ``languages``."""
    where = f" in {' and '.join(languages)}" if languages and split in SPLITS else ""
    check_known(split, splits_of(*languages), f"Multi30k{where} has no split")


def splits_of(*languages: str) -> list[str]:
    """Return the splits that exist in all of ``languages``."""
    return [s for s in SPLITS if all(f"{s}.{language}.gz" in CHECKSUMS for language in languages)]


def find_file(root: Path, split: str, language: str) -> Path:
    """Return the verified ``<split>.<language>.gz`` under ``root``, or else the unpacked file.

    The sums are those of the packed files; an unpacked file is taken as it is.

    Raises:
        DragomanError: if neither is there or can be read, or the packed file has the wrong SHA-256.
    """
    packed = root / f"{split}.{language}.gz"
    unpacked = packed.with_suffix("")
    if os.path.exists(unpacked) and not os.path.exists(packed):
        return check_file(unpacked, reread=True)
    try:
        right = remembered_sha256(packed) == CHECKSUMS[packed.name]
    except DragomanError as problem:
        advice = "`make data` fetches Multi30k, data.root names its folder"
        raise DragomanError(f"{problem}; {advice}") from None
    if not right:
        raise DragomanError(
            f"{packed}: not the file of Multi30k (wrong SHA-256); fetch it again with `make data`"
        )
    return packed


def wanted_files(languages: Sequence[str] | None, splits: Sequence[str] | None) -> list[str]:
    """Return the names of the parallel files of languages and splits; ``None`` stands for all.

    Raises:
        DragomanError: for an unknown language or split, and for a split named together with a
            language that does not have it.
    """
    for language in languages or ():
        check_known(language, LANGUAGES, "--languages: Multi30k has no language")
    for split in splits or ():
        check_split(split, languages or ())
    names = [f"{s}.{language}.gz" for s in splits or SPLITS for language in languages or LANGUAGES]
    return [name for name in dict.fromkeys(names) if name in CHECKSUMS]


def fetch(
    root: Path,
    languages: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    *,
    source: str = URL,
    monolingual: bool = True,
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Bring files of Multi30k into ``root``, and those of Task 2 into ``task2`` beside it.

    ``source`` is an http(s) address or a local folder; Task 2 lies beside it too, and is left out
    where ``splits`` are named or it is not wanted. Files that are there and right are left alone,
    wrong ones are replaced, and every file is whole or absent, so the same call goes on after an
    interruption. A file that a folder lacks is passed over with a note, unless its split was asked
    for by name. Returns the paths of the files that are now in place.

    Raises:
        DragomanError: for a selection that does not exist, no network, a server's refusal, a
            wrong checksum, and a folder or disk that cannot be read or written.
    """
    names, root = wanted_files(languages, splits), Path(os.path.expanduser(root))
    source = os.path.expanduser(source)
    if "://" not in source and not os.path.isdir(source):
        raise DragomanError(f"{source}: no such folder to take Multi30k from")
    present = _bring(names, root, source, say)
    missing = set(names).difference(path.name for path in present)
    if missing and (splits is not None or not present):
        raise DragomanError(f"{source}: has no {', '.join(sorted(missing)[:3])}")
    if splits is None and monolingual:
        own = languages or LANGUAGES
        names = [n for n in CHECKSUMS if n.count(".") == 3 and n.split(".")[2] in own]
        beside = source.replace("task1", "task2") if "://" in source else f"{source}/../task2"
        present += _bring(names, root.parent / "task2", beside, say)
    return present


def _bring(names: Sequence[str], root: Path, source: str, say: Callable[[str], None]) -> list[Path]:
    """Fetch or copy files by name, all that a folder has; return what is in place."""
    present: list[Path] = []
    for number, name in enumerate(names, 1):
        path, place = root / name, f"{source.rstrip('/')}/{name}"
        step = f"[{number}/{len(names)}] {name}"
        if os.path.exists(path) and sha256_of(path) == CHECKSUMS[name]:
            say(f"{step}: already there")
        elif "://" not in place and not os.path.exists(place):
            say(f"{step}: skipped, {source} does not have it")
            continue
        else:
            content = _download(place, say) if "://" in place else _copy(Path(place))
            with contextlib.suppress(OSError):  # the next line says why it cannot be written
                path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, content)
            say(f"{step}: fetched, {len(content):,} bytes, checksum right")
        present.append(path)
    say(f"{len(present)} of {len(names)} files are in {root}")
    return present


def _copy(path: Path) -> bytes:
    """Return a local file of Multi30k."""
    if sha256_of(path) != CHECKSUMS[path.name]:
        raise DragomanError(f"{path}: not the file of Multi30k (wrong SHA-256)")
    return path.read_bytes()


def _download(url: str, say: Callable[[str], None]) -> bytes:
    """Return the file of Multi30k at an address; what may pass is tried again."""
    for attempt in range(1, ATTEMPTS + 1):
        passing = True
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
                content = bytes(response.read())
            if hashlib.sha256(content).hexdigest() == CHECKSUMS[url.rpartition("/")[2]]:
                return content
            problem = "the file received has the wrong SHA-256"
        except urllib.error.HTTPError as answer:
            problem = f"the server answered {answer.code} {answer.reason}"
            passing = answer.code >= 500 or answer.code == 429
        except (OSError, ValueError, http.client.HTTPException) as fault:
            problem = f"no connection ({getattr(fault, 'reason', None) or fault})"
            passing = not isinstance(fault, ValueError)  # an address that is none
        if not passing or attempt == ATTEMPTS:
            break
        say(f"{url}: {problem}; trying again")
        time.sleep(BACKOFF_SECONDS * 2 ** (attempt - 1))
    raise DragomanError(
        f"{url}: {problem}; check the address and the network, or take a local copy with "
        "`make data MULTI30K=<folder>`"
    )
