"""Exercise checkers: `checks.exercise_2_1(answer)` says whether an answer is right and why, or gives a hint.

Each chapter's checkers are in a module of their own; `EXERCISES` holds all of them by exercise number.
"""

from ._core import EXERCISES as EXERCISES
from ._core import Verdict as Verdict
from .appendix_a import *  # noqa: F403
from .appendix_b import *  # noqa: F403
from .appendix_d import *  # noqa: F403
from .appendix_e import *  # noqa: F403
from .bpe_from_scratch import *  # noqa: F403
from .buffers import *  # noqa: F403
from .ch01 import *  # noqa: F403
from .ch02 import *  # noqa: F403
from .ch03 import *  # noqa: F403
from .ch04 import *  # noqa: F403
from .ch05 import *  # noqa: F403
from .ch06 import *  # noqa: F403
from .ch07 import *  # noqa: F403
from .dpo_preference_tuning import *  # noqa: F403
from .embedding_layer_and_linear_layer import *  # noqa: F403
from .kv_cache import *  # noqa: F403
