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
    SPECIALS,
    UNK,
    Cutter,
    Tokenizer,
    escape,
    normalise,
    unescape,
)
from dragoman.errors import DragomanError
from dragoman.files import read_bytes

_SETTINGS = ("language", "form", "lowercase")  # of a cutter, as they are saved
JOINER = "￭"  # U+FFED, put before a token that had no space before it


class SpacyCutter(Cutter):
    """Cuts text into spaCy's tokens.

    Form ``joiner`` marks tokens that had no space before them, and so loses nothing. Form ``plain``
    gives the bare strings of the tutorials, whose spacing ``restore_spacing`` can only guess: as
    there, text is lower-cased token by token, and white space beyond one space is a token.
    """

    def __init__(self, language: str, form: str, lowercase: bool) -> None:
        self.language, self.form, self.lowercase = language, form, lowercase
        self.identity = f"spacy={version('spacy')} {language} {form} lowercase={lowercase}"

    def __call__(self, text: str) -> list[str]:
        """Return the tokens; in form ``joiner`` a U+FFED of the text itself is escaped."""
        rules = spacy_rules(self.language)
        if self.form == "plain":
            document = rules(text.strip().replace("\n", " "))
            return [token.lower_ if self.lowercase else token.text for token in document]
        units, glue = [], ""
        for token in rules(normalise(text, self.lowercase)):
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

    def __init__(self, cutter: SpacyCutter, entries: list[str], tags: list[str]) -> None:
        self.cutter: SpacyCutter = cutter
        self.entries, self.tags = entries, tags
        # Text that spells a special token or a tag must not become one.
        first = len(SPECIALS) + len(tags)
        self._ids = {word: first + place for place, word in enumerate(entries[first:])}

    @staticmethod
    def make_cutter(config: TokenizerConfig, language: str) -> SpacyCutter:
        """Return spaCy's rules in the form and case of ``config``."""
        return SpacyCutter(language, config.form, config.lowercase)

    @classmethod
    def train(
        cls, config: TokenizerConfig, counts: Mapping[str, int], language: str, tags: Sequence[str]
    ) -> SpacyTokenizer:
        """Make the vocabulary with torchtext's ``Vocab``.

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
                f"data.tokenizer.min_freq: no word occurs {config.min_freq} times, expected at "
                f"most {max(counts.values())}"
            )
        return cls(cls.make_cutter(config, language), vocab.itos, list(tags))

    @classmethod
    def load(cls, folder: Path, side: str, config: TokenizerConfig) -> SpacyTokenizer:
        """Read the two files that ``files`` describes.

        Raises:
            DragomanError: if one is missing, corrupt or made for another form or case.
        """
        path = folder / f"vocab.{side}.txt"
        try:
            entries = [json.loads(line) for line in read_bytes(path).decode().split("\n")[:-1]]
            if tuple(entries[: len(SPECIALS)]) != SPECIALS:
                raise ValueError(f"expected {', '.join(SPECIALS)} first")
            for number, entry in enumerate(entries, 1):
                if not isinstance(entry, str) or "\n" in entry:
                    raise ValueError(f"line {number} is no word but {entry!r:.60}")
            path = folder / f"words.{side}.json"
            made = json.loads(read_bytes(path))
            cutter = SpacyCutter(*(made[key] for key in _SETTINGS))
            tags = list(made["tags"])
        except (ValueError, KeyError, TypeError) as problem:
            raise DragomanError(f"{path}: not a saved vocabulary ({problem})") from None
        for name in ("form", "lowercase"):
            if made[name] != getattr(config, name):
                raise DragomanError(
                    f"{path}: made with data.tokenizer.{name}={made[name]}, not "
                    f"{getattr(config, name)}"
                )
        return cls(cutter, entries, tags)

    def files(self, side: str) -> dict[str, bytes]:
        """Return ``vocab.<side>.txt``, a JSON string per line, and ``words.<side>.json``."""
        made: dict[str, object] = {key: getattr(self.cutter, key) for key in _SETTINGS}
        made["tags"] = self.tags
        lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in self.entries]
        return {
            f"vocab.{side}.txt": "".join(lines).encode(),
            f"words.{side}.json": (json.dumps(made, ensure_ascii=False) + "\n").encode(),
        }

    def __len__(self) -> int:
        return len(self.entries)

    def pieces(self, unit: str) -> list[int]:
        """Return the id of the word, ``UNK`` if the vocabulary lacks it."""
        return [self._ids.get(unit, UNK)]

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Return the words, joiner marks included."""
        return [self.entries[int(index)] for index in ids]

    def detokenize(self, tokens: Sequence[str]) -> str:
        """Return the text of words, known or not."""
        if self.cutter.form == "plain":
            return restore_spacing(tokens)
        spaced = (word[len(JOINER) :] if word.startswith(JOINER) else f" {word}" for word in tokens)
        return " ".join(unescape("".join(spaced), JOINER).split())

    def restored_fraction(self, lines: Iterable[str]) -> float:
        """Return the fraction of lines whose tokens give back the line (normalised); 1 if none."""
        cut, right, total = self.cutter, 0, 0
        for line in lines:
            right += self.detokenize(cut(line)) == normalise(line, cut.lowercase)
            total += 1
        return right / total if total else 1.0


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
