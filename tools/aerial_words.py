"""List the words of the embedded model, the concepts that a UC Merced scene may show, and the nouns of the table."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CONCEPTS: dict[str, tuple[str, ...]] = {
    "building": (
        "building", "house", "roof", "warehouse", "home", "apartment building", "rooftop", "factory", "houses",
        "buildings", "shed", "residential building", "industrial building",
    ),
    "road": (
        "road", "street", "pavement", "asphalt", "highway", "parking lot", "runway", "driveway", "roads", "sidewalk",
    ),
    "tree": ("tree", "trees", "forest", "woodland", "tree canopy", "woods"),
    "grass": ("grass", "lawn", "meadow", "golf course", "grassland", "park"),
    "crop": ("farmland", "crop field", "agricultural field", "plantation", "crops", "field"),
    "soil": ("bare soil", "soil", "dirt", "bare land", "desert", "bare ground", "ground", "land"),
    "sand": ("sand", "beach", "sandy ground", "dune"),
    "shrub": ("shrub", "chaparral", "scrub", "bushes", "shrubland"),
    "water": ("water", "river", "sea", "lake", "pond", "ocean"),
    "car": ("car", "cars", "vehicle", "truck", "parked cars"),
    "boat": ("boat", "ship", "boats", "yacht"),
    "airplane": ("airplane", "aircraft", "plane", "jet"),
    "tank": ("storage tank", "oil tank", "tank", "silo"),
    "court": ("tennis court", "sports court", "basketball court"),
}  # fmt: skip
"""Trained words by concept. "swimming pool", "pool", "villa", "canal", "bridge", ... are left out on purpose: asked
for in the model card, they tell how far the words carry."""

COARSE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "building": (("building",), CONCEPTS["building"]),
    "road": (("road",), CONCEPTS["road"]),
    "vegetation": (("tree", "grass", "crop", "shrub"), ("vegetation", "plants", "greenery")),
    "land": (("soil", "sand"), ("land", "bare land", "unpaved area", "bare earth")),
    "water": (("water",), CONCEPTS["water"]),
}
"""The five Dubai classes: concepts that each covers, and words for the class itself."""

DUBAI_COLOURS = {
    (226, 169, 41): "water", (132, 41, 246): "land", (110, 193, 228): "road",
    (60, 16, 152): "building", (254, 221, 58): "vegetation",
}  # fmt: skip
"""RGB in the mask files (the colours in classes.json are not those of the files); (155, 155, 155) is unlabelled."""

SCENES: dict[str, tuple[str, dict[str, float]]] = {
    "agricultural": ("crop soil grass tree", {"crop": 0.4}),
    "airplane": ("airplane road building car grass soil", {"airplane": 0.05, "road": 0.3}),
    "baseballdiamond": ("grass soil tree road car", {"grass": 0.2, "soil": 0.05}),
    "beach": ("sand water", {"sand": 0.2, "water": 0.2}),
    "buildings": ("building road car tree grass soil", {"building": 0.25, "road": 0.05}),
    "chaparral": ("shrub soil sand", {"shrub": 0.2, "soil": 0.1}),
    "denseresidential": ("building road car tree grass soil water", {"building": 0.25}),
    "forest": ("tree", {"tree": 0.5}),
    "freeway": ("road car grass tree soil", {"road": 0.3, "car": 0.005}),
    "golfcourse": ("grass sand tree road water", {"grass": 0.3}),
    "harbor": ("boat water road car", {"boat": 0.2, "water": 0.1}),
    "intersection": ("road car building tree grass soil", {"road": 0.3, "car": 0.01}),
    "mediumresidential": ("building road car tree grass soil water", {"building": 0.15, "grass": 0.05, "tree": 0.05}),
    "mobilehomepark": ("building road car tree grass soil", {"building": 0.25}),
    "overpass": ("road car grass tree soil", {"road": 0.3}),
    "parkinglot": ("road car tree grass", {"road": 0.2, "car": 0.2}),
    "river": ("water tree grass soil sand shrub", {"water": 0.15, "tree": 0.1}),
    "runway": ("road grass soil", {"road": 0.25}),
    "sparseresidential": ("building road car tree grass soil shrub water", {"building": 0.04, "tree": 0.1}),
    "storagetanks": ("tank building road car grass soil tree water", {"tank": 0.06}),
    "tenniscourt": ("court building road car tree grass soil", {"court": 0.15}),
}
"""Per UC Merced class: the concepts that it may show, and the share of the scene that certainly shows a concept."""

CONCEPT_NAMES = tuple(CONCEPTS)
SCENE_NAMES = tuple(SCENES)
COARSE_NAMES = tuple(COARSE)
SETS: dict[str, str] = {
    "no building": " ".join(name for name in CONCEPTS if name != "building"),
    "bare or paved": "soil sand road",
    "paved or parked": "road car",
    "ground": "grass crop soil sand shrub",
    "object": "car boat airplane",
    "field": "crop soil grass",
}
"""Further sets of allowed concepts, of what is drawn and of what our own outlines tell apart."""
SET_NAMES = tuple(SETS)
FIRST_SCENE, FIRST_COARSE = len(CONCEPT_NAMES), len(CONCEPT_NAMES) + len(SCENE_NAMES)
FIRST_SET = FIRST_COARSE + len(COARSE_NAMES)
FIRST_OPEN = FIRST_SET + len(SET_NAMES)
LABEL_COUNT = FIRST_OPEN + len(SCENE_NAMES)
"""A label id means a set of allowed concepts: 0.. a concept itself, then the scenes, the Dubai classes, the sets, and
the scenes without "building" (places where a scene surely shows none)."""
UNLABELLED = 255


def allowed_matrix() -> Tensor:
    """Return a bool matrix (label id, concept): which concepts a pixel with this label may show."""
    matrix = torch.zeros(LABEL_COUNT, len(CONCEPTS), dtype=torch.bool)
    matrix[:FIRST_SCENE] = torch.eye(len(CONCEPTS), dtype=torch.bool)
    for row, (names, _) in enumerate(SCENES.values(), FIRST_SCENE):
        matrix[row, [CONCEPT_NAMES.index(name) for name in names.split()]] = True
    for row, (names, _) in enumerate(COARSE.values(), FIRST_COARSE):
        matrix[row, [CONCEPT_NAMES.index(name) for name in names]] = True
    for row, names_joined in enumerate(SETS.values(), FIRST_SET):
        matrix[row, [CONCEPT_NAMES.index(name) for name in names_joined.split()]] = True
    matrix[FIRST_OPEN:] = matrix[FIRST_SCENE:FIRST_COARSE]
    matrix[FIRST_OPEN:, CONCEPT_NAMES.index("building")] = False
    return matrix


def coarse_of_label() -> NDArray[np.int64]:
    """Return, per label id, the Dubai class that it certainly means, or -1."""
    allowed = allowed_matrix().numpy()
    result = np.full(len(allowed), -1)
    for index, (names, _) in enumerate(COARSE.values()):
        members = [CONCEPT_NAMES.index(name) for name in names]
        outside = np.delete(allowed, members, axis=1).any(axis=1)
        result[~outside] = index
    return result


def draw_words(synonyms: list[tuple[str, ...]], rng: np.random.Generator) -> list[str]:
    """Return one synonym for each concept."""
    return [words[rng.integers(len(words))] for words in synonyms]


NOUNS = """
aerial image, aircraft, airfield, airplane, airport, alley, animal, antenna, apartment, apartment building, apron,
aqueduct, arable land, archipelago, arena, asphalt, athletic field, avenue, backyard, badlands, balcony, bank, bare
earth, bare ground, bare land, bare rock, bare soil, barge, barn, barrack, barrier, baseball diamond, baseball field,
basin, basketball court, bay, beach, bicycle path, billboard, block of flats, boat, boats, bog, boulder, boulevard,
bridge, brook, brush, building, building under construction, buildings, built-up area, bulldozer, bungalow, bus, bus
station, bush, bushes, cabin, campsite, canal, canopy, canyon, car, car park, caravan, cargo ship, carport, cars,
castle, cathedral, cemetery, chalet, channel, chaparral, chapel, chimney, church, city, city block, clearing, cliff,
cloud, clouds, coast, coastline, commercial area, commercial building, concrete, construction, construction site,
container, container terminal, containers, coral reef, cornfield, cottage, court, courtyard, crane, creek, crop, crop
field, crops, crossroads, crosswalk, cul-de-sac, dam, debris, deciduous forest, deck, delta, depot, desert, detached
house, dirt, dirt road, ditch, dock, dome, driveway, dry grass, dry land, dump, dune, dunes, dwelling, earth,
earthworks, embankment, estate, estuary, evergreen forest, excavation, excavator, facade, facility, factory, fairway,
farm, farm building, farmhouse, farmland, farmyard, fence, ferry, field, fields, firebreak, flat roof, flood, flooded
area, floodplain, flower bed, fog, football field, footpath, foreground, forest, forest road, fountain, freeway,
furrow, gable roof, garage, garden, gardens, gas station, glacier, glasshouse, golf course, granary, grass, grassland,
gravel, gravel road, grazing land, green space, greenery, greenhouse, greenhouses, ground, grove, guardrail, gutter,
habitation, hall, hangar, harbor, harbour, haystack, hedge, hedgerow, helicopter, helipad, highway, hill, hillside,
hipped roof, home, homes, horizon, hospital, hotel, house, houses, housing, housing estate, hut, ice, impervious
surface, industrial area, industrial building, industrial park, inlet, intersection, irrigated field, island, jetty,
junction, junkyard, lagoon, lake, land, landfill, landslide, lane, lawn, leaves, levee, library, lighthouse, logistics
center, low vegetation, mall, mangrove, mansion, manufactured home, marina, market, marsh, meadow, metal roof,
military base, mill, mine, mobile home, mobile homes, monastery, mosque, motorway, mountain, mountains, mud, museum,
neighborhood, ocean, office, office building, oil tank, open space, orchard, outbuilding, overpass, paddy field,
palace, palm tree, palm trees, parcel, park, parked cars, parking, parking garage, parking lot, pasture, path, patio,
pavement, paving, peninsula, person, people, pier, pine tree, pipeline, pitch, plain, plane, plantation, plants,
playground, plaza, ploughed field, pond, pool, port, power line, power plant, prairie, prison, promenade, quarry,
quay, race track, railroad, railway, railway line, railway station, railway track, ranch, ravine, recreation area, red
roof, reef, refinery, reservoir, residence, residential area, residential building, residential buildings, resort,
restaurant, rice field, ridge, river, riverbank, road, road marking, roads, rock, rocks, roof, roofs, rooftop,
rooftops, roundabout, row of trees, rubble, ruin, ruins, runway, sailboat, salt marsh, sand, sandbar, sandy ground,
savanna, sawmill, school, scrub, scrubland, sea, seashore, seawater, sediment, settlement, sewage plant, shack, shade,
shadow, shadows, shed, sheds, ship, shipping container, ships, shipyard, shop, shopping center, shopping mall, shore,
shoreline, shrub, shrubland, shrubs, sidewalk, silo, silos, skyscraper, slope, slum, smoke, snow, soccer field, soil,
solar farm, solar panel, solar panels, spire, sports court, sports field, square, stable, stadium, station, statue,
steppe, stone, storage building, storage tank, storage tanks, store, stream, street, streets, structure, structures,
suburb, supermarket, surface, swamp, swimming pool, swimming pools, synagogue, tank, tanks, temple, tennis court,
tennis courts, tent, tents, terminal, terminal building, terrace, terraced house, tidal flat, tile roof, timber, toll
booth, tower, tower block, town, townhouse, track, traffic, trail, trailer, trailer park, train, train station,
trains, tree, tree canopy, trees, truck, trucks, tundra, tunnel, turf, university, unpaved area, unpaved road, urban
area, valley, van, vegetable garden, vegetation, vehicle, vehicles, viaduct, village, villa, villas, vineyard,
volcano, wall, walkway, warehouse, warehouses, wasteland, wastewater plant, water, water body, water tank, water
tower, watercourse, waterway, wave, waves, weeds, wetland, wharf, wheat field, wild grass, wildfire, wind farm, wind
turbine, windmill, wood, woodland, woods, workshop, yacht, yard
"""


def list_words() -> list[str]:
    """Return the words of the shipped table: the list above and every trained word, sorted, each once."""
    listed = {" ".join(word.split()) for word in NOUNS.replace("\n", " ").split(",")}
    trained = {word for words in CONCEPTS.values() for word in words} | {w for _, ws in COARSE.values() for w in ws}
    return sorted((listed | trained) - {""})
