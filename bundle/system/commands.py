"""A command line from functions: the signature gives the options, the docstring their meaning; names stay text."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, NoReturn, get_args

from bundle.system.configurations import explained, unknown_option
from bundle.system.limits import at_home, exists
from bundle.system.text import did_you_mean, not_empty, truth, truth_or_text, whole_number

Command = Callable[..., None]
Commands = Mapping[str, Command]
TWICE = "--{} is given twice; give it once"
HELP = {"-h", "--help"}
PLACES = ("dataset_dir", "output_dir")
"""Keys that a command with presets sets by options of its own."""
CONFIGURATION = re.compile(r"[\w./-]+\.ya?ml\b")
MEANING = re.compile(r"^ {2,}(\w+): (.+?)(?=\n {2,}\w+: |\Z)", re.MULTILINE | re.DOTALL)


class Parser(argparse.ArgumentParser):
    """Parser of one command. Errors are raised, so that the console can report them in one line."""

    def error(self, message: str) -> NoReturn:
        """Raise a ``ValueError``."""
        message = re.sub(r"^argument (--\w+)[^:]*: ", r"\1: ", message)
        raise ValueError(f"{message}; {self.prog} --help lists the options")


class Once(argparse.Action):
    """Take an option once: of two values one would be ignored in silence."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        """Store the value.

        Raises:
            ValueError: when there is one.
        """
        if hasattr(namespace, self.dest):
            parser.error(TWICE.format(self.dest))
        setattr(namespace, self.dest, values)


def run(program: str, commands: Commands | Command, words: Sequence[str], version: Callable[[], str]) -> None:
    """Call the command that a command line names.

    Args:
        program: how the user calls it.
        commands: functions by name, or one function. Options are ``--name value`` or ``--name=value``; values without
            a name go to the first parameters, in order. A parameter of type ``str`` takes its text as it is, whatever
            it looks like. ``*names`` and ``Sequence[str]`` take several values. ``**options`` takes all other options,
            with None for those without a value.
        words: the command line after the program's name.
        version: what ``--version`` prints.

    Raises:
        ValueError: for an unknown command or option, or an invalid value, before anything is called.
    """
    if list(words) == ["--version"]:
        print(version())
        return
    if callable(commands):
        command = commands
    elif not words or words[0] in ("-h", "--help", "help"):
        print(_overview(program, commands))
        return
    else:
        command = _named(words[0], program, commands)
        program, words = f"{program} {words[0]}", words[1:]
    positional, named = _bind(command, program, words)
    command(*positional, **named)


def _named(name: str, program: str, commands: Commands) -> Command:
    if name in commands:
        return commands[name]
    near = did_you_mean([name], commands)
    raise ValueError(f"{name!r} is no command of {program}{near}; commands are {', '.join(commands)}")


def options_of(command: Command) -> dict[str, inspect.Parameter]:
    """The options that a command names itself."""
    parameters = inspect.signature(command, eval_str=True).parameters
    return {name: each for name, each in parameters.items() if each.kind is not each.VAR_KEYWORD}


def _bind(command: Command, program: str, words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Arguments of a function from a command line."""
    options = options_of(command)
    more = next((name for name in inspect.signature(command).parameters if name not in options), "")
    parser = _parser(command, program, options, more)
    words = [_unmistakable(word, options) for word in words]
    if more and HELP & set(words):
        _explain(parser, options, words)
    words, others = _others(words, options, parser) if more else (words, {})
    given, unknown = parser.parse_known_intermixed_args(words)
    if unknown:
        parser.error(unknown_option(unknown[:1], options))
    found = vars(given)
    nameless = found.pop("words")
    for name, each in options.items():
        if nameless and name not in found and each.kind is not each.KEYWORD_ONLY:
            count = len(nameless) if each.kind is each.VAR_POSITIONAL else 1
            found[name], nameless = _values(parser, each, nameless[:count]), nameless[count:]
    if nameless:
        known = f"; known options are --{', --'.join(options)}" if options else ""
        parser.error(f"{nameless[0]!r} belongs to no option{known}")
    missing = [name for name, each in options.items() if name not in found and _is_required(each)]
    if missing:
        parser.error(f"--{missing[0]} is missing")
    several = [name for name, each in options.items() if each.kind is each.VAR_POSITIONAL]
    return [word for name in several for word in found.pop(name)], found | others


def _parser(command: Command, program: str, options: Mapping[str, inspect.Parameter], more: str) -> Parser:
    """Parser of a function's options and of ``more`` that it takes, with the descriptions from its docstring."""
    summary, _, arguments = (inspect.getdoc(command) or "").partition("Args:\n")
    meanings = dict(MEANING.findall(arguments.partition("\n\n")[0]))
    parser = Parser(
        prog=program,
        usage=f"{program}{_usage(options)}{' [--KEY VALUE ...]' if more else ''}".replace("%", "%%"),
        description=" ".join(summary.split()),
        epilog=" ".join(meanings.get(more, "").split()),
        allow_abbrev=False,
    )
    for name, each in options.items():
        truth = bool in _kinds(each)
        parser.add_argument(
            f"--{name}",
            action=Once,
            dest=name,
            type=_converter(each),
            nargs="+" if _takes_several(each) else "?" if truth else None,
            const=True if truth else None,
            default=argparse.SUPPRESS,
            metavar=name.upper(),
            help=f"{' '.join(meanings.get(name, '').split())} {_default(each)}".strip().replace("%", "%%"),
        )
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    return parser


def _explain(parser: Parser, options: Container[str], words: Sequence[str]) -> None:
    """Let the help list the keys of the configurations that the docstring and the command line name."""
    files = CONFIGURATION.findall(" ".join([parser.epilog or "", *words]))
    group = parser.add_argument_group(f"keys of {', '.join(files)}") if files else parser
    own = PLACES if "config" in options else ()
    for name, (default, meaning) in explained(files).items():
        if name not in options and name not in own:
            text = f"{meaning} (default: {default})".strip().replace("%", "%%")
            group.add_argument(f"--{name}", metavar="VALUE", help=text)


def _usage(options: Mapping[str, inspect.Parameter]) -> str:
    """Options as they are typed, without a name where none is required."""
    words = []
    for name, each in options.items():
        truth = bool in _kinds(each)
        value = "" if truth else name.upper() + " ..." * _takes_several(each)
        word = f"--{name} {value}" if truth or each.kind is each.KEYWORD_ONLY else value
        words.append(word.strip() if _is_required(each) else f"[{word.strip()}]")
    return "".join(f" {word}" for word in words)


def _default(parameter: inspect.Parameter) -> str:
    if _is_required(parameter):
        return "(required)"
    values = parameter.default if isinstance(parameter.default, tuple) else (parameter.default,)
    shown = " ".join(str(value) for value in values if value not in (None, "") and value is not False)
    return f"(default: {shown})" if shown else ""


def _kinds(parameter: inspect.Parameter) -> tuple[Any, ...]:
    """Types of a parameter: its annotation, or the members of a union."""
    return (parameter.annotation, *get_args(parameter.annotation))


def _takes_several(parameter: inspect.Parameter) -> bool:
    return parameter.kind is parameter.VAR_POSITIONAL or Sequence[str] in _kinds(parameter)


def _is_required(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty


def _converter(parameter: inspect.Parameter) -> Callable[[str], Any]:
    """Function that converts a word to a value."""
    kinds = _kinds(parameter)
    if bool in kinds:
        return truth_or_text if str in kinds else truth
    return whole_number if int in kinds else lambda word: at_home(not_empty(word))


def _values(parser: Parser, parameter: inspect.Parameter, words: Sequence[str]) -> Any:
    """Value of a parameter that was given without its name."""
    try:
        values = [_converter(parameter)(word) for word in words]
    except argparse.ArgumentTypeError as error:
        parser.error(f"--{parameter.name}: {error}")
    return values if _takes_several(parameter) else values[0]


def option_of(word: str) -> str:
    """Name of the option that a word begins, ``--x-y`` or ``--x_y=value``."""
    return word.partition("=")[0].removeprefix("--").replace("-", "_")


def _unmistakable(word: str, known: Container[str]) -> str:
    """A word as the parser knows it: ``--x_y`` for ``--x-y``; ``./-x`` for a file whose name begins as an option."""
    name, (_, equals, value) = option_of(word), word.partition("=")
    if word.startswith("--") and name in known:
        return f"--{name}{equals}{value}"
    return f"./{word}" if word.startswith("-") and word not in HELP and exists(word) else word


def _others(words: Sequence[str], known: Container[str], parser: Parser) -> tuple[list[str], dict[str, str | None]]:
    """Separate unknown options from the words; each option comes with its value, or None."""
    rest: list[str] = []
    others: dict[str, str | None] = {}
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        name, (_, equals, value) = option_of(word), word.partition("=")
        if not word.startswith("--") or name in known or name == "help":
            rest.append(word)
            continue
        if name in others:
            parser.error(TWICE.format(name))
        if equals:
            others[name] = value
        else:
            others[name] = waiting.pop(0) if waiting and not waiting[0].startswith("--") else None
    return rest, others


def _overview(program: str, commands: Mapping[str, Command]) -> str:
    """List of the commands and what each does."""
    width = max(map(len, commands)) + 2
    lines = [f"  {name:{width}}{(inspect.getdoc(command) or '').splitlines()[0]}" for name, command in commands.items()]
    return "\n".join([f"usage: {program} COMMAND ...", "", *lines, "", f"{program} COMMAND --help lists its options."])
