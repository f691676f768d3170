"""What is frozen: models, their preprocessing and their digests."""
