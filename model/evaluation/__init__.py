"""Judge models: metrics by prefix, heads, reasons, baselines and the simulator's ground truth."""
