"""Commands from functions: a signature and its docstring make a parser.

A function's parameters before `*` are positional arguments, those after it options:
`data_dir` is `--data-dir`, and `from_`, a word of Python, `--from`. One without a default
is required. The docstring says what the command does, what each argument is (`Args`)
and what the exit status means (`Returns`); an argument that several commands share
carries its help in its type instead. A parameter called `changes` takes all
`--config.KEY=VALUE`. Types, by what is written:

    bool                    the option alone
    Literal["a", "b"]       one of these
    tuple[T, ...]           a list A,B
    list[T]                 several words; an option may be repeated as well
    Annotated[T, "help"]    as T; for parameters that several commands share
    Annotated[T, Word(f)]   what f makes of the word; T is the type of that
    a dataclass             all its fields, as options of their own

Why not a library: tyro 1.0 and jsonargparse 4.5 take 0.2 and 0.3 s to be imported, more
than all of `rmjax --help`, and neither leaves errors in one line.
"""

import argparse
import dataclasses
import difflib
import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from itertools import takewhile
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NoReturn,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import docstring_parser

from rmjax.errors import InputError, harmless

Command = Callable[..., int | None]


class Word(NamedTuple):
    """How a word of the command line is read, and what stands for it in the help.

    `read` raises an InputError, or a ValueError, where the word is wrong.
    """

    read: Callable[[str], Any]
    metavar: str | None = None


class Group(NamedTuple):
    """Commands under one name: `rmjax NAME METAVAR`."""

    help: str
    metavar: str
    commands: Mapping[str, Command]


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and whose help keeps indented lines.

    What is mistyped is named, with what is most like it.
    """

    _words: Sequence[str] = ()  # what it parses

    def __init__(self, **options: Any):
        # Defaults stay in the functions: only what was given is handed to them.
        super().__init__(
            formatter_class=_Formatter, argument_default=argparse.SUPPRESS, **options
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._words = args or ()
        return super().parse_known_args(args, namespace)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            listed = ", ".join(map(str, action.choices))
            like = _suggest(str(value), map(str, action.choices))
            raise argparse.ArgumentError(
                action, f"unknown {value!r}; choose from {listed}{like}"
            )

    def error(self, message: str) -> NoReturn:
        # Where a required option is missing, it may be there, mistyped: that comes first.
        words = takewhile(lambda word: word != "--", self._words)
        unknown = next(filter(self._is_unknown, words), None)
        if unknown is not None:
            option = unknown.partition("=")[0]
            like = _suggest(option, self._option_string_actions)
            message = f"unknown argument {option}{like}"
        line = f"{self.prog}: error: {harmless(message)} (see {self.prog} --help)"
        self.exit(2, line + "\n")

    def _is_unknown(self, word: str) -> bool:
        """Say whether a word looks like an option and begins none of this command's."""
        option = word.partition("=")[0]
        return (
            self._subparsers is None  # or the options are the subcommand's
            and option.startswith("--")
            and " " not in option  # argparse takes these for values
            and not any(
                known.startswith(option) for known in self._option_string_actions
            )
        )


class _Formatter(argparse.HelpFormatter):
    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n\n".join(
            paragraph if paragraph.startswith(" ") else fill(paragraph, width, indent)
            for paragraph in text.split("\n\n")
        )


def add_commands(
    parser: argparse.ArgumentParser,
    commands: Mapping[str, Command | Group],
    metavar: str = "COMMAND",
    dest: str = "command",
) -> None:
    """Add commands to a parser; `dest` is where the name of the given one will be."""
    names = parser.add_subparsers(dest=dest, required=True, metavar=metavar)
    for name, command in commands.items():
        if isinstance(command, Group):
            group = names.add_parser(name, help=command.help)
            add_commands(group, command.commands, command.metavar, "subcommand")
            continue
        text = docstring_parser.parse(inspect.getdoc(command) or "")
        first, _ = _title(text)
        added = names.add_parser(
            name,
            help=_escape(first),
            description=text.description,
            epilog=_epilog(text),
        )
        added.set_defaults(function=command, parser=added)
        _add_arguments(added, command, text)


def parse(
    parser: argparse.ArgumentParser, words: Sequence[str]
) -> tuple[argparse.Namespace, Callable[[], int | None]]:
    """Return what was given, and the command, ready to be called."""
    changes = [word for word in words if word.startswith("--config.")]
    given, rest = parser.parse_known_args([w for w in words if w not in changes])
    configured = "changes" in inspect.signature(given.function).parameters
    if not configured:
        rest = changes + rest
    if rest:
        hint = " (write --config.KEY=VALUE with '=')" if changes and configured else ""
        given.parser.error(f"unknown argument {rest[0]}{hint}")
    values = vars(given) | {"changes": changes}
    return given, lambda: given.function(**_choose(given.function, values))


def _choose(function: Callable, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a function's arguments out of all that were given."""
    return {
        name: hint(**_choose(hint, values)) if _is_dataclass(hint) else values[name]
        for name, hint, _ in _parameters(function)
        if name in values or _is_dataclass(hint)
    }


def _is_dataclass(hint: Any) -> bool:
    return dataclasses.is_dataclass(hint)


def _parameters(function: Callable) -> Iterator[tuple[str, Any, inspect.Parameter]]:
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        yield name, hints[name], parameter


def _add_arguments(
    parser: argparse._ActionsContainer,
    function: Callable,
    text: docstring_parser.Docstring,
) -> None:
    said = {argument.arg_name: argument.description for argument in text.params}
    for name, hint, parameter in _parameters(function):
        if name == "changes":
            continue
        if _is_dataclass(hint):
            its = docstring_parser.parse(inspect.getdoc(hint) or "")
            group = parser.add_argument_group(*_title(its))
            _add_arguments(group, hint, its)
            continue
        options = _options(hint)
        optional = parameter.default is not parameter.empty
        help = said.get(name) or options["help"]
        if optional and "default:" not in help:
            help += _describe_default(parameter.default)
        options["help"] = _escape(help)
        if parameter.kind is parameter.KEYWORD_ONLY:
            flag = "--" + name.rstrip("_").replace("_", "-")
            parser.add_argument(flag, dest=name, required=not optional, **options)
            continue
        several = options.pop("action", None) == "extend"
        if optional:
            options["nargs"] = "*" if several else "?"
        options.setdefault("metavar", name.upper().removesuffix("S" * several))
        parser.add_argument(name, **options)


def _options(hint: Any) -> dict[str, Any]:
    """Return what `add_argument` takes for a type."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        words = [extra for extra in inner[1:] if isinstance(extra, Word)]
        helps = [extra for extra in inner[1:] if isinstance(extra, str)]
        options = _options(words[0] if words else inner[0])
        return options | {"help": helps[0]} if helps else options
    if isinstance(hint, Word):
        metavar = {"metavar": hint.metavar} if hint.metavar else {}
        return {"type": _reader(hint.read)} | metavar
    if origin in (Union, types.UnionType):  # with None
        return _options(inner[0])
    if origin is Literal:
        return {"choices": inner}
    if origin is tuple:
        return {"type": _reader(_list_reader(_options(inner[0])["type"]))}
    if origin is list:
        return _options(inner[0]) | {"nargs": "+", "action": "extend"}
    return {"action": "store_true"} if hint is bool else {"type": hint}


def _list_reader(read: Callable[[str], Any]) -> Callable[[str], tuple]:
    @wraps(read)
    def read_list(text: str) -> tuple:
        words = text.split(",") if text or read is not str else []
        if read is str and not all(words):
            raise InputError(f"{text!r} has an empty name")
        return tuple(map(read, words))

    return read_list


def _reader(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a reader whose errors argparse shows as they are."""

    @wraps(read)
    def read_word(text: str) -> Any:
        try:
            return read(text)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read_word


def _describe_default(value: Any) -> str:
    if value is None or value is False or value in ((), ""):
        return ""
    text = ",".join(map(str, value)) if isinstance(value, tuple) else value
    return f" (default: {text})"


def _title(text: docstring_parser.Docstring) -> tuple[str, str | None]:
    """Return a docstring's first paragraph, to go on with, and the others."""
    first, _, rest = (text.description or "").strip().partition("\n\n")
    return first[:1].lower() + first[1:].rstrip("."), rest or None


def _epilog(text: docstring_parser.Docstring) -> str | None:
    said = [p.description for p in text.params if p.arg_name == "changes"]
    if text.returns:
        said.append(f"Exit status: {text.returns.description}")
    return "\n\n".join(part for part in said if part) or None


def _suggest(word: str, known: Iterable[str]) -> str:
    like = difflib.get_close_matches(word, [*known], n=1)
    return f"; did you mean {like[0]}?" if like else ""


def _escape(text: str) -> str:
    return text.replace("%", "%%")  # argparse puts values in
