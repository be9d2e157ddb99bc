"""``python -m rssearch`` is ``rssearch``."""

from rssearch.cli import main

main()
