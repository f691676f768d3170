"""The recipe that made the embedded backbone; run as ``python -m pretraining``, never imported by the library."""
