"""Simulated training: plans executed on the lanes and links of a described cluster."""
