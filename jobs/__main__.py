"""`python -m jobs` is `nagfarm`, in a checkout that is not installed."""

import sys

from nagfarm import main

sys.exit(main())
