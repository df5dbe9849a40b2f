"""Code that only judges models: metrics by prefix, heads, reasons, baselines and the simulated truth."""
