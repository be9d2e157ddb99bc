import os
import pickle
import shutil

import numpy as np
import pytest

from rssearch import data
from rssearch.errors import InputError
from tests.support.fakes import cifar10


@pytest.fixture
def root(tmp_path):
    cifar10(tmp_path)
    return tmp_path


def test_pixels_labels_and_published_test_set(root):
    images = data.load("cifar10", root)
    batch = pickle.loads((root / "cifar-10-batches-py" / "data_batch_2").read_bytes())
    assert np.array_equal(images.images[40:80].reshape(40, -1), batch["data"])
    assert images.labels[40:80].tolist() == batch["labels"]
    assert images.indices["test"].tolist() == list(range(200, 220))
    assert images.classes[3] == "class3"
    assert images.input_shape == (3, 32, 32)


@pytest.mark.parametrize("place", ["cifar10/cifar-10-batches-py", "cifar10", "."])
def test_layouts(root, tmp_path_factory, place):
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(root / "cifar-10-batches-py", other / place, dirs_exist_ok=True)
    assert data.fingerprint("cifar10", other) == data.fingerprint("cifar10", root)


def test_batches_as_python_2_wrote_them_can_be_read(root):
    """The published files hold the pixels as a str of Python 2: opcode BINSTRING."""
    file = root / "cifar-10-batches-py" / "test_batch"
    batch = pickle.loads(file.read_bytes())
    expected = data.load("cifar10", root).images
    raw = batch["data"].tobytes()
    body = (
        b"\x80\x02}(U\x04data"
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x14M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + len(raw).to_bytes(4, "little") + raw + b"tb"
        b"U\x06labels](" + b"".join(b"K" + bytes([label]) for label in batch["labels"]) + b"eu."
    )
    file.write_bytes(body)
    assert np.array_equal(data.load("cifar10", root).images, expected)


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_foreign_code_in_a_batch_is_refused(root):
    file = root / "cifar-10-batches-py" / "data_batch_3"
    file.write_bytes(pickle.dumps({"data": Attack(root / "harm"), "labels": []}))
    with pytest.raises(InputError, match=r"data_batch_3: .*mkdir, not only arrays"):
        data.load("cifar10", root)
    assert not (root / "harm").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"text", pickle.dumps([1]), pickle.dumps({"data": [1], "labels": [1]}), pickle.dumps({"labels": []})],
)
def test_damaged_batch_is_named(root, content):
    (root / "cifar-10-batches-py" / "data_batch_4").write_bytes(content)
    with pytest.raises(InputError, match="data_batch_4: is not a readable CIFAR batch"):
        data.load("cifar10", root)


def test_fewer_labels_than_images(root):
    file = root / "cifar-10-batches-py" / "data_batch_1"
    batch = pickle.loads(file.read_bytes())
    file.write_bytes(pickle.dumps(batch | {"labels": batch["labels"][1:]}))
    with pytest.raises(InputError, match="40 images but 39 labels"):
        data.load("cifar10", root)


def test_scaling(root):
    assert data.load("cifar10", root, input_size=64).images.shape == (220, 3, 64, 64)
