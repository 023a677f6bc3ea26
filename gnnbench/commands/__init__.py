"""The commands, one module each; the only room that knows all others.

A module is a command when it states
    NAME   the word after `gnnbench`;
    HELP   one line for `gnnbench --help`;
    add_arguments(parser)   its own arguments (--json and --debug are on every command);
    run(args) -> int        do it and return the exit code.
Every command is imported to build the help, so anything beyond the standard library and
gnnbench.errors is imported inside `run`.
"""
