"""Settings of a synthetic city: its size, its seed, how much changes, and how strong each nuisance is."""

from __future__ import annotations

from dataclasses import dataclass, fields

from semicdvl.errors import ConfigError


@dataclass(frozen=True)
class CitySpec:
    """Settings of a synthetic city pair; the same settings give the same bytes.

    Attributes:
        size_px: side, or (height, width), of the images in pixels.
        seed: which city.
        gsd_m: ground sampling distance in metres per pixel.
        epsg: projected coordinate system of the files.
        change_frac: share of the pixels that building change covers; met as closely as whole buildings allow, as far as
            there are enough buildings in the image.
        season: difference of the seasons of the dates: 0 the same, 1 full leaf against bare trees.
        sun_deg: largest difference of the sun's azimuth; the elevation differs by up to 0.4 of it.
        haze: largest share of the light that comes from haze instead of the ground.
        white_balance: standard deviation of the gain of each band on each date.
        noise_dn: standard deviation of sensor noise, in grey values of 255.
        blur_px: largest extra blur of a date, standard deviation of a Gaussian.
        parallax: largest tangent of the view angle: a roof h metres up lies up to `parallax * h` m off its footprint.
        shift_px: length of the misregistration of date 2, in pixels, in a random direction (fractional).
        tree_turnover: share of the trees that are felled or planted between the dates.
        tree_growth: mean relative growth of crowns between the dates.
        field_turnover: share of the fields with another state (crop, ripe, ploughed, stubble) on date 2.
        car_turnover: share of the car positions that are drawn anew for date 2.
        repaint: share of streets, yards and parking lots with another surface, worn or new markings on date 2.
        reroof: share of buildings that stay but get another roof covering.
        garden: share of homes that get or lose a pool, an awning or a trampoline.
        nir: render a fourth band, near infrared, in which leaves are bright and water is dark; red, green and blue stay
            the same to the byte.

    Examples:
        >>> import semicdvl as cd
        >>> cd.CitySpec(size_px=(128, 192), haze=0.0).shape_px
        (128, 192)
    """

    size_px: int | tuple[int, int] = 1024
    seed: int = 0
    gsd_m: float = 0.5
    epsg: int = 32633
    change_frac: float = 0.045
    season: float = 0.7
    sun_deg: float = 40.0
    haze: float = 0.18
    white_balance: float = 0.05
    noise_dn: float = 2.5
    blur_px: float = 0.5
    parallax: float = 0.07
    shift_px: float = 2.0
    tree_turnover: float = 0.08
    tree_growth: float = 0.12
    field_turnover: float = 0.8
    car_turnover: float = 0.75
    repaint: float = 0.25
    reroof: float = 0.03
    garden: float = 0.15
    nir: bool = False

    def __post_init__(self) -> None:
        """Refuse settings out of range.

        Raises:
            ConfigError: a size under 16 px, a negative seed, a non-positive resolution, a share outside 0-1 or a
                negative strength.
        """
        if min(self.shape_px) < 16:
            raise ConfigError(f"size_px is {self.size_px}. A city needs at least 16 px per side.")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}. Give a number from 0.")
        if not 0.05 <= self.gsd_m <= 5:
            raise ConfigError(f"gsd_m is {self.gsd_m}. Give 0.05 to 5 metres per pixel.")
        if self.epsg != type(self).epsg and not _is_projected(self.epsg):
            raise ConfigError("epsg is no number of a projected coordinate system. Give one such as 32633.")
        if not 0 <= self.change_frac <= 0.5:
            raise ConfigError(f"change_frac is {self.change_frac}. Give a share from 0 to 0.5.")
        for name in NUISANCES:
            value = getattr(self, name)
            top = {"sun_deg": 90.0, "noise_dn": 64.0, "blur_px": 5.0, "shift_px": 12.0, "tree_growth": 3.0}.get(
                name, 1.0
            )
            if not 0 <= value <= top:
                raise ConfigError(f"{name} is {value}. Give a number from 0 (off) to {top:g}.")

    @property
    def shape_px(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return (self.size_px, self.size_px) if isinstance(self.size_px, int) else self.size_px


def _is_projected(epsg: int) -> bool:
    """Tell whether a number is that of a projected coordinate system."""
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        return bool(CRS.from_epsg(epsg).is_projected)
    except CRSError:
        return False


_NO_NUISANCES = {"size_px", "seed", "gsd_m", "epsg", "change_frac", "nir"}
NUISANCES = tuple(f.name for f in fields(CitySpec) if f.name not in _NO_NUISANCES)
"""The fields of `CitySpec` by which two images of one place differ without any change in the truth."""
