"""Options of parts that are built by name: words become what the builder's annotations say, or are refused."""

from __future__ import annotations

import re
from typing import Any

import pytest

from semicdvl.checkpoint import build_untrained_network
from semicdvl.errors import ConfigError


def test_words_become_numbers_and_truths() -> None:
    light = build_untrained_network({"name": "siam_light", "train_heads": "False", "decoder_channels": "8"})
    plain = build_untrained_network({"name": "siam_light", "train_heads": False, "decoder_channels": 8})
    assert [*light.state_dict()] == [*plain.state_dict()]
    assert not any("segmentation" in name for name in light.state_dict())


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"name": "fc_ef", "width": "wide"}, "model 'fc_ef', width = 'wide': Input should be a valid integer"),
        ({"name": "fc_ef", "width": 1.5}, "width = 1.5: Input should be a valid integer"),
        ({"name": "stanet", "attention": "all"}, "attention = 'all': Input should be 'pam' or 'bam'"),
        ({"name": "changeformer", "widths": 3}, "widths = 3: Input should be a valid tuple"),
        ({"name": "fc_ef", "depth": 3}, "has no option 'depth'"),
    ],
)
def test_what_is_no_value_of_an_option_is_refused(part: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        build_untrained_network(part)
