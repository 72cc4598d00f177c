"""A best setting at the edge of its grid is told of; one inside is not."""

import pytest

from training.models.edges import at_edge
from training.models.grid_settings import GridSettings
from training.models.tabular_models import Candidate, candidates_of

TRIED = {c.name: [0.5] for c in candidates_of(GridSettings(penalizers=(0.1, 1.0, 10.0), l1_ratios=(0.0, 0.5)))}


def folds(*chosen: str) -> list[dict]:
    return [{"chosen": name, "inner_loss": TRIED} for name in chosen]


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ("cox penalizer=10", "cox penalizer = 10 was chosen in 2 of 3 outer folds, the largest of the grid"),
        ("cox penalizer=0.1 l1_ratio=0.5", "penalizer = 0.1 was chosen in 2 of 3 outer folds, the smallest of"),
        ("boosting trees=100 leaves=4", "boosting trees = 100 was chosen in 2 of 3 outer folds, the largest"),
        ("network steps=15 decay=1", "network steps = 15 was chosen in 2 of 3 outer folds, the smallest"),
    ],
)
def test_what_most_folds_choose_at_the_edge_is_told_with_the_setting_to_widen(chosen: str, words: str) -> None:
    (text,) = at_edge("radiomics", folds(chosen, chosen, "cox penalizer=1"))
    assert text.startswith("radiomics: ") and words in text
    key = {"cox": "penalizers", "boosting": "boosting", "network": "steps"}[chosen.split(maxsplit=1)[0]]
    assert f"widen radiomics.{key} {'upwards' if 'largest' in text else 'downwards'}" in text
    assert f"widen encoder.{key}" in at_edge("encoder", folds(chosen))[0]


def test_inside_the_grid_at_both_ends_or_without_a_grid_nothing_is_told() -> None:
    assert at_edge("radiomics", folds("cox penalizer=1", "cox penalizer=1", "cox penalizer=10")) == ()
    assert at_edge("radiomics", folds("cox penalizer=0.1", "cox penalizer=10")) == ()
    one = Candidate("cox", {"penalizer": 0.3}).name
    assert at_edge("radiomics", [{"chosen": one, "inner_loss": {one: [0.5]}}]) == at_edge("radiomics", []) == ()


def test_a_network_that_was_best_at_its_last_epoch_was_stopped_too_early() -> None:
    def fits(*best: int) -> list[dict]:
        return [{"best_epoch": one, "settings": {"epochs": 40}} for one in best]

    (text,) = at_edge("resnet18", fits(40, 40, 12))
    assert "the last epoch, 40, was chosen in 2 of 3 outer folds" in text and "widen deep.epochs upwards" in text
    assert at_edge("resnet18", fits(39, 40, 12)) == ()
