"""Out-of-core training: features or embeddings lie on the disk, some partitions in memory."""

NAMES = {
    "belady": "gnnbench.approaches.out_of_core.belady:APPROACH",
    "embeddings": "gnnbench.approaches.out_of_core.embeddings:APPROACH",
    "mmap": "gnnbench.approaches.out_of_core.mmap:APPROACH",
    "out-of-core": "gnnbench.approaches.out_of_core.out_of_core:APPROACH",
}
