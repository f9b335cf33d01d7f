"""Methods x label fractions x seeds, on one or more data sets -> one table, one plot.

config/           the suite's TOML file
data.py           a suite's data sets -> pairs, VLM labels and splits on disk
job_files.py      a run -> its name and its files
jobs.py           suite -> one recipe per training run
detector_jobs.py  suite -> one job per detector that is not trained
detectors.py      such a detector on the test pairs; pair_mosaic.py: all of them as one raster
worker.py         one run in its own process: `python -m semicdvl.benchmarking.worker JOB.json`
processes.py      several such processes at a time, with progress
run.py            a whole benchmark, from the suite to the report
results.py        outcomes of runs -> results.csv, table.md
significance.py   differences seed by seed -> interval and p
plot.py           -> plot.svg, plot.png
cost_plot.py      -> costs.svg
report.py         -> report.html
"""
