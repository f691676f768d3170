"""Accuracy of the main job, measured as a user would run it; results are committed beside the scripts."""
