"""An S3 of our own on loopback, for tests."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The URL of an empty bucket; this process and its children find it by their environment."""
    command = [sys.executable, "-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert server.stdout is not None
        found = next(match for line in server.stdout if (match := re.search(r"http://127\.0\.0\.1:\d+", line)))
        threading.Thread(target=server.stdout.read, daemon=True).start()  # it logs each request
        environment = {
            "AWS_ENDPOINT_URL": found[0],
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.delenv("AWS_PROFILE", raising=False)
            import fsspec

            fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True).mkdir("bucket")
            yield "s3://bucket"
            fsspec.get_filesystem_class("s3").clear_instance_cache()  # the next server has another port
    finally:
        server.terminate()
        server.wait()
