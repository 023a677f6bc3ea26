"""Graphs: the object, its profile, readers, generators, partitioners and samplers."""
