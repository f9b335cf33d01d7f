"""What all tests share: properties are not timed, since a loaded machine is not a fault of the code."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
