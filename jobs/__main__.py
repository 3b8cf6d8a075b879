"""`python -m jobs` is `nagfarm`, for `ray job submit`."""

import sys

from jobs.cli.main import main

sys.exit(main())
