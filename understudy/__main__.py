"""`python -m understudy` is the `understudy` command; the supervisor starts children this way."""

import sys

from understudy.cli import main

sys.exit(main())
