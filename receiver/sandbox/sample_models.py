"""The outputs of two models that only the sandbox has: `sandbox/brands` and `sandbox/campaigns`.

An output depends on the input alone, so that the steps of a run can use the outputs of earlier steps. Pure.
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any
from urllib.parse import urlsplit

_COLOURS = 3


def brand_output(files: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the brand of the address `given["url"]`: always the same for the same address. `files` begins its URLs."""
    url = str(given.get("url", ""))
    digest = _digest(url)
    return {
        "brand_id": f"brand_{digest[:12]}",
        "name": _name(url),
        "url": url,
        "colours": [f"#{digest[at : at + 6]}" for at in range(0, 6 * _COLOURS, 6)],
        "logo_url": f"{files}-logo.png",
    }


def campaign_output(files: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return an advertisement: of a new campaign for `given["prompt"]`, or of the campaign `given["campaign_id"]`."""
    prompt, brand_id = str(given.get("prompt", "")), given.get("brand_id")
    image = f"{files}.png"
    return {
        "campaign_id": given.get("campaign_id") or f"campaign_{_digest(f'{brand_id} {prompt}')[:12]}",
        "brand_id": brand_id,
        "headline": given.get("headline") or prompt,
        "locale": given.get("locale") or "en",
        "colours": given.get("colours") or [],
        "made_from": given.get("image_url"),
        "image_url": image,
        "image_urls": [image],
    }


def _name(url: str) -> str:
    """Return a readable name for a URL's host: `Example` for `https://www.example.com/about`."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    labels = [label for label in host.split(".") if label not in ("", "www")]
    return labels[0].title() if labels else "Nameless"


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()
