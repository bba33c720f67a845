"""What a run leaves behind: typed Parquet tables, their reader and the statistics of a comparison."""
