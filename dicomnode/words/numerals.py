"""Numbers in sentences: with their nouns («1 image», «2 images»), and beside the limit that they miss."""

_MOST_DECIMALS = 4


def plural(count: float, one: str, many: str = "") -> str:
    """Return the number and what it counts: `plural(1, "image")` is "1 image", `plural(3, "image")` "3 images".

    Args:
        count: of them. A number that is not whole is plural: "1.5 days".
        one: the noun of one, with the words before it, or with its verb ("image is").
        many: of none or several; "" for `one` with an s.
    """
    number = f"{count:d}" if isinstance(count, int) else f"{count:.15g}"
    return f"{number} {one if number == '1' else many or f'{one}s'}"


def apart(value: float, limit: float, decimals: int = 0) -> str:
    """Return a number with so many decimals, and more where it would read as its limit: "10.3", not "10" (over 10).

    Args:
        value: what is on the wrong side of the limit.
        limit: as the sentence states it.
        decimals: that a reader needs elsewhere.
    """
    while decimals < _MOST_DECIMALS and value != limit and round(value, decimals) == round(limit, decimals):
        decimals += 1
    return f"{value:.{decimals}f}"
