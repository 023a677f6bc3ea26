"""Published measurements: read them, find the run that each describes, score its prediction."""
