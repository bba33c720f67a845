"""Measurements that the documentation quotes: ratios of things timed in one run, never absolute promises."""
