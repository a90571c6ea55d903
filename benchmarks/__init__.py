"""Speed and memory of the course's code beside public peers; `make bench` runs all and writes RESULTS.md."""

import os

os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported; bars would be timed too
