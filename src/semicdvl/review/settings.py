"""What is served, and to whom."""

from __future__ import annotations

import getpass
import ipaddress
import secrets
import socket
from dataclasses import dataclass, field

from semicdvl.ceg.prompts import resolve_prompts
from semicdvl.errors import ConfigError

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8765
DEFAULT_PROMPTS = "buildings"
MAX_REVIEWER_CHARS = 80


def _read_user_name() -> str:
    """Return the name of the user of this machine; "reviewer" where it has none."""
    try:
        return getpass.getuser()[:MAX_REVIEWER_CHARS]
    except (KeyError, OSError):  # a container with a user id that is in no list
        return "reviewer"


@dataclass(frozen=True)
class ServeConfig:
    """The settings of the review page.

    Attributes:
        label: paint labels of patches in place of reviewing changes.
        host: address to listen at. Others than those of this machine itself (127.0.0.1, ::1, localhost) let every
            computer that reaches this one ask; the token of the address is then all that protects the data.
        port: port to listen at; 0: any that is free.
        reviewer: who decides, unless the page says otherwise.
        before: where the image of date 1 is now; None: where the result says.
        after: the same of date 2.
        token: what an address or a request must carry.
        prompts: what the vision-language model looks for where it proposes labels, see `semicdvl list prompts`. A
            training on labels of a map asks for what the map was asked for, unless another set is named here.

    Examples:
        >>> import semicdvl as cd
        >>> cd.ServeConfig(port=9000).is_local
        True
    """

    label: bool = False
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    reviewer: str = field(default_factory=_read_user_name)
    before: str | None = None
    after: str | None = None
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    prompts: str = DEFAULT_PROMPTS

    def __post_init__(self) -> None:
        """Refuse what cannot be served.

        Raises:
            ConfigError: an impossible port, a short token, a name that is too long, or unknown prompts.
        """
        resolve_prompts(prompt_set=self.prompts)  # refuses an unknown set now, and not when something is proposed
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port {self.port} does not exist. Give a number from 0 (any that is free) to 65535.")
        if len(self.token) < 16:
            raise ConfigError("The token is too short to protect anything. Give at least 16 characters, or none.")
        if not 0 < len(self.reviewer) <= MAX_REVIEWER_CHARS:
            raise ConfigError(f"The reviewer's name needs 1 to {MAX_REVIEWER_CHARS} characters.")

    @property
    def is_local(self) -> bool:
        """Whether only this machine itself can reach the page."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def allows_host(self, name: str) -> bool:
        """Tell whether a request may name this machine so: with any other name, a foreign page has rebound its own.

        Args:
            name: of the header Host, without the port.
        """
        name = name.lower().removeprefix("[").removesuffix("]")
        if name in {"localhost", self.host.lower()}:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return not self.is_local and name == socket.gethostname().lower()
        return address.is_loopback or not self.is_local  # a number cannot be rebound
