"""Claims of papers as data, judged by measured and predicted results.

A claim is a sentence in our words and tests: inequalities over quantities of two configurations.
The tables are in `gnnbench/catalogue/claims`, one per paper, with the suites that are run.
"""
