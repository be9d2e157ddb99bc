"""Labels that are vectors, and tables of masks from colours and values."""

import json
import warnings

import numpy as np
import pytest
from PIL import Image

from rssearch import data
from rssearch.config.settings import Patches
from rssearch.errors import InputError
from tests.support.fakes import own_scenes, zipped
from tests.support.files import tiff


def load(root, name="segmentation_folder:scenes"):
    return data.load(name, root, workers=1, patches=Patches(size=8))


@pytest.mark.parametrize("file", ["labels.shp", "images/0.geojson", "masks/town.gpkg", "vectors/a.kml"])
@pytest.mark.parametrize("packed", [False, True])
def test_vectors_in_place_of_masks_are_refused_with_what_makes_masks(tmp_path, file, packed):
    folder = own_scenes(tmp_path)
    for mask in (folder / "masks").iterdir():
        mask.unlink()
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text("{}")
    name = "segmentation_folder:scenes"
    if packed:
        zipped(folder, tmp_path / "z.zip")
        name = "segmentation_folder:z.zip"
    with pytest.raises(InputError, match=rf"{file}: is a vector file .*gdal_rasterize.*rasterio.features.rasterize"):
        load(tmp_path, name)


def test_one_image_whose_label_is_a_vector(tmp_path):
    folder = own_scenes(tmp_path)
    (folder / "masks" / "3.png").unlink()
    (folder / "masks" / "3.geojson").write_text("{}")
    (folder / "masks" / "2.geojson").write_text("{}")
    with pytest.raises(InputError, match=r"masks/3.geojson: is a vector file \(there are .geojson \(2\)\)"):
        load(tmp_path)


def test_vectors_that_masks_were_made_of_are_left_out(tmp_path):
    folder = own_scenes(tmp_path)
    before = load(tmp_path)
    (folder / "labels.geojson").write_text("{}")
    (folder / "masks" / "2.geojson").write_text("{}")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert load(tmp_path).fingerprint == before.fingerprint
    assert any("endings are not read: .geojson (2)" in str(warning.message) for warning in said)


class TestTables:
    def put(self, folder, legend, values, dtype=np.uint8):
        (folder / "classes.json").write_text(json.dumps(legend))
        for number in range(5):
            rows, columns = np.mgrid[:28, :40]
            mask = np.array(values, dtype)[(rows // 4 + columns // 4 + number) % len(values)]
            Image.fromarray(mask).save(folder / "masks" / f"{number}.png")

    def test_colours_to_names_are_the_same_as_names_to_colours(self, tmp_path):
        folder = own_scenes(tmp_path)
        colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
        self.put(folder, {"red": "#FF0000", "green": "#00FF00", "blue": "#0000FF"}, colours)
        first = load(tmp_path)
        self.put(folder, {"#FF0000": "red", "#00ff00": "green", "#0000FF": "blue"}, colours)
        second = load(tmp_path)
        assert (second.classes, second.fingerprint) == (first.classes, first.fingerprint)
        assert first.classes == ("red", "green", "blue")

    def test_several_colours_may_have_one_name(self, tmp_path):
        folder = own_scenes(tmp_path)
        self.put(
            folder,
            {"classes": {"#FF0000": "land", "#00FF00": "land", "#0000FF": "water"}, "ignore": ["#000000", "#FFFFFF"]},
            [(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255)],
        )
        found = load(tmp_path)
        assert found.classes == ("land", "water")
        assert set(np.unique(found.scenes.mask(0))) == {0, 1, 255}
        assert found.scenes.mask(0)[0, [0, 4, 8, 12, 16]].tolist() == [0, 0, 1, 255, 255]

    @pytest.mark.parametrize("legend", [{"#FF0000": "a", "#ff0000": "b"}, {"#FF0000": "a", "b": "#00FF00"}])
    def test_colours_that_are_not_clear_are_refused(self, tmp_path, legend):
        folder = own_scenes(tmp_path)
        self.put(folder, legend, [(255, 0, 0), (0, 255, 0)])
        with pytest.raises(InputError, match=r"stands twice, in upper and in lower case|must be as #RRGGBB"):
            load(tmp_path)

    def test_several_ignored_values_of_16_bits(self, tmp_path):
        folder = own_scenes(tmp_path)
        legend = {"classes": {"10": "trees", "300": "water"}, "ignore": [0, 9999, 65535]}
        self.put(folder, legend, [10, 300, 0, 9999, 65535], np.uint16)
        assert load(tmp_path).scenes.mask(0)[0, [0, 4, 8, 12, 16]].tolist() == [0, 1, 255, 255, 255]

    def test_masks_of_64_bits_are_told_what_to_do(self, tmp_path):
        folder = own_scenes(tmp_path)
        (folder / "masks" / "0.png").unlink()
        content = tiff(np.zeros((28, 40), np.int64))
        (folder / "masks" / "0.tif").write_bytes(content)
        with pytest.raises(InputError, match=r"masks/0.tif: .*save its values with 8, 16 or 32 bits"):
            load(tmp_path)
