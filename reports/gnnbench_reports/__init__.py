"""What the ledgers mean: comparisons, tables, figures and the report page."""
