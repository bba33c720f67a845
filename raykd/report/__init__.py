"""The report: what runs have shown, on one page for whoever has to decide."""

from raykd.report.build import build_report

__all__ = ["build_report"]
