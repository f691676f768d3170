"""How fast Kusabi is beside stock PEFT on the same model, same threads, same batch: ``make bench-speed``."""
