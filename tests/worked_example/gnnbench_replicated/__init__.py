"""Replicated whole-graph training: every rank holds the graph and a share of the losses."""
