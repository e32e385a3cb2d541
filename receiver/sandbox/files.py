"""The files that outputs link to, and those that clients uploaded."""

import base64
import binascii
import mimetypes
import struct
import uuid
from pathlib import PurePosixPath

from pydantic import BaseModel, ConfigDict, ValidationError

from receiver.sandbox.script import fault_of

MOST_UPLOADS = 100
"""How many uploaded files are kept; the oldest is forgotten for the next."""
LARGEST_UPLOAD = 10 * 1024 * 1024
"""Bytes of one file, as at PiAPI."""
_UPLOADED = frozenset({"jpg", "jpeg", "png", "webp", "mp4", "wav", "mp3"})
_MEDIA_TYPES = {".glb": "model/gltf-binary", ".webp": "image/webp", ".wav": "audio/wav"}
_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
_SAMPLES = 800
_WAV = struct.pack(
    "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + _SAMPLES, b"WAVE", b"fmt ", 16, 1, 1, 8000, 8000, 1, 8, b"data", _SAMPLES
) + bytes([128] * _SAMPLES)
_CONTENTS = {
    "image/png": _PNG,
    "video/mp4": b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom",
    "audio/mpeg": b"ID3\x04\x00\x00\x00\x00\x00\x00",
    "audio/wav": _WAV,
    "model/gltf-binary": b"glTF\x02\x00\x00\x00\x0c\x00\x00\x00",
}


class UploadRefused(ValueError):
    """An upload lacks a field, is too large, or is not of an accepted kind. The message names the field."""


class FileUpload(BaseModel):
    """The body of an upload: the file's name with its ending, and its content in base64."""

    model_config = ConfigDict(strict=True)

    file_name: str
    file_data: str


class Files:
    """Uploaded files in memory, and a sample of every other name's media type."""

    def __init__(self) -> None:
        self._uploads: dict[str, bytes] = {}

    def upload(self, body: bytes) -> str:
        """Keep a file; return its name here. Raises `UploadRefused`."""
        given = _read(body)
        ending = PurePosixPath(given.file_name).suffix.removeprefix(".").lower()
        if ending not in _UPLOADED:
            raise UploadRefused(f"file_name: must end in one of {', '.join(sorted(_UPLOADED))}")
        name = f"{uuid.uuid4()}.{ending}"
        self._uploads[name] = _content(given.file_data)
        while len(self._uploads) > MOST_UPLOADS:
            del self._uploads[next(iter(self._uploads))]
        return name

    def get(self, name: str) -> tuple[bytes, str]:
        """Return (content, media type): an upload's own, else a sample of the type that the name's ending says."""
        media_type = media_type_of(name)
        return self._uploads.get(name) or sample(media_type), media_type


def media_type_of(name: str) -> str:
    """Return the media type that a file's name says."""
    known = _MEDIA_TYPES.get(PurePosixPath(name).suffix.lower())
    return known or mimetypes.guess_type(name)[0] or "application/octet-stream"


def sample(media_type: str) -> bytes:
    """Return a small file of the type, or its first bytes."""
    return _CONTENTS.get(media_type, b"sandbox")


def _read(body: bytes) -> FileUpload:
    try:
        return FileUpload.model_validate_json(body)
    except ValidationError as error:
        raise UploadRefused(fault_of(error)) from None


def _content(text: str) -> bytes:
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise UploadRefused("file_data: must be base64") from None
    if not 0 < len(content) <= LARGEST_UPLOAD:
        raise UploadRefused(f"file_data: must have 1 to {LARGEST_UPLOAD} bytes")
    return content
