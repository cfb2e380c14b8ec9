"""From YAML to settings whose types the schema asks for: `name: 007` is the text 007, `lr: 3e-4` a number.

Keys may be nested or dotted, in any mixture: `ppo: {lr: 1}`, `ppo.lr: 1`, `reward: {fid.credit: group}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from adanat_rl.config.errors import UserError
from adanat_rl.config.yaml_reader import Entries, Items, Node, Text, plain

Found = Sequence[tuple[int, Node]]  # line and node of everything that was written for one key


def typed_settings(node: Node, model: type[BaseModel], where: str) -> dict[str, Any]:
    """The settings of a YAML mapping, nested, as Python objects; unknown keys stay, for the validation to name.

    Args:
        model: the schema. where: names the text in messages.

    Raises:
        UserError: no mapping, a setting written twice (once dotted and once nested, say), or a number far too long.
    """
    if isinstance(node, Text) and node.is_null:
        return {}
    if not isinstance(node, Entries):
        kind = "list" if isinstance(node, Items) else type(plain(node)).__name__
        raise UserError(f"{where} holds a {kind}, expected a mapping of settings")
    return _section([(node.line, node)], model, "", where)


def typed_value(node: Node, annotation: Any, key: str, where: str = "") -> Any:
    """One value as its type in the schema asks for: text as it was written, everything else by YAML 1.2.

    Args:
        annotation: the type. key: the setting, for messages.
    """
    options = _options(annotation)
    model = next((option for option in options if isinstance(option, type) and issubclass(option, BaseModel)), None)
    mapping = next((option for option in options if get_origin(option) is dict), None)
    if model is not None and isinstance(node, Entries):
        return _section([(node.line, node)], model, f"{key}.", where)
    if mapping is not None and isinstance(node, Entries):
        of = get_args(mapping)[1]
        return {name: typed_value(value, of, f"{key}.{name}", where) for name, _, value in node.entries}
    if (model is not None or mapping is not None) and isinstance(node, Text) and node.is_null:
        return {}  # a section whose lines are all comments
    of_items = next((get_args(option) for option in options if get_origin(option) is tuple), None)
    if of_items is not None and isinstance(node, Items):
        return [
            typed_value(item, of_items[min(place, len(of_items) - 1)] if of_items[-1] is not ... else of_items[0], key)
            for place, item in enumerate(node.items)
        ]
    if isinstance(node, Text) and not node.is_null and any(map(_is_text, options)):
        return node.written
    return named_plain(node, key)


def named_plain(node: Node, key: str) -> Any:
    """A node as Python objects; what is wrong with a number in it is told with the key."""
    try:
        return plain(node)
    except UserError as error:
        raise UserError(f"{key}: {error}") from None


def accepts_text(annotation: Any) -> bool:
    """Whether a setting of this type is text, or one of some words."""
    return any(map(_is_text, _options(annotation)))


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The group of settings that a field is; None for a value, or a list of groups."""
    return next(
        (option for option in _options(field.annotation) if isinstance(option, type) and issubclass(option, BaseModel)),
        None,
    )


def takes_names(field: FieldInfo) -> bool:
    """Whether a field is a mapping of names that the schema does not know, such as reward.args."""
    return any(get_origin(option) is dict for option in _options(field.annotation))


def leaves(model: type[BaseModel], prefix: str = "") -> Iterable[tuple[str, FieldInfo]]:
    """Dotted key and field of every setting of a schema, in order."""
    for name, field in model.model_fields.items():
        section = section_of(field)
        if section is None:
            yield prefix + name, field
        else:
            yield from leaves(section, f"{prefix}{name}.")


def _section(found: Found, model: type[BaseModel], prefix: str, where: str) -> dict[str, Any]:
    """All that was written for one group of settings."""
    groups: dict[str, list[tuple[int, Node]]] = {}
    for _, node in found:
        for key, line, value in node.entries if isinstance(node, Entries) else ():
            head, dot, rest = key.partition(".")
            field = model.model_fields.get(head)
            if dot and field is not None and (section_of(field) is not None or takes_names(field)):
                groups.setdefault(head, []).append((line, Entries(((rest, line, value),), line)))
            else:
                groups.setdefault(key, []).append((line, value))
    settings = {}
    for name, written in groups.items():
        field, key = model.model_fields.get(name), prefix + name
        section = section_of(field) if field is not None else None
        if len(written) > 1 and field is not None and (section is not None or takes_names(field)):
            written = _joined(written, key, where, deep=section is not None)
        if len(written) > 1:
            raise UserError(f"{where}, line {written[1][0]}: {key} stands here and in line {written[0][0]}")
        settings[name] = typed_value(written[0][1], field.annotation if field is not None else Any, key, where)
    return settings


def _joined(found: Found, key: str, where: str, *, deep: bool) -> list[tuple[int, Node]]:
    """One mapping of all that was written for a group or a mapping of names.

    Args:
        deep: whether equal keys are looked for later, when dotted ones have been taken apart.
    """
    entries: list[tuple[str, int, Node]] = []
    for line, node in found:
        if isinstance(node, Text) and node.is_null:
            continue
        if not isinstance(node, Entries):
            raise UserError(f"{where}, line {line}: {key} is a value here and a group of settings elsewhere")
        for name, at, value in node.entries:
            before = next((line for other, line, _ in entries if other == name), None)
            if not deep and before is not None:
                raise UserError(f"{where}, line {at}: {key}.{name} stands here and in line {before}")
            entries.append((name, at, value))
    return [(found[0][0], Entries(tuple(entries), found[0][0]))]


def _options(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, without None and without annotations."""
    if get_origin(annotation) is Annotated:
        return _options(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return tuple(found for option in get_args(annotation) for found in _options(option))
    return () if annotation is NoneType else (annotation,)


def _is_text(annotation: Any) -> bool:
    if get_origin(annotation) is Literal:
        return all(isinstance(word, str) for word in get_args(annotation))
    return annotation is str
