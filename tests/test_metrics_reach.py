import numpy as np
import pytest

from cae_cli.metrics.reach import reach_statistics


def test_pixels_count_by_what_the_images_show_there():
    images = np.random.default_rng(0).random((500, 4, 6, 2))
    images[:, :, 3:] = 0.5  # the right half is the same in every image
    unread, unreached = np.zeros((2, 4, 6), bool)
    unread[1], unread[:, 5] = True, True
    found = reach_statistics(unread, unreached, images, images, is_exact=True)
    assert found.unread == pytest.approx(1 / 4, abs=0.02) and found.unreached == 0
    assert (found.rows, found.columns) == (1, 1) and found.pixels == 9 / 24
    # What is found counts though a layer is not known; what is not found is not known then.
    assert reach_statistics(unread, unreached, images, images, is_exact=False) == found
    black = reach_statistics(unread, unreached, 0 * images, 0 * images, is_exact=True)
    assert black.unread == 0
