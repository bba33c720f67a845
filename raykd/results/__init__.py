"""What a run leaves behind: typed Parquet tables, their reader and the statistics of a comparison."""

from raykd.results.reader import Run, Tables, load_runs, open_run
from raykd.results.writer import RunWriter, create_run_dir, new_manifest

__all__ = ["Run", "RunWriter", "Tables", "create_run_dir", "load_runs", "new_manifest", "open_run"]
