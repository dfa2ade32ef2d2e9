"""Writes docs/api.md anew from the protos' comments; `make proto-docs` calls it, with `--check` `make lint-protos`.

A page of our own making: the common generator knows of no presence but the word `optional`, and runs a comment's
list together into one line.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
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

Presence says whether a reader can distinguish an unset field from a default value. *Explicit*: yes. *Implicit*: no, an
unset field reads as an empty string, zero or false. *Repeated*: an unset list is empty. *Oneof*: at most one of its
fields is set, and the reader knows which.
"""

ELSEWHERE = {
    "google.protobuf.FieldMask": "https://protobuf.dev/reference/protobuf/google.protobuf/#field-mask",
    "google.rpc.Status": "https://github.com/googleapis/googleapis/blob/master/google/rpc/status.proto",
}
"""Where types are described that aren't ours."""


class File:
    """A proto file of ours, and its comments by the path of what they describe (see descriptor.proto)."""

    def __init__(self, descriptor: FileDescriptorProto) -> None:
        """Takes the file with its comments."""
        self._descriptor = descriptor
        locations = descriptor.source_code_info.location
        self._comments = {tuple(at.path): at.leading_comments for at in locations}
        self._sections = {tuple(at.path): at.leading_detached_comments for at in locations}

    def page(self) -> Iterator[str]:
        """The services with their methods, then the messages and enums, as blocks of Markdown."""
        for number, service in enumerate(self._descriptor.service):
            yield f"## {service.name}"
            yield self._comment(6, number)
            yield f"Its full name, as in a call's path, is `{self._descriptor.package}.{service.name}`."
            for index, method in enumerate(service.method):
                yield f"### {method.name}"
                yield self._call(method, service)
                yield self._comment(6, number, 2, index)
        for number, message in enumerate(self._descriptor.message_type):
            yield from self._message(message, message.name, (4, number))
        for number, enum in enumerate(self._descriptor.enum_type):
            yield from self._enum(enum, enum.name, (5, number))

    def _message(self, message: DescriptorProto, name: str, path: tuple[int, ...]) -> Iterator[str]:
        yield f"## {name}"
        yield self._comment(*path)
        yield "\n".join(self._fields(message, path))
        if message.reserved_name:
            yield "Names that no field may get: " + ", ".join(f"`{name}`" for name in message.reserved_name) + "."
        for number, nested in enumerate(message.nested_type):
            yield from self._message(nested, f"{name}.{nested.name}", (*path, 3, number))
        for number, enum in enumerate(message.enum_type):
            yield from self._enum(enum, f"{name}.{enum.name}", (*path, 4, number))

    def _enum(self, enum: EnumDescriptorProto, name: str, path: tuple[int, ...]) -> Iterator[str]:
        yield f"## {name}"
        yield self._comment(*path)
        rows = ["| number | value | meaning |", "| --- | --- | --- |"]
        for index, value in enumerate(enum.value):
            section = " ".join(" ".join(self._sections.get((*path, 2, index), ())).split())
            rows += [f"| | | {section} |"] if section else []
            rows.append(f"| {value.number} | `{value.name}` | {self._meaning(*path, 2, index)} |")
        yield "\n".join(rows)

    def _call(self, method: MethodDescriptorProto, service: ServiceDescriptorProto) -> str:
        takes = ("a stream of " if method.client_streaming else "") + link(method.input_type)
        gives = ("a stream of " if method.server_streaming else "") + link(method.output_type)
        return f"`/{self._descriptor.package}.{service.name}/{method.name}` takes {takes}, returns {gives}."

    def _fields(self, message: DescriptorProto, path: tuple[int, ...]) -> Iterator[str]:
        yield "| number | field | type | presence | meaning |"
        yield "| --- | --- | --- | --- | --- |"
        for index, field in enumerate(message.field):
            kind, of = link(field.type_name) or f"`{scalar(field)}`", presence(field, message)
            yield f"| {field.number} | `{field.name}` | {kind} | {of} | {self._meaning(*path, 2, index)} |"

    def _meaning(self, *path: int) -> str:
        return " ".join(self._comment(*path).split()).replace("|", "\\|")

    def _comment(self, *path: int) -> str:
        lines = self._comments.get(path, "").splitlines()
        return "\n".join(line.removeprefix(" ").rstrip() for line in lines).strip()


def link(type_name: str) -> str:
    """A link to where the type is described, which for ours is this page."""
    name = type_name.removeprefix(".")
    if name.startswith("userprofile."):
        short = name.removeprefix("userprofile.v1.")
        return f"[`{short}`](#{short.lower().replace('.', '')})"
    return f"[`{name}`]({ELSEWHERE[name]})" if name in ELSEWHERE else f"`{name}`" if name else ""


def scalar(field: FieldDescriptorProto) -> str:
    """The name of the type as the proto has it."""
    return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def presence(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    """Returns the presence of the field, as the page explains it."""
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return "repeated"
    if field.HasField("oneof_index") and not field.proto3_optional:
        return f"oneof `{message.oneof_decl[field.oneof_index].name}`"
    is_message = field.type == FieldDescriptorProto.TYPE_MESSAGE
    return "explicit" if field.proto3_optional or is_message else "implicit"


def written(descriptors: FileDescriptorSet) -> str:
    """Returns the page as it has to be."""
    ours = [file for file in descriptors.file if file.package.startswith("userprofile.")]
    ours.sort(key=lambda file: (not file.service, not file.message_type))
    blocks = (block for file in ours for block in File(file).page() if block)
    return "\n\n".join([HEAD.rstrip(), *blocks]) + "\n"


if __name__ == "__main__":
    page = written(FileDescriptorSet.FromString(PROTOSET.read_bytes()))
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(page)
    elif PAGE.read_text() != page:
        sys.exit("docs/api.md is not what the protos' comments say; run: make proto-docs")
