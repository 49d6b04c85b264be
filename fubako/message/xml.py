"""XML of strangers: `parse(octets, limits)` gives plain elements without namespaces. Pure.

A document type is refused where the parser meets it, so it makes no difference in which encoding it is written, and nothing of it
is ever read: no entity, no default attribute, no outer file. Depth, elements and text are counted as they come, so a small file
can not become a large tree.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat


class XmlError(ValueError):
    """It is no XML, or XML that is not read; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    octets: int = 10 * 1024 * 1024
    depth: int = 32
    elements: int = 200_000
    attributes: int = 32  # of one element
    text: int = 64 * 1024  # characters of one element


@dataclass(slots=True)
class Element:
    """`name` without its namespace; `text` is what stands directly in it."""

    name: str
    attributes: dict[str, str]
    children: list["Element"] = field(default_factory=list)
    text: str = ""

    def find(self, path: str) -> "Element | None":
        """The first element at a path of names between slashes."""
        found: Element | None = self
        for name in path.split("/"):
            found = next((child for child in found.children if child.name == name), None) if found else None
        return found

    def all(self, path: str) -> list["Element"]:
        """The children at the end of a path whose other names are first ones."""
        above, slash, name = path.rpartition("/")
        parent = self.find(above) if slash else self
        return [child for child in parent.children if child.name == name] if parent else []

    def value(self, path: str) -> str:
        found = self.find(path)
        return found.text if found else ""

    def descendants(self, name: str) -> Iterator["Element"]:
        """Those of a name, in their order. Depth is limited, so this may call itself."""
        for child in self.children:
            if child.name == name:
                yield child
            yield from child.descendants(name)


def parse(octets: bytes, limits: Limits | None = None) -> Element:
    """Raises XmlError, and nothing else."""
    limits = limits or Limits()
    if len(octets) > limits.octets:
        raise XmlError(f"it has more than {limits.octets} octets")
    reader = _Reader(limits)
    try:
        reader.parser.Parse(octets, True)
    except expat.ExpatError as error:
        raise XmlError(f"it is no XML: {error}") from None
    except (ValueError, LookupError) as error:  # of an encoding; our own refusals come unchanged
        raise error if isinstance(error, XmlError) else XmlError("it is no XML: its encoding is unknown") from None
    if reader.root is None:
        raise XmlError("it is no XML: it is empty")
    return reader.root


class _Reader:
    """The tree as far as it has come."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._elements = limits, 0
        self._open: list[tuple[Element, list[str]]] = []
        self._length: list[int] = []
        self.root: Element | None = None
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.EntityDeclHandler = self._refuse
        self.parser.ExternalEntityRefHandler = self._refuse
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters

    def _refuse(self, *_: object) -> int:
        raise XmlError("it has a document type")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        if self._elements > self._limits.elements:
            raise XmlError(f"it has more than {self._limits.elements} elements")
        if len(self._open) >= self._limits.depth:
            raise XmlError(f"its elements are more than {self._limits.depth} deep")
        if len(attributes) > self._limits.attributes:
            raise XmlError(f"an element has more than {self._limits.attributes} attributes")
        element = Element(name.rpartition(":")[2], attributes)
        if self._open:
            self._open[-1][0].children.append(element)
        else:
            self.root = element
        self._open.append((element, []))
        self._length.append(0)

    def _end(self, _: str) -> None:
        element, texts = self._open.pop()
        self._length.pop()
        element.text = "".join(texts)

    def _characters(self, text: str) -> None:
        self._length[-1] += len(text)
        if self._length[-1] > self._limits.text:
            raise XmlError(f"an element has more than {self._limits.text} characters")
        self._open[-1][1].append(text)
