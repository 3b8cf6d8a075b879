"""`python -m tests.fakes.standin_nagfarm ...`: nagfarm, whose models draw waves at once."""

import sys

from jobs.cli.main import main
from tests.fakes.model import FakeLoader

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], FakeLoader()))
