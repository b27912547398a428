"""Which build this is."""

import os

from common import __version__

VERSION = __version__
COMMIT_HASH = os.environ.get("COREMOND_COMMIT_HASH", "unknown")
"""Set where the bundle is built: by the image, and by make."""
BUILD_DATE = os.environ.get("COREMOND_BUILD_DATE", "unknown")
"""Set likewise; RFC 3339."""
