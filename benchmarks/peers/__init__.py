"""The same FedAvg in raykd, in other toolkits and in bare processes, a script each; `benchmarks/side_by_side.py` runs them.

The others run in environments of their own, with torch and MONAI beside them. Every script prints one line of JSON.
"""
