"""Records of a fit, one per step."""
