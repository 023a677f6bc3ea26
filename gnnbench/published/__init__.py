"""Published measurements: read them, say which software made them, and score predictions of them."""
