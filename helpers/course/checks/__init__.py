"""Exercise checkers: `checks.exercise_2_1(answer)` says whether an answer is right and why, or gives a hint.

Each notebook's checkers are in a module of their own, under its name in notebooks/: exercise_2_1 and self_test_2 in
ch02.py, exercise_bpe_1 and self_test_bpe in bpe_from_scratch.py. `checks.progress()` shows what you have solved.
"""

from importlib import import_module
from pkgutil import iter_modules

from ..progress import progress as progress
from ..progress import uncounted as uncounted
from ._core import EXERCISES, SELF_TESTS
from ._core import Verdict as Verdict

for _module in iter_modules(__path__):  # a module enters its checkers into EXERCISES and its quiz into SELF_TESTS
    import_module(f"{__name__}.{_module.name}")

globals().update({check.__name__: check for check in (*EXERCISES.values(), *SELF_TESTS.values())})
