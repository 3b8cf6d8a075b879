"""An output as tables for other programs: Parquet and CSV, one row a clip and one row a stage."""
