"""Translate standard input line by line: python translate.py < in.txt > out.txt"""

import json
from collections import defaultdict
from pathlib import Path

import ctranslate2

FOLDER = Path(__file__).resolve().parent
SETTINGS = json.loads((FOLDER / "translate.json").read_text(encoding="utf-8"))
MODEL = ctranslate2.Translator(str(FOLDER), compute_type=SETTINGS["compute_type"])


def vocabulary(side):
    """Return the tokens in the order of their ids; equal sides have one file."""
    path = FOLDER / f"{side}_vocabulary.json"
    path = path if path.exists() else FOLDER / "shared_vocabulary.json"
    return json.loads(path.read_text(encoding="utf-8"))


SOURCE = vocabulary("source")
TARGET = {token: number for number, token in enumerate(vocabulary("target"))}


def search(rows):
    """Return the target ids of rows of source ids."""
    groups = defaultdict(list)  # CTranslate2 has one limit for all that it translates at once
    for number, row in enumerate(rows):
        groups[SETTINGS["longest_target"][len(row)]].append(number)
    found = {}
    for longest, numbers in groups.items():
        best = MODEL.translate_batch(
            [[SOURCE[token] for token in rows[number]] for number in numbers],
            max_batch_size=64,
            max_decoding_length=longest,
            return_end_token=True,  # so that lengths count it, as Dragoman's do
            **SETTINGS["search"],
        )
        for number, one in zip(numbers, best):
            found[number] = [
                TARGET[token] for token in one.hypotheses[0] if token != SETTINGS["end"]
            ]
    return [found[number] for number in range(len(rows))]
