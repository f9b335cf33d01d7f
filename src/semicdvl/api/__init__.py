"""The functions that `import semicdvl` offers, one file per topic; the command line calls these and nothing else.

parts.py      build, list and register the exchangeable parts: networks, methods, VLMs, detectors, data sets
images.py     what a caller gives for an image -> what the readers take
detection.py  detect, detect_to_folder, detect_pairs, check_pair, run_demo
labels.py     change_events, pseudo_label, prepare, suggest
review.py     serve, create_review_app
training.py   train, adapt, evaluate, benchmark, export, import_official
"""
