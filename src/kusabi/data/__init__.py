"""Folders and Hub datasets become examples, splits, prompts and views. No torch."""
