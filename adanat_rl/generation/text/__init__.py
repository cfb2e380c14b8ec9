"""Captions as context: text encoders, tables of encoded captions, a cache of embeddings."""
