"""Real training, one file per approach."""
