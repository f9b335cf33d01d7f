"""Label files: what is stored in them, and what it means inside of the program.

files.py    reads a change mask or a class map, whole or a window of it
stored.py   the pixels as they are stored, and how they are shown
masks.py    the stored values of a change mask -> 0, 1 and IGNORE
classes.py  the classes of each date: their legend, and what a file of them holds
"""
