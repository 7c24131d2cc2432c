"""Options of jobs: the fields of a config dataclass, from YAML files and the command line.

Pydantic checks the values and reports errors as data (place, kind, value); the messages are ours. It is imported only
when there are values to check, so that `--help` is quick.
"""

import difflib
import json
import os
import re
import sys
from argparse import SUPPRESS, ArgumentError, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from docstring_parser.google import parse

from jobs.command import check_kept
from jobs.yaml_reader import parse_yaml, read_yaml

T = TypeVar("T", bound=Any)

_Values = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Option:
    """One option: a field of a config, or a field of a config in it.

    Attributes:
        name: names of the fields that lead to it, joined by dots.
        kind: type of its value.
        default: default value; `MISSING` if the option is required.
        help: description from the docstring.
    """

    name: str
    kind: Any
    default: Any
    help: str


def read_config(
    job: str,
    description: str,
    kind: type[T],
    arguments: Sequence[str] | None,
    suited: Callable[[_Values], tuple[str, _Values]] | None = None,
) -> T:
    """Reads a config: later files win over earlier ones, the command line wins over files.

    Args:
        job: name of the job's module, and of its command if it has several.
        description: help text, printed as it is.
        kind: dataclass whose fields are the options.
        arguments: the command line; that of this process if None.
        suited: called with the given options, returns others that suit them, and the file that they are from; given
            ones win.

    Raises:
        ValueError: an option is unknown, missing, or has a bad value; names the option, the remedy and the file.
        SystemExit: after `--help` and `--print_config`.
    """
    options = {option.name: option for option in _options(kind)}
    parser = _parser(job, description, options.values())
    try:
        given, unknown = parser.parse_known_args(arguments)
    except ArgumentError as error:
        raise ValueError(f"{error.argument_name}: {error.message}") from error
    if unknown:
        wrong = next((word for word in unknown if word.startswith("-")), unknown[0])
        raise ValueError(_no_such_option(wrong.lstrip("-").partition("=")[0], [*options, "config", "print_config"]))
    values = vars(given)
    files, print_config = values.pop("config", []), values.pop("print_config", False)
    sources = [(file, read_yaml(file)) for file in files]
    sources.append(("", _nested({name: _value(text, options[name].kind) for name, text in values.items()})))
    sources = [(file, _expanded(values)) for file, values in sources]
    if suited:
        sources.insert(0, suited(_merged(sources)))
    config: T = _build(kind, sources, print_config=print_config)
    for name in ("output", "report", "sheet", "snapshot"):
        check_kept(name, getattr(config, name, None))
    return config


def read_command(job: str, description: str, kinds: Mapping[str, type], arguments: Sequence[str] | None) -> Any:
    """Reads the config of the command that the command line starts with; raises as `read_config`.

    Args:
        job: name of the job's module.
        description: help text, printed as it is.
        kinds: dataclass of each command's options.
        arguments: the command line; that of this process if None.
    """
    command, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    if command in ("-h", "--help"):
        print(description.strip(), "", *(f"python -m jobs.{job} {name} --help" for name in kinds), sep="\n")
        raise SystemExit(0)
    if command not in kinds:
        raise ValueError(f"command: expected {_listed(list(kinds))}, got {command or 'none'}")
    kind = kinds[command]
    return read_config(f"{job} {command}", parse(kind.__doc__).short_description or "", kind, rest)


def _options(kind: type, prefix: str = "") -> Iterator[_Option]:
    """Yields the options of a config, and of the configs in it."""
    hints, docs = get_type_hints(kind), _docs(kind)
    for field in fields(kind):
        name, hint = prefix + field.name, hints[field.name]
        yield _Option(name=name, kind=hint, default=_default(field), help=docs.get(field.name, ""))
        if inner := _config_in(hint):
            yield from _options(inner, f"{name}.")


def _docs(kind: type) -> dict[str, str]:
    """Returns the descriptions of the fields, including those of base classes."""
    params = [param for base in reversed(kind.__mro__) if is_dataclass(base) for param in parse(base.__doc__).params]
    return {param.arg_name: " ".join((param.description or "").split()).rstrip(".") for param in params}


def _default(field: "Field[Any]") -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _config_in(kind: Any) -> type | None:
    return next((part for part in _alternatives(kind) if isinstance(part, type) and is_dataclass(part)), None)


def _parser(job: str, description: str, options: Iterable[_Option]) -> ArgumentParser:
    program = f"python -m jobs.{job}"
    parser = ArgumentParser(
        prog=program,
        usage=f"{program} [options]",
        description=description.strip(),
        formatter_class=RawDescriptionHelpFormatter,
        argument_default=SUPPRESS,
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument("--config", action="append", metavar="FILE", help="YAML file of options; may be repeated")
    parser.add_argument("--print_config", action="store_true", help="print all options as YAML, and exit")
    groups: dict[str, Any] = {"": parser.add_argument_group("the job's options")}
    for option in options:
        kind = _spelled(option.kind)
        parent = option.name.rpartition(".")[0]
        required = f"required with {parent}" if parent else "required"
        if config := _config_in(option.kind):
            groups[option.name] = parser.add_argument_group(option.name, parse(config.__doc__).short_description)
            default = required if option.default is MISSING else "" if option.default else "default: null"
        else:
            default = required if option.default is MISSING else f"default: {_plain(option.default)}"
        text = f"{option.help} (type: {kind}{default and ', '}{default})".strip()
        metavar = option.name.rpartition(".")[2].upper()
        alone: dict[str, Any] = {"nargs": "?", "const": "true"} if option.kind is bool else {}
        if _may_be_repeated(option.kind):
            alone = {"action": "append"}
        groups[parent].add_argument(f"--{option.name}", metavar=metavar, help=text.replace("%", "%%"), **alone)
    return parser


def _plain(default: Any) -> str:
    """Returns a default as YAML has it."""
    return default if isinstance(default, str) else json.dumps(default, default=vars)


def _spelled(kind: Any) -> str:
    """Returns a type in words."""
    if kind is NoneType:
        return "null"
    if is_dataclass(kind):
        return "options"
    if get_origin(kind) is Literal:
        return _listed(get_args(kind))
    if len(parts := _alternatives(kind)) > 1:
        return " or ".join(map(_spelled, parts))
    if get_origin(kind):
        return f"list of {_spelled(get_args(kind)[0])}"
    return str(kind.__name__)


def _listed(words: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _expanded(value: Any, around: frozenset[int] = frozenset()) -> Any:
    """Replaces `~` at the start of paths by the home folder, as a shell does where it sees one."""
    if id(value) in around:  # an alias of what it is in
        return value
    around |= {id(value)}
    if isinstance(value, dict):
        return {name: _expanded(each, around) for name, each in value.items()}
    if isinstance(value, list):
        return [_expanded(each, around) for each in value]
    return os.path.expanduser(value) if isinstance(value, str) and re.match(r"~[\w.-]*(/|$)", value) else value


def _may_be_repeated(kind: Any) -> bool:
    """Returns whether an option is a text or several, each given on its own."""
    parts = _alternatives(kind)
    return str in parts and list[str] in parts


def _value(text: str | list[str], kind: Any) -> Any:
    """Returns a value of the command line: text unchanged, all else parsed as YAML."""
    if not isinstance(text, str):
        return text
    parts = _alternatives(kind)
    if all(part in (str, NoneType) or get_origin(part) is Literal for part in parts):
        return None if text == "null" and NoneType in parts else text
    try:
        return parse_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


def _nested(values: _Values) -> _Values:
    """Nests values with dotted names, as in a file."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        for part in reversed(name.split(".")):
            value = {part: value}
        nested = _merge(nested, value)
    return nested


def _merge(first: Any, second: Any) -> Any:
    """Merges options; `second` wins."""
    if not isinstance(first, dict) or not isinstance(second, dict):
        return second
    return first | {name: _merge(first.get(name), value) for name, value in second.items()}


def _merged(sources: Sequence[tuple[str, _Values]]) -> _Values:
    given: dict[str, Any] = {}
    for _, values in sources:
        given = _merge(given, values)
    return given


def _build(kind: type[T], sources: Sequence[tuple[str, _Values]], *, print_config: bool) -> T:
    """Builds a config from files and the command line."""
    from pydantic import TypeAdapter, ValidationError
    from pydantic_core import to_jsonable_python

    completed = _completed(kind, _merged(sources))
    if print_config:
        print(yaml.safe_dump(to_jsonable_python(completed), sort_keys=False, allow_unicode=True), end="")
        raise SystemExit(0)
    try:
        config: T = TypeAdapter(kind).validate_python(completed, extra="forbid")
    except ValidationError as error:
        raise ValueError(_explain(error.errors(), kind, sources)) from error
    return config


def _completed(kind: type, given: _Values) -> _Values:
    """Adds defaults for the options that are not given."""
    hints, completed = get_type_hints(kind), dict[str, Any]()
    for field in fields(kind):
        value, inner = _default(field), _config_in(hints[field.name])
        if inner and is_dataclass(value):
            value = asdict(value)  # type: ignore[arg-type]
        if field.name in given:
            value = _merge(value, given[field.name])
        if inner and isinstance(value, dict):
            value = _completed(inner, value)
        if {int, float}.intersection(_alternatives(hints[field.name])):
            value = _as_number(value, hints[field.name])
        if value is not MISSING:
            completed[field.name] = value
    return completed | {name: value for name, value in given.items() if name not in completed}


def _as_number(value: Any, kind: Any) -> Any:
    """Returns a text that Pydantic refuses for what is no number in YAML; it would read `true` as 1, and 1_8 as 18."""
    parts = _alternatives(kind)
    if isinstance(value, bool) and bool not in parts:
        return str(value).lower()
    if isinstance(value, str) and str not in parts and isinstance(_value(value, kind), str):
        return repr(value) if re.search(r"\d", value) else value
    return value


def _explain(errors: Sequence[Any], kind: Any, sources: Sequence[tuple[str, _Values]]) -> str:
    """Returns what is wrong with the options: an unknown name first, then a bad value, then what is missing."""
    errors = _located(errors, kind)
    missing = [_name(error["loc"]) for error in errors if error["type"] == "missing"]
    unknown = [error for error in errors if error["type"] in ("unexpected_keyword_argument", "invalid_key")]
    others = [error for error in errors if error["type"] != "missing" and error not in unknown]
    if not unknown and not others:
        return f"{', '.join(missing)}: missing; give {'it' if len(missing) == 1 else 'each'} as an option or in a file"
    error = (unknown or others)[0]
    location = error["loc"]
    if error["type"] == "value_error":  # a config's own check, which begins with the option's name
        text, location = _placed(str(error["ctx"]["error"]), kind, location)
    elif unknown:
        *parents, last = location
        if error["type"] == "invalid_key":  # YAML reads names such as 1 and on as other things than texts
            last = error["input"]
            location = (*parents, last)
        prefix = f"{_name(parents)}." if parents else ""
        text = prefix + _no_such_option(
            str(last), [field.name for field in fields(_config_in(_kind_at(kind, parents)) or kind)], prefix
        )
    else:
        text = f"{_name(location)}: {_wrong_value(error['input'], _kind_at(kind, location))}"
    places = [location[:end] for end in range(len(location), 0, -1)]
    file = next((file for place in places for file, values in reversed(sources) if _holds(values, place)), "")
    return f"{file}: {text}" if file else text


def _placed(text: str, kind: Any, location: tuple[str | int, ...]) -> tuple[str, tuple[str | int, ...]]:
    """Returns the message of a config's own check with the option's whole name, and the option's location.

    Args:
        text: the message, which begins with the name of a field, alone or after that of the config.
        kind: the outermost config.
        location: where in it the config is that was checked.
    """
    name, _, reason = text.partition(":")
    if location and name == location[-1]:
        return f"{_name(location)}:{reason}", location
    parts = name.removeprefix(f"{location[-1]}.").split(".") if location else name.split(".")
    if parts[0] in [field.name for field in fields(_config_in(_kind_at(kind, location)) or kind)]:
        location = (*location, *parts)
        return f"{_name(location)}:{reason}", location
    return f"{_name(location)}: {text}" if location else text, location


def _located(errors: Sequence[Any], kind: Any) -> list[Any]:
    """Returns the errors at the places of their options; of options or a list of them, those of what was given."""
    located = [error | {"loc": _untagged(error["loc"], kind)} for error in errors]
    meant = [error for error in located if error["type"] not in ("dataclass_type", "tuple_type")]
    return meant or [max(located, key=lambda error: len(error["loc"]))]


def _untagged(location: Sequence[str | int], kind: Any) -> tuple[str | int, ...]:
    """Leaves out the types that pydantic names in the location of a value that may be of several."""
    places: list[str | int] = []
    tagged = False
    for part in location:
        if not tagged and sum(each is not NoneType for each in _alternatives(kind)) > 1:
            tagged = True
            continue
        places.append(part)
        kind, tagged = _part_of(kind, part), False
    return tuple(places)


def _no_such_option(name: str, names: Sequence[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(name.replace("-", "_"), names, 1)
    return f"{name}: no such option" + (f"; did you mean {prefix}{near[0]}?" if near else "; see --help")


def _wrong_value(value: Any, kind: Any) -> str:
    choices = [choice for part in _alternatives(kind) for choice in get_args(part) if get_origin(part) is Literal]
    near = difflib.get_close_matches(str(value), choices, 1)
    return f"expected {_spelled(kind)}, got {value}" + (f"; did you mean {near[0]}?" if near else "")


def _name(location: Sequence[str | int]) -> str:
    """Returns an option's name, such as `datasets[0].protocol`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def _kind_at(kind: Any, location: Sequence[str | int]) -> Any:
    """Returns the type of the option at a location in a config."""
    for part in location:
        kind = _part_of(kind, part)
    return kind


def _part_of(kind: Any, part: str | int) -> Any:
    """Returns the type of a field of a config or of an element of a list; None of a field that there is not."""
    if isinstance(part, str) and (inner := _config_in(kind)):
        return get_type_hints(inner).get(part)
    lists = [each for each in _alternatives(kind) if get_origin(each) in (list, tuple)]
    return get_args(lists[0])[0] if lists else None


def _holds(values: Any, location: Sequence[str | int]) -> bool:
    for part in location:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return False
    return True
