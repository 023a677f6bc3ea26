"""Datasets (graphs, edge streams, triples): types, profiles, readers, generators, samplers."""
