"""The review page: look at a change map, accept, reject or redraw what was found, label patches for a training.

settings.py security.py   what is served to whom: token, Host, Origin, sizes
folder.py                 the served folder: one result, or many
images.py tiles.py        the pair of images as the detection read it, and pictures of its tiles
store/ changes.py         decisions in SQLite; edits.py redraws, splits, merges; geometry.py checks what comes in
estimate.py export.py     what the review says of the map; reviewed.gpkg and review.json
labels/                   patches that are painted, in the layout of a training set
routes/ schemas.py app.py the REST interface; page/ is the built page, its sources are in `web/`
"""
