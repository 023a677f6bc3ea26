"""Real layers: forward and backward written out, step by step."""
