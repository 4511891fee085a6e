"""From bodies to the record's columns: sans-IO, tolerant, and the only place that knows dialects.

`read_request` and `read_answer` never raise on what a client or provider sent: what cannot be read
leaves its columns null, and the exact bytes stay in `request_raw` and `response_raw`.
"""

from collector.assemble.dialect import read_answer, read_request
from collector.assemble.message import Answer, Choice, Message, Request, Usage

__all__ = ["Answer", "Choice", "Message", "Request", "Usage", "read_answer", "read_request"]
