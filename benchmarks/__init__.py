"""Speed and memory, measured. Nothing here is asserted in a test; see README.md for figures and how to read them."""

import os

# Where this is set (in containers it often is), each measured process would compile all that it imports anew, and
# programs that import much would look slow. Without it the round that warms up leaves the compiled files.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
