"""TFRecord files and the tf.train.Example message, read without TensorFlow.

A TFRecord file is a sequence of records, plain or within gzip: the data's length (uint64, little
endian), the length's checksum (uint32), the data, and the data's checksum. Checksums are CRC-32C,
masked so that a record can hold records.
"""

import gzip
import io
import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import IO, Any

import google_crc32c
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from pipelines.errors import InputError
from pipelines.ingest.files import open_file
from pipelines.secrets import shown

__all__ = ["parse_example", "read_records"]

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_BUFFER_BYTES = 1 << 20
_GZIP = b"\x1f\x8b"


def read_records(url: str) -> Iterator[bytes]:
    """The data of each record of a file, in order, both checksums verified.

    Raises:
        InputError: naming the file and the record, from 1, that is damaged or cut off.
    """
    with open_file(url) as opened:
        stream = _decompressed(opened)
        for number in itertools.count(1):
            try:
                data = _read_record(stream, f"{shown(url)}: record {number}")
            except EOFError:
                raise InputError(f"{shown(url)}: is truncated in record {number}") from None
            except (gzip.BadGzipFile, zlib.error):
                raise InputError(f"{shown(url)}: record {number} is damaged (gzip)") from None
            if data is None:
                return
            yield data


def parse_example(data: bytes, where: str) -> Any:
    """A record's tf.train.Example.

    Raises:
        InputError: beginning with ``where``, if it is something else.
    """
    try:
        return _Example.FromString(data)
    except DecodeError:
        raise InputError(f"{where} is not a serialised tf.train.Example") from None


def _decompressed(opened: IO[bytes]) -> io.BufferedIOBase:
    stream = io.BufferedReader(opened, _BUFFER_BYTES)  # type: ignore[type-var]
    # A plain record of 35,615 bytes begins like gzip does, so a sound header has precedence.
    start = stream.peek(_HEADER.size)[: _HEADER.size]
    if start.startswith(_GZIP) and not _is_sound_header(start):
        return gzip.GzipFile(fileobj=stream)
    return stream


def _read_record(stream: io.BufferedIOBase, where: str) -> bytes | None:
    header = stream.read(_HEADER.size)
    if not header:
        return None
    if len(header) < _HEADER.size:
        raise EOFError
    if not _is_sound_header(header):
        raise InputError(f"{where} is damaged (checksum), or this is not a TFRecord file")
    length = _HEADER.unpack(header)[0]
    data = stream.read(length)
    footer = stream.read(_FOOTER.size)
    if len(footer) < _FOOTER.size:
        raise EOFError
    if _FOOTER.unpack(footer)[0] != _checksum(data):
        raise InputError(f"{where} is damaged (checksum)")
    return data


def _is_sound_header(header: bytes) -> bool:
    return len(header) == _HEADER.size and _HEADER.unpack(header)[1] == _checksum(header[:8])


def _checksum(data: bytes) -> int:
    crc = int(google_crc32c.value(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _example_class() -> Any:
    """The message as tensorflow/core/example defines it, under a package name of our own."""

    def field(name: str, number: int, type_: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "number": number, "type": f"TYPE_{type_}", **more}

    def message(name: str, *fields: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"name": name, "field": fields, **more}

    repeated = {"label": "LABEL_REPEATED"}
    kinds = {"bytes": "BYTES", "float": "FLOAT", "int64": "INT64"}
    lists = [
        message(f"{kind.title()}List", field("value", 1, type_, **repeated))
        for kind, type_ in kinds.items()
    ]
    feature = message(
        "Feature",
        *(
            field(f"{kind}_list", number, "MESSAGE", typeName=f"{kind.title()}List", oneofIndex=0)
            for number, kind in enumerate(kinds, start=1)
        ),
        oneofDecl=[{"name": "kind"}],
    )
    entry = message(
        "FeatureEntry",
        field("key", 1, "STRING"),
        field("value", 2, "MESSAGE", typeName="Feature"),
        options={"mapEntry": True},
    )
    features = message(
        "Features",
        field("feature", 1, "MESSAGE", typeName="FeatureEntry", **repeated),
        nestedType=[entry],
    )
    # A SequenceExample begins like an Example; its second part must be seen to be refused.
    example = message(
        "Example",
        field("features", 1, "MESSAGE", typeName="Features"),
        field("feature_lists", 2, "BYTES"),
    )
    file = {"name": "tandem_example.proto", "package": "tandem", "syntax": "proto3"}
    pool = DescriptorPool()
    pool.AddSerializedFile(
        ParseDict(
            {**file, "messageType": [*lists, feature, features, example]}, FileDescriptorProto()
        ).SerializeToString()
    )
    return GetMessageClass(pool.FindMessageTypeByName("tandem.Example"))


_Example = _example_class()
