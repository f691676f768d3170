"""What is trained: pure torch, knows no data and no files of runs."""
