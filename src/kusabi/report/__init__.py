"""Evaluations become one page. No torch."""
