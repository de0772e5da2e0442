"""Small pictures of probes that are images."""

import base64
import io

import numpy as np
from torch import Tensor
from torch.nn.functional import interpolate

LARGEST = 48
_MOST_EXACT = 2000  # images beyond which a page of them must be small


def thumbnails(inputs: Tensor) -> np.ndarray | None:
    """Return images [N, c, h, w] (c = 1 or 3) as uint8 [N, h, w, c] of at most 48 pixels a side, else None.

    Pixels in bytes are shown as they are; other images are stretched each to its own range, for models see normalised
    pixels.
    """
    if inputs.ndim != 4 or inputs.shape[1] not in (1, 3) or min(inputs.shape[2:]) < 4:
        return None
    images = inputs.detach().float()
    if max(images.shape[2:]) > LARGEST:
        images = interpolate(images, scale_factor=LARGEST / max(images.shape[2:]), mode="area")
    if not inputs.is_floating_point():
        return images.round().byte().permute(0, 2, 3, 1).cpu().numpy()
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    scaled = (images - low) / (high - low).clamp_min(1e-12) * 255
    return scaled.round().byte().permute(0, 2, 3, 1).cpu().numpy()


def encode(images: np.ndarray) -> list[str]:
    """Return each image [h, w, c] as a data URI: without loss (PNG), or as JPEG where there are more than 2,000."""
    from PIL import Image

    kind = "png" if len(images) <= _MOST_EXACT else "jpeg"
    uris = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, format=kind, quality=75)
        uris.append(f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode())
    return uris
