"""Results as flat tables for pandas, DuckDB and other readers of Parquet or CSV.

OUT/runs.parquet                one row per run
OUT/predictions.parquet         one row per prediction
OUT/periods.parquet             one row per period of a run or prediction
OUT/steps/measured/ID.parquet   one row per executed step of a run, all ranks: its ledgers
OUT/steps/predicted/ID.parquet  one row per simulated step of a prediction, of the ranks kept
OUT/columns.csv                 every column of every table: type, unit, meaning
OUT/README.md                   how the tables are read and joined

Without pyarrow the tables are CSV.
"""
