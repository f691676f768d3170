"""Numbers with intervals. No torch."""
