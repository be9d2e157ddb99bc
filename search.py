"""`rssearch search`, as a script for `ray submit cluster.yaml search.py SPACE`.

Ray copies this file alone to the cluster's head, so it only calls the installed package.
"""

import sys

from rssearch.cli import main

main(["search", *sys.argv[1:]])
