"""The functions that `import semicdvl` offers, one file per topic; the command line calls these and nothing else.

detection.py        detect, detect_to_folder, detect_pairs, check_pair, run_demo
labels.py           change_events, pseudo_label, prepare, suggest
review.py           serve, create_review_app
training.py         train, adapt, export, import_official
evaluation.py       evaluate, evaluate_map, draw_sample, benchmark
project.py          start a project: a folder with a commented recipe
parts.py            build the exchangeable parts: networks, methods, VLMs, detectors, data sets
registries.py       list the parts that are known by name, and register your own
trained_network.py  a trained network that also predicts from plain images
images.py           what a caller gives for an image -> what the readers take
"""
