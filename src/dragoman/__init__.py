"""Dragoman trains translation models end to end: raw sentence pairs in, a signed BLEU score out."""

__version__ = "0.1.0"
