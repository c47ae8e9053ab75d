"""What all tests have: properties without deadlines, no terminal, and stores of objects, played by programs.

How long a property's example takes says more of the machine than of the code.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from itertools import count

import boto3
import pytest
from gcp_storage_emulator.server import create_server
from hypothesis import settings
from moto.server import ThreadedMotoServer

os.environ.pop("COLUMNS", None)  # it is 80 in the workers of pytest-xdist
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

S3_KEYS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "us-west-2"}


@pytest.fixture(scope="session")
def s3() -> Iterator[Callable[[], str]]:
    """Makes a bucket, and gives the URI of results in it; who asks has the keys in the environment."""
    server, numbers = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False), count()
    server.start()
    host, port = server.get_host_and_port()

    def bucket() -> str:
        name = f"bucket-{next(numbers)}"
        where = {"LocationConstraint": S3_KEYS["AWS_DEFAULT_REGION"]}
        client = boto3.client(
            "s3",
            endpoint_url=f"http://{host}:{port}",
            aws_access_key_id=S3_KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=S3_KEYS["AWS_SECRET_ACCESS_KEY"],
            region_name=where["LocationConstraint"],
        )
        client.create_bucket(Bucket=name, CreateBucketConfiguration=where)
        return f"s3://{name}/some/results?scheme=http&endpoint_override={host}:{port}"

    yield bucket
    server.stop()


@pytest.fixture(scope="session")
def gs() -> Iterator[Callable[[], str]]:
    """The same on Google's storage, which asks for no keys here."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        host, port = free.getsockname()
    server, numbers = create_server(host, port, in_memory=True, default_bucket="bucket"), count()
    server.start()
    where = f"scheme=http&endpoint_override={host}:{port}&retry_limit_seconds=5"
    yield lambda: f"gs://anonymous@bucket/results-{next(numbers)}?{where}"
    server.stop()
