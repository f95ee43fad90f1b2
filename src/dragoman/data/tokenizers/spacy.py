"""Word tokens by the rules of spaCy's blank pipelines: nothing to download."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dragoman.config import TokenizerConfig
from dragoman.data.tokenizers.base import (
    EOS,
    SPECIALS,
    UNK,
    Cutter,
    Tokenizer,
    escape,
    normalise,
    unescape,
)
from dragoman.errors import DragomanError

JOINER = "￭"  # U+FFED, put before a token that had no space before it


class SpacyCutter(Cutter):
    """Cuts text into spaCy's tokens.

    Form ``joiner`` marks tokens that had no space before them, and so loses nothing. Form ``plain``
    gives the bare strings of the tutorials, whose spacing ``restore_spacing`` can only guess: as
    there, text is lower-cased token by token, and white space beyond one space is a token.
    """

    def __init__(self, language: str, form: str, lowercase: bool) -> None:
        self.language = language
        self.form = form
        self.lowercase = lowercase
        self._rules: Any = None

    @property
    def identity(self) -> str:
        """Rules, their version, form and case."""
        spacy = version("spacy")
        return f"spacy={spacy} {self.language} {self.form} lowercase={self.lowercase}"

    def __call__(self, text: str) -> list[str]:
        """Return the tokens; in form ``joiner`` a U+FFED of the text itself is escaped."""
        if self._rules is None:
            self._rules = spacy_rules(self.language)
        if self.form == "plain":
            document = self._rules(text.strip().replace("\n", " "))
            return [token.lower_ if self.lowercase else token.text for token in document]
        units, glue = [], ""
        for token in self._rules(normalise(text, self.lowercase)):
            whole = token.text_with_ws
            word = whole.rstrip(" ")
            units.append(glue + escape(word, JOINER))
            glue = JOINER if word == whole else ""
        return units


@lru_cache
def spacy_rules(language: str) -> Any:
    """Return spaCy's tokenizer of a language; languages it has no rules for take ``xx``.

    Raises:
        DragomanError: if the language's rules need a package that is not installed.
    """
    import spacy  # costs seconds, and only word models need it

    try:
        import_module(f"spacy.lang.{language}")
    except ImportError:
        return spacy.blank("xx").tokenizer
    try:
        return spacy.blank(language).tokenizer
    except ImportError as problem:
        reason = str(problem).splitlines()[0]
        raise DragomanError(
            f"data.tokenizer.kind: spaCy cannot cut '{language}' ({reason}); use sentencepiece"
        ) from None


class SpacyTokenizer(Tokenizer):
    """A word vocabulary over spaCy's tokens."""

    is_subword = False

    def __init__(self, cutter: SpacyCutter, entries: Sequence[str], tags: Sequence[str]) -> None:
        self.cutter: SpacyCutter = cutter
        self.entries = list(entries)
        self.tags = list(tags)
        # Text that spells a special token or a tag must not become one.
        reserved = len(SPECIALS) + len(self.tags)
        self._ids = {self.entries[i]: i for i in range(reserved, len(self.entries))}

    def __len__(self) -> int:
        return len(self.entries)

    def pieces(self, unit: str) -> list[int]:
        """Return the id of the word, ``UNK`` if the vocabulary lacks it."""
        return [self._ids.get(unit, UNK)]

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Return the words, joiner marks included."""
        return [self.entries[int(index)] for index in ids]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids."""
        first = len(SPECIALS) + len(self.tags)
        words = [int(index) for index in ids if index == UNK or index >= first]
        return self.detokenize(self.tokens(words))

    def detokenize(self, tokens: Sequence[str]) -> str:
        """Return the text of words, known or not."""
        if self.cutter.form == "plain":
            return restore_spacing(tokens)
        spaced = (word[len(JOINER) :] if word.startswith(JOINER) else f" {word}" for word in tokens)
        return " ".join(unescape("".join(spaced), JOINER).split())

    def tag_id(self, tag: str) -> int:
        """Return the id of a tag; tags follow the special tokens."""
        if tag not in self.tags:
            raise DragomanError(f"data.corpora: the vocabulary has no tag '{tag}'; train it anew")
        return EOS + 1 + self.tags.index(tag)

    def files(self, side: str) -> dict[str, bytes]:
        """Return ``vocab.<side>.txt``, a JSON string per line, and ``words.<side>.json``."""
        cutter = self.cutter
        settings = {
            "language": cutter.language,
            "form": cutter.form,
            "lowercase": cutter.lowercase,
            "tags": self.tags,
        }
        lines = [json.dumps(entry, ensure_ascii=False) for entry in self.entries]
        return {
            f"vocab.{side}.txt": "".join(f"{line}\n" for line in lines).encode(),
            f"words.{side}.json": (json.dumps(settings, ensure_ascii=False) + "\n").encode(),
        }

    def restored_fraction(self, lines: Iterable[str]) -> float:
        """Return the fraction of lines whose tokens give back the line (normalised); 1 if none."""
        cut, right, total = self.cutter, 0, 0
        for line in lines:
            right += self.detokenize(cut(line)) == normalise(line, cut.lowercase)
            total += 1
        return right / total if total else 1.0


def train_spacy(
    config: TokenizerConfig, counts: Mapping[str, int], language: str, tags: Sequence[str]
) -> SpacyTokenizer:
    """Make the vocabulary of one side with torchtext's ``Vocab``.

    Order: special tokens, tags, then words by falling frequency and alphabetically.

    Raises:
        DragomanError: if ``min_freq`` leaves no word.
    """
    from torchtext.vocab import Vocab  # imports torch and more; loading a vocabulary does not

    vocab = Vocab(
        Counter(counts),
        max_size=config.max_size,
        min_freq=config.min_freq,
        specials=[*SPECIALS, *tags],
    )
    if len(vocab) == len(SPECIALS) + len(tags):
        raise DragomanError(
            f"data.tokenizer.min_freq: no word occurs {config.min_freq} times, expected at most "
            f"{max(counts.values())}"
        )
    return SpacyTokenizer(
        SpacyCutter(language, config.form, config.lowercase), vocab.itos, tuple(tags)
    )


def load_spacy(folder: Path, side: str, config: TokenizerConfig) -> SpacyTokenizer:
    """Read what ``save`` wrote.

    Raises:
        DragomanError: if a file is missing, corrupt or made for another form or case.
    """
    path = folder / f"vocab.{side}.txt"
    try:
        entries = [json.loads(line) for line in path.read_bytes().decode().split("\n")[:-1]]
        path = folder / f"words.{side}.json"
        settings = json.loads(path.read_bytes())
        cutter = SpacyCutter(settings["language"], settings["form"], settings["lowercase"])
        tags = list(settings["tags"])
    except FileNotFoundError:
        raise DragomanError(f"{path}: no such file") from None
    except OSError as problem:
        raise DragomanError(f"{path}: cannot be read ({problem.strerror})") from None
    except (ValueError, KeyError, TypeError) as problem:
        raise DragomanError(f"{path}: not a saved vocabulary ({problem})") from None
    if tuple(entries[: len(SPECIALS)]) != SPECIALS or not all(isinstance(e, str) for e in entries):
        path = folder / f"vocab.{side}.txt"
        raise DragomanError(f"{path}: not a vocabulary, expected {', '.join(SPECIALS)} first")
    for name in ("form", "lowercase"):
        if settings[name] != getattr(config, name):
            raise DragomanError(
                f"{path}: made with data.tokenizer.{name}={settings[name]}, not "
                f"{getattr(config, name)}"
            )
    return SpacyTokenizer(cutter, entries, tags)


_NO_SPACE_BEFORE = frozenset(".,!?:;)]}%…”»’")
_NO_SPACE_AFTER = frozenset("([{„«“$£€#")
_CLOSED_BY = {'"': '"', "„": "“", "“": "”"}  # opening quote -> its closing one
_ELIDED = frozenset(("c", "d", "j", "l", "m", "n", "s", "t", "qu", "lorsqu", "puisqu"))  # French


def restore_spacing(tokens: Sequence[str]) -> str:
    """Guess the spacing of bare spaCy tokens.

    Punctuation clings to the word before it, opening brackets to the one after them; quotes open
    and close in turn; hyphens and slashes cling to both; a token that begins with an apostrophe
    ('s, 'll) and n't end the word before them, an elided one (l') begins the word after it. Tokens
    of white space are dropped.
    """
    text, glue, closing = "", True, ""
    for token in tokens:
        if token.isspace():
            continue
        cling, glue = glue, False
        if token == closing:
            cling, closing = True, ""
        elif token in _CLOSED_BY:
            glue, closing = True, _CLOSED_BY[token]
        elif token in _NO_SPACE_AFTER or (
            token[-1:] in ("'", "’") and token[:-1].lower() in _ELIDED
        ):
            glue = True
        elif token in ("-", "/"):
            cling = glue = True
        elif token in _NO_SPACE_BEFORE or token == "n't" or token[:1] in ("'", "’"):
            cling = True
        text += token if cling else f" {token}"
    return text.strip()
