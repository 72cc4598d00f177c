"""Numbers in sentences."""

from dicomnode.plural import counted


def test_one_is_one_and_all_others_are_several() -> None:
    assert [counted(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert [counted(n, "study", "studies") for n in (1, 3)] == ["1 study", "3 studies"]
