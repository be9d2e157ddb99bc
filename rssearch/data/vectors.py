"""Vector labels beside images: they are refused with what makes masks of them."""

from __future__ import annotations

from rssearch.errors import InputError
from rssearch.imaging.contents import Contents, count_endings, ending, shown

__all__ = ["VECTORS", "check_vectors"]

VECTORS = frozenset({".shp", ".geojson", ".gpkg", ".kml", ".gml", ".fgb"})
HOW = (
    "Rasterise it onto the grid of each image: `gdal_rasterize -a ATTRIBUTE -ot Byte -te XMIN YMIN XMAX YMAX -ts WIDTH "
    "HEIGHT LABELS masks/NAME.tif` with the bounds and the size that gdalinfo says of the image, or in Python "
    "rasterio.features.rasterize(shapes, out_shape=image.shape, transform=image.transform); both in the reference "
    "system of the image"
)


def check_vectors(contents: Contents) -> None:
    """Refuse a folder of scenes whose labels are vectors: they have no mask at all, or one of them has none.

    Vector files beside a mask for each image are what the masks were made of, and are left out as other files are.

    Raises:
        InputError: it names the first file, and says how to make masks of it.
    """
    vectors = sorted(path for path in contents.unread if ending(path) in VECTORS)
    if not vectors:
        return
    folders = [path.split("/")[:-1] for path, _ in contents.images]
    masked = any("masks" in parts for parts in folders)
    stems = {path.rpartition("/")[2].partition(".")[0] for path, _ in contents.images if "masks" in path.split("/")}
    pictures = {path.rpartition("/")[2].partition(".")[0] for path, _ in contents.images} - stems
    alone = [path for path in vectors if path.rpartition("/")[2].partition(".")[0] in pictures]
    if not masked or alone:
        raise InputError(
            f"{contents.base}/{shown((alone or vectors)[0])}: is a vector file (there are {count_endings(vectors)}), "
            f"but masks must be images of class values, one for each image and of its size. {HOW}"
        )
