"""Published measurements: read them, tell which software made them, score predictions of them."""
