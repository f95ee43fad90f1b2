"""Lower-cased, punctuation-normalised Moses tokens: the text that papers on Multi30k score.

The data set's own ``lc.norm.tok`` files were made by ``lowercase.perl | normalize-punctuation.perl
-l LANG | tokenizer.perl -l LANG`` (``scripts/task1-tokenize.sh`` of multi30k/dataset, the Moses
scripts of December 2017): hyphens are not split (no ``-a``) and special characters are escaped
(``&apos;``, ``&quot;``). The same chain is built here from sacremoses, the Python port of those
scripts (Koehn et al., ACL 2007, demo session). As a program it does so with standard input:

    python -m dragoman.evaluation.moses de < hypotheses.test_2016_flickr.txt > hypotheses.tok
"""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from dragoman.data.lines import decode_lines
from dragoman.errors import DragomanError

if TYPE_CHECKING:
    from sacremoses import MosesPunctNormalizer, MosesTokenizer


@lru_cache(maxsize=8)
def _tools(language: str) -> tuple[MosesPunctNormalizer, MosesTokenizer]:
    from sacremoses import MosesPunctNormalizer, MosesTokenizer  # compiles its rules: 0.4 seconds

    # The port follows later scripts: those of 2017 turn every single quotation mark that is not
    # between two plain letters into a double one (coup d’œil -> d " œil), and so do the data
    # set's files. perl_parity does so for ’ and keeps the spaces around « » as the script does.
    normalizer = MosesPunctNormalizer(lang=language, perl_parity=True)
    normalizer.substitutions = [
        (pattern, '"' if pattern in "‘‚" else replacement)
        for pattern, replacement in normalizer.substitutions
    ]
    return normalizer, MosesTokenizer(lang=language)


def knows(language: str) -> bool:
    """Whether the Moses scripts have a list of abbreviations for a language."""
    from sacremoses.corpus import NonbreakingPrefixes

    return language in NonbreakingPrefixes().available_langs.values()


def lc_norm_tok(line: str, language: str) -> str:
    """Lower-case, normalise and tokenise one detokenised line; tokens are joined by single spaces.

    ``language`` is a two-letter code; a language the Moses scripts have no list of abbreviations
    for is tokenised with the English list, as the scripts themselves do.
    """
    normalizer, tokenizer = _tools(language)
    # The script sees each line with its newline, which lets its rule for a full stop before a
    # closing quote apply at the end of the line too: »."« becomes »".« in German and French.
    normalised = normalizer.normalize(line.lower().rstrip() + "\n")
    return " ".join(tokenizer.tokenize(normalised))


def describe(language: str) -> str:
    """Return the words that say, beside a signature, what was done to the text first."""
    return (
        f"lower-cased, punctuation-normalised and Moses-tokenised for '{language}' "
        f"with sacremoses {version('sacremoses')}"
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m dragoman.evaluation.moses LANGUAGE < text > tokens")
    try:  # UTF-8, whatever the locale
        for line in decode_lines(sys.stdin.buffer, "standard input"):
            sys.stdout.buffer.write(f"{lc_norm_tok(line, sys.argv[1])}\n".encode())
    except DragomanError as problem:
        sys.exit(f"error: {problem}")
