"""Methods x label fractions x seeds, on one or more data sets -> one table, one plot.

config.py   the suite's TOML file
data.py     a suite's data sets -> pairs, VLM labels and splits on disk
job_files.py    a run -> its name and its files
plan.py     suite -> one recipe per run
detectors.py    what is not trained, on the same test pairs; side.py: all of them as one raster
work.py     one run, in a process of its own; `python -m semicdvl.benchmarking.worker JOB.json`
run.py      all runs: side by side, resumed, with progress
results.py  outcomes of runs -> results.csv, table.md
significance.py  differences seed by seed -> interval and p
plot.py     -> plot.svg, plot.png
cost_plot.py     -> costs.svg
page.py     -> report.html
"""
