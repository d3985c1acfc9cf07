"""Postgrad: an autonomous post-training researcher."""

__version__ = "0.1.0"
