"""Kusabi: sparse adapters for frozen vision-language models."""

from importlib.metadata import version

__version__ = version("kusabi")
