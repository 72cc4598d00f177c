"""How far a stage has come."""

from collections.abc import Callable

#: `told(what, done, total)`. A comma ends the stage's name: "Fitting, loss 0.31".
ProgressCallback = Callable[[str, int, int], None]
