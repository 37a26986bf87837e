"""Sends HeadObject. Its errors have no body, so a read of one byte then asks for the reason."""

from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_SAYS_ENOUGH: Final = frozenset({404, 412, 429})
_REFUSED: Final = range(300, 500)
_RANGE_NOT_SATISFIABLE: Final = 416
_OF_HEAD_ALONE: Final = frozenset({"ChecksumMode"})


def head_object(client: "S3Client", request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the answer to HeadObject.

    Raises:
        ClientError: the store refused it; if it refuses a read of the object, too, with that error's text.
        BotoCoreError: there was no answer.
    """
    try:
        return client.head_object(**request)
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status not in _REFUSED or status in _SAYS_ENOUGH:
            raise
        _raise_reason(client, request)
        error.response["Error"]["Message"] = "HEAD is refused, though the object can be read"
        raise


def _raise_reason(client: "S3Client", request: Mapping[str, Any]) -> None:
    """Ask for the first byte; return if the store sends it.

    Raises:
        ClientError: the store refused to.
    """
    asked = {name: value for name, value in request.items() if name not in _OF_HEAD_ALONE}
    try:
        answer = client.get_object(**asked, Range="bytes=0-0")
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == _RANGE_NOT_SATISFIABLE:
            return  # an empty object has no first byte
        raise
    with closing(answer["Body"]):
        return
