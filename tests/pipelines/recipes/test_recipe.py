from dataclasses import replace

import pytest

from pipelines.recipes.recipe import ClipPart, ProposalPart, Recipe, check_licences

RECIPE = Recipe(
    proposals=ProposalPart(source="some/network", licence="CC-BY-NC-4.0", megabytes=190),
    clip=ClipPart(source="ViT-B-32/openai", licence="MIT", megabytes=605),
)


def test_a_licence_that_the_user_excludes_is_named_with_its_part() -> None:
    check_licences(RECIPE, "any")
    free = replace(RECIPE, proposals=replace(RECIPE.proposals, licence="Apache-2.0"))
    check_licences(free, "permissive")
    with pytest.raises(
        ValueError, match=r"^licence: the licence of proposals \(some/network\) is CC-BY-NC-4.0, and only"
    ):
        check_licences(RECIPE, "permissive")
    with pytest.raises(ValueError, match=r"licence of clip \(mine\.pt\) is unknown"):
        check_licences(replace(free, clip=ClipPart(source="mine.pt")), "permissive")


def test_a_working_size_that_no_network_can_see_is_refused() -> None:
    assert RECIPE.megabytes == 795
    with pytest.raises(ValueError, match="short_side: expected at least 32 pixels, got 8"):
        replace(RECIPE, short_side=8)
