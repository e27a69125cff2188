"""Lazy loading of commands, so that `--help` and `status` do not import all of them.

Groups of commands, and Typer's conversion of values, are loaded only when used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from atom_saas_sync.characters import printable
from atom_saas_sync.errors import UsageError

if TYPE_CHECKING:
    from typer._click import Command, Context, HelpFormatter, Parameter
    from typer._click.shell_completion import CompletionItem
    from typer.models import CommandInfo


@dataclass(frozen=True)
class Part:
    """A command or group: its module, its name there, and its line in `--help`.

    A group may register one as a command; its line is then that of the command itself.
    """

    module: str
    attribute: str
    help: str = ""

    def __call__(self) -> Any:  # noqa: ANN401 - a function or a Typer
        """Import it."""
        return getattr(import_module(self.module), self.attribute)


HELP_OPTIONS = ["-h", "--help"]


# A limit that nobody reaches is not shown.
_NO_LIMIT = 10**9


class _Option(TyperOption):
    """An option whose default is not converted."""

    def process_value(self, ctx: Context, value: Any) -> Any:  # noqa: ANN401 - click's signature
        """Return what the command gets."""
        if _is_untyped(self, ctx):
            return _default(self, ctx, value)
        if ctx.resilient_parsing:  # completion: values are looked at, and not used
            return value
        if _is_text(self, value):
            return _default(self, ctx, value if isinstance(value, str) else list(value))
        try:
            return super().process_value(ctx, value)
        except typer.BadParameter as error:
            raise _invalid(self, self.opts[0], value, error) from error

    def shell_complete(self, ctx: Context, incomplete: str) -> list[CompletionItem]:
        """Return the values that may be meant."""
        return _offered(ctx, self, incomplete)

    def _get_number_range_help_str(self) -> str | None:
        return _range_of(self)


class _Argument(TyperArgument):
    """An argument whose default is not converted."""

    def process_value(self, ctx: Context, value: Any) -> Any:  # noqa: ANN401 - click's signature
        """Return what the command gets."""
        if _is_untyped(self, ctx):
            return _default(self, ctx, value)
        if ctx.resilient_parsing:  # completion: values are looked at, and not used
            return value
        if _is_text(self, value):
            return _default(self, ctx, value if isinstance(value, str) else list(value))
        try:
            return super().process_value(ctx, value)
        except typer.BadParameter as error:
            raise _invalid(self, self.display_name_raw, value, error) from error

    def display_type_rich(self, ctx: Context) -> str | None:  # noqa: ARG002 - click's signature
        """Return nothing: the name in `--help` is enough."""
        return None

    def shell_complete(self, ctx: Context, incomplete: str) -> list[CompletionItem]:
        """Return the values that may be meant."""
        return _offered(ctx, self, incomplete)

    @property
    def display_name_raw(self) -> str:
        """Return the name that errors and the list of arguments show."""
        name = self.metavar or self.name.upper()
        # Not the brackets of `ID[@DIGEST]`.
        return name.strip("[]…") if name.startswith("[") else name.removesuffix("…")

    def _rich_display_name(self) -> str:
        return self.display_name_raw + ("…" if self.nargs != 1 else "")

    def _usage_display_name(self) -> str:
        return self._rich_display_name() if self.required else f"[{self._rich_display_name()}]"

    def _get_number_range_help_str(self) -> str | None:
        return _range_of(self)


class _Command(TyperCommand):
    """A command whose help has examples, and whose line in a list is never cut."""

    def format_epilog(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the examples, then the epilog."""
        _write_examples(ctx, formatter)
        super().format_epilog(ctx, formatter)

    def get_short_help_str(self, limit: int = 0) -> str:  # noqa: ARG002 - click's signature
        """Return the first line of its help."""
        return _summary(self)


class _Group(TyperGroup):
    """A group whose help has examples, and whose line in a list is never cut."""

    def format_epilog(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the examples, then the epilog."""
        _write_examples(ctx, formatter)
        super().format_epilog(ctx, formatter)

    def get_short_help_str(self, limit: int = 0) -> str:  # noqa: ARG002 - click's signature
        """Return the first line of its help."""
        return _summary(self)


def _offered(ctx: Context, parameter: TyperOption | TyperArgument, typed: str) -> list[CompletionItem]:
    from typer._click.shell_completion import CompletionItem

    from atom_saas_sync.cli.completing import candidates

    return [CompletionItem(value, help=meaning) for value, meaning in candidates(ctx, parameter, typed)]


def _write_examples(ctx: Context, formatter: HelpFormatter) -> None:
    from atom_saas_sync.cli.examples import EXAMPLES

    examples = EXAMPLES.get(ctx.command_path.partition(" ")[2], ())
    if examples:
        with formatter.section("Examples"):
            for example in examples:
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")


def _summary(command: Command) -> str:
    return (command.help or "").strip().partition("\n")[0]


def _invalid(
    parameter: TyperOption | TyperArgument,
    name: str,
    value: object,
    error: typer.BadParameter,
) -> Exception:
    """Return the error for a value of the wrong type or out of range; `error` itself if it is about something else."""
    kind = {int: "a whole number", list[int]: "whole numbers", float: "a number"}.get(
        parameter.type_descriptor.annotation
    )
    if value is None or kind is None:
        return error
    shown = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    limits = _range_of(parameter) or ("at least 0" if parameter.min == 0 else None)
    return UsageError(f"invalid {name} {printable(shown)!r}: expected {kind}" + (f", {limits}" if limits else ""))


def _range_of(parameter: TyperOption | TyperArgument) -> str | None:
    """Describe the accepted numbers; None if nearly all are."""
    low = parameter.min or None
    high = None if parameter.max is None or parameter.max >= _NO_LIMIT else parameter.max
    if high is None:
        return None if low is None else f"at least {low}"
    return f"at most {high}" if low is None else f"{low} to {high}"


def _is_untyped(parameter: TyperOption | TyperArgument, ctx: Context) -> bool:
    """Tell whether an optional parameter was not given: the command gets the declared default.

    Typer would convert the default too, and load pydantic for it: a quarter of a command's start-up time.
    """
    source = ctx.get_parameter_source(parameter.name)
    return source is not None and source.name == "DEFAULT" and not parameter.required


def _is_text(parameter: TyperOption | TyperArgument, value: object) -> bool:
    """Tell whether the given value is text and needs no conversion (see _is_untyped)."""
    annotation = parameter.type_descriptor.annotation
    if annotation == list[str]:
        return isinstance(value, list | tuple) and len(value) > 0
    return annotation is str and isinstance(value, str)


def _default(parameter: TyperOption | TyperArgument, ctx: Context, value: Any) -> Any:  # noqa: ANN401 - of any type
    if value is None and (parameter.multiple or parameter.nargs == -1):
        value = ()
    return value if parameter.callback is None else parameter.callback(ctx, parameter, value)


Take = Callable[["Context", str, Any], None]
"""Receives a global option given after the command: the command's context, the option's name and value."""


class _Repeated(_Option):
    """A global option after the command. Hidden: `--help` of the program lists it once."""

    def __init__(self, option: TyperOption, own: set[str], take: Take) -> None:
        vars(self).update(vars(option))
        self._take = take
        self._field = option.name
        # If the command has an option of the same name, that one is meant.
        self.name = f"global {option.name}"
        self.opts = [name for name in option.opts if name not in own]
        self.hidden = True
        self.expose_value = False

    def process_value(self, ctx: Context, value: Any) -> None:  # noqa: ANN401 - click's signature
        """Pass the value on if it was given."""
        if _is_untyped(self, ctx):
            return
        if ctx.resilient_parsing:
            ctx.find_root().params[self._field] = value  # completion reads ids from the given database
            return
        self._take(ctx, self._field, super().process_value(ctx, value))


def _prepare(command: Command, shared: Sequence[TyperOption], take: Take) -> None:
    """Take defaults as they are, and the global options after the command too."""
    own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    repeated = [_Repeated(option, own, take) for option in shared]
    help_option = command.get_help_option(typer.Context(command, help_option_names=HELP_OPTIONS))
    _leave_defaults([*command.params, help_option])
    command.params += [option for option in repeated if option.opts]
    command.epilog = "The global options of `atom-sync --help`, such as -v, also work here."
    with suppress(TypeError):  # as in _leave_defaults
        if type(command) is TyperCommand:
            command.__class__ = _Command
        elif type(command) is TyperGroup:
            command.__class__ = _Group


def _leave_defaults(parameters: Iterable[Parameter | None]) -> None:
    for parameter in parameters:
        with suppress(TypeError):  # with a Typer whose objects cannot change their class, values are converted as usual
            if type(parameter) is TyperOption:
                parameter.__class__ = _Option
            elif type(parameter) is TyperArgument:
                parameter.__class__ = _Argument


def _hide_replaced(parameters: Iterable[Parameter]) -> None:
    """Hide Typer's own options for completion: `completion` replaces them. What they have installed still works."""
    for parameter in parameters:
        if isinstance(parameter, TyperOption) and parameter.name in {"install_completion", "show_completion"}:
            parameter.hidden = True


class LazyCommands(MutableMapping[str, "Command"]):
    """The commands by name, each made when somebody asks for it."""

    def __init__(self, makers: Mapping[str, Callable[[], Command]], shared: Sequence[TyperOption], take: Take) -> None:
        self._makers = makers
        self._shared = shared
        self._take = take
        self._made: dict[str, Command] = {}

    def __getitem__(self, name: str) -> Command:
        if name not in self._made:
            command = self._makers[name]()
            _prepare(command, self._shared, self._take)
            self._made[name] = command
        return self._made[name]

    def __setitem__(self, name: str, command: Command) -> None:
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        del self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._makers, *self._made]))

    def __len__(self) -> int:
        return len(list(iter(self)))


def lazy_group(parts: dict[str, Part], take: Take) -> type[TyperGroup]:
    """Return the class of a group with these parts, in addition to commands registered in the usual way.

    Its own options are also allowed after a command; `take` receives them.
    """

    class LazyGroup(TyperGroup):
        def __init__(self, **attributes: Any) -> None:  # noqa: ANN401 - passed on
            super().__init__(**attributes)
            registered = self.commands
            shared = [option for option in self.params if isinstance(option, TyperOption)]
            makers = {name: partial(_make, name, part, shared, take) for name, part in parts.items()}
            self.commands = LazyCommands(makers, shared, take)
            self.commands.update(registered)

        def get_params(self, ctx: Context) -> list[Parameter]:
            """Return the options; Typer has already added those for completion."""
            parameters = super().get_params(ctx)
            _leave_defaults(parameters)
            _hide_replaced(parameters)
            return parameters

        def shell_complete(self, ctx: Context, incomplete: str) -> list[CompletionItem]:
            """Return the matching commands, without importing them, or the options."""
            from typer._click import Command
            from typer._click.shell_completion import CompletionItem

            found = [
                CompletionItem(name, help=part.help) for name, part in parts.items() if name.startswith(incomplete)
            ]
            return [*found, *Command.shell_complete(self, ctx, incomplete)]

        def format_epilog(self, ctx: Context, formatter: HelpFormatter) -> None:
            """Write the examples."""
            _write_examples(ctx, formatter)

        def list_commands(self, ctx: Context) -> list[str]:  # noqa: ARG002 - click's signature
            """Return the names only; iterating over the items would create every command."""
            return list(self.commands)

        def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
            """Write the list of commands for `--help` without importing them."""
            lines = {name: part.help for name, part in parts.items()}
            for name in self.list_commands(ctx):
                if name not in lines:
                    lines[name] = self.commands[name].get_short_help_str(formatter.width)
            with formatter.section("Commands"):
                formatter.write_dl(list(lines.items()))

    return LazyGroup


def _make(name: str, part: Part, shared: Sequence[TyperOption], take: Take) -> Command:
    target: typer.Typer | Callable[..., None] = part()
    around = typer.Typer(add_completion=False, rich_markup_mode=None)
    if not isinstance(target, typer.Typer):
        around.command(name)(target)
        return typer.main.get_group(around).commands[name]
    # Without its commands: Typer would make all of them, which takes longer than to run one.
    bare = copy(target)
    bare.registered_commands = []
    around.add_typer(bare, name=name)
    group = typer.main.get_group(around).commands[name]
    makers = {_name_of(info): partial(_make_below, info) for info in target.registered_commands}
    group.commands = LazyCommands(makers, shared, take)  # type: ignore[attr-defined]
    return group


def _name_of(info: CommandInfo) -> str:
    return info.name or typer.main.get_command_name(info.callback.__name__)  # type: ignore[union-attr]


def _make_below(info: CommandInfo) -> Command:
    if isinstance(info.callback, Part):
        info.callback = info.callback()
    return typer.main.get_command_from_info(info, pretty_exceptions_short=True, rich_markup_mode=None)
