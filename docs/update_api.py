"""Writes docs/api.md anew from the protos' comments; `make proto-docs` calls it, with `--check` `make lint-protos`.

A page of our own making: the common generator knows of no presence but the word `optional`, and runs a comment's
list together into one line.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "api.md"
PROTOSET = ROOT / "build" / "userprofile.protoset"

HEAD = """\
# API reference

<!-- written by make proto-docs from the comments in protos/; a change here is lost -->

Presence says what a reader can learn of a field that was not set. *Explicit*: that it was not set. *Implicit*: nothing,
it reads as an empty string, zero or false. *Repeated*: the list is empty. *Oneof*: at most one of its fields is set,
and which one can be told.
"""

ELSEWHERE = {"google.rpc.Status": "https://github.com/googleapis/googleapis/blob/master/google/rpc/status.proto"}
"""Where types are described that aren't ours."""


class File:
    """A proto file of ours, and its comments by the path of what they describe (see descriptor.proto)."""

    def __init__(self, descriptor: FileDescriptorProto) -> None:
        """Refuses what this page has no form for yet."""
        if descriptor.enum_type or any(message.nested_type or message.enum_type for message in descriptor.message_type):
            sys.exit("docs/update_api.py has to learn of enums and nested messages first")
        self._descriptor = descriptor
        self._comments = {tuple(at.path): at.leading_comments for at in descriptor.source_code_info.location}

    def page(self) -> Iterator[str]:
        """The services with their methods, then the messages, as blocks of Markdown."""
        for number, service in enumerate(self._descriptor.service):
            yield f"## {service.name}"
            yield self._comment(6, number)
            yield f"Its full name, as in a call's path, is `{self._descriptor.package}.{service.name}`."
            for index, method in enumerate(service.method):
                yield f"### {method.name}"
                yield self._call(method, service)
                yield self._comment(6, number, 2, index)
        for number, message in enumerate(self._descriptor.message_type):
            yield f"## {message.name}"
            yield self._comment(4, number)
            yield "\n".join(self._table(number, message))
            if message.reserved_name:
                yield "Names that no field may get: " + ", ".join(f"`{name}`" for name in message.reserved_name) + "."

    def _call(self, method: MethodDescriptorProto, service: ServiceDescriptorProto) -> str:
        takes = ("a stream of " if method.client_streaming else "") + link(method.input_type)
        gives = ("a stream of " if method.server_streaming else "") + link(method.output_type)
        return f"`/{self._descriptor.package}.{service.name}/{method.name}` takes {takes}, returns {gives}."

    def _table(self, number: int, message: DescriptorProto) -> Iterator[str]:
        yield "| number | field | type | presence | meaning |"
        yield "| --- | --- | --- | --- | --- |"
        for index, field in enumerate(message.field):
            meaning = " ".join(self._comment(4, number, 2, index).split()).replace("|", "\\|")
            kind, of = link(field.type_name) or f"`{scalar(field)}`", presence(field, message)
            yield f"| {field.number} | `{field.name}` | {kind} | {of} | {meaning} |"

    def _comment(self, *path: int) -> str:
        lines = self._comments.get(path, "").splitlines()
        return "\n".join(line.removeprefix(" ").rstrip() for line in lines).strip()


def link(type_name: str) -> str:
    """A link to where the type is described, which for ours is this page."""
    name = type_name.removeprefix(".")
    if name.startswith("userprofile."):
        short = name.rpartition(".")[2]
        return f"[`{short}`](#{short.lower()})"
    return f"[`{name}`]({ELSEWHERE[name]})" if name in ELSEWHERE else f"`{name}`" if name else ""


def scalar(field: FieldDescriptorProto) -> str:
    """The name of the type as the proto has it."""
    return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def presence(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    """What can be told of the field where it wasn't set."""
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return "repeated"
    if field.HasField("oneof_index") and not field.proto3_optional:
        return f"oneof `{message.oneof_decl[field.oneof_index].name}`"
    is_message = field.type == FieldDescriptorProto.TYPE_MESSAGE
    return "explicit" if field.proto3_optional or is_message else "implicit"


def written(descriptors: FileDescriptorSet) -> str:
    """Returns the page as it has to be."""
    ours = [File(file) for file in descriptors.file if file.package.startswith("userprofile.")]
    blocks = (block for file in ours for block in file.page() if block)
    return "\n\n".join([HEAD.rstrip(), *blocks]) + "\n"


if __name__ == "__main__":
    page = written(FileDescriptorSet.FromString(PROTOSET.read_bytes()))
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(page)
    elif PAGE.read_text() != page:
        sys.exit("docs/api.md is not what the protos' comments say; run: make proto-docs")
