"""Numbers in sentences: «1 image», «2 images»."""


def counted(number: int, one: str, more: str = "") -> str:
    """Return a number with its noun; `more`: the plural, where it is not `one` with an s."""
    return f"{number} {one if number == 1 else more or one + 's'}"
