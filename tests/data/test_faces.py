"""Procedural faces: fixed, different by database, and informative where they are said to be."""

import pytest
import torch

from critical_periods.core.errors import UserError
from critical_periods.data import FacesDataModule


def ready(**settings):
    data = FacesDataModule(**settings)
    data.setup()
    return data


def test_the_databases_differ_in_balance_labels_style_and_pose():
    posed, wild = ready(), ready(database="wild", samples=1400)
    counts = [data._images["train"].target.bincount().tolist() for data in (posed, wild)]
    assert [max(one) / min(one) for one in counts] == pytest.approx([5, 10], abs=1)
    assert all(len(one) == 7 for one in counts)
    for data in (posed, wild):
        assert data._images["test"].target.bincount().tolist() == [100] * 7
    again = ready(database="wild", samples=70)._images["test"]
    assert torch.equal(again.pixels, wild._images["test"].pixels)
    other = ready(database="wild", samples=70, seed=1)._images["test"]
    assert not torch.equal(other.pixels, again.pixels)
    places = [data.regions("test", torch.arange(700))["mouth"].float() for data in (posed, wild)]
    # The mouth is not always in one place.
    assert places[1].std(0).mean() > 1.5 * places[0].std(0).mean()


@pytest.mark.parametrize("region", ["mouth", "brows"])
def test_only_the_informative_region_tells_the_class(region):
    data = ready(samples=700, informative=[region])
    images = data._images["test"]
    masks = data.regions("test", torch.arange(700))
    assert all(0.02 < mask.float().mean() < 0.15 for mask in masks.values())
    of_class = images.pixels[:, 0].double().view(7, 100, 48, 48)
    # Of each pixel, how much more the means of the classes differ than by chance.
    ratio = 100 * of_class.mean(1).var(0) / of_class.var(1).mean(0)
    for name, mask in masks.items():
        always = mask.float().mean(0) > 0.9
        assert (ratio[always].max() > 8) == (name == region), (name, ratio[always].max())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"database": "wilde"}, "database='wilde' is unknown; did you mean 'wild'"),
        ({"informative": ["nose"]}, "informative names 'nose'; choose one of 'brows', 'eyes'"),
        ({"size": 8}, "size=8 of faces must be at least 24"),
        ({"samples": 5}, "samples=5 of faces must be at least 14"),
    ],
)
def test_bad_settings_are_one_sentence(settings, message):
    with pytest.raises(UserError, match=message):
        FacesDataModule(**settings)
