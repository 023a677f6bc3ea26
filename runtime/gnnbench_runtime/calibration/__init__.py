"""Measure the present machine: probe workloads, collectives, and the fit of both into a cluster."""
