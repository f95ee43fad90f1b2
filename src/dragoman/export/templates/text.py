"""From here on the same for all: lines in, lines out, with the tokenizer of the training."""

import sys

if SETTINGS["tokenizer"]["kind"] == "sentencepiece":
    import sentencepiece

    SRC, TGT = (
        sentencepiece.SentencePieceProcessor(model_file=str(FOLDER / SETTINGS["models"][side]))
        for side in ("src", "tgt")
    )

    def encode(line):
        """Return the ids of a line."""
        words = (line.lower() if SETTINGS["tokenizer"]["lowercase"] else line).split()
        return [piece for word in words for piece in SRC.encode(word)]

    def decode(ids):
        """Return the text of ids."""
        return " ".join(TGT.decode(ids).split())

else:  # whole words: only Dragoman puts a sentence together again
    from dragoman.config import TokenizerConfig
    from dragoman.data.tokenizers import load_tokenizer

    WORDS = TokenizerConfig(**SETTINGS["tokenizer"])
    encode = load_tokenizer(FOLDER, "src", WORDS).encode
    decode = load_tokenizer(FOLDER, "tgt", WORDS).decode


def translate(lines):
    """Return the translation of every line; a line without words stays empty."""
    most = len(SETTINGS["longest_target"]) - 1  # tokens of the longest source in training
    rows = [(SETTINGS["tag"] + encode(line))[:most] if line.strip() else [] for line in lines]
    found = iter(search([row for row in rows if row]))
    return [decode(next(found)) if row else "" for row in rows]


if __name__ == "__main__":
    given = sys.stdin.buffer.read().decode("utf-8").split("\n")
    sys.stdout.buffer.write("\n".join(translate(given)).encode("utf-8"))
