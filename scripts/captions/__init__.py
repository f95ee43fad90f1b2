"""The grammar that the embedded corpus (``data=captions``) was written with."""
