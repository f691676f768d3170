"""Whole jobs, straight line: start reading here."""
