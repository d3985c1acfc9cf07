"""The command line: one file a command. Commands read arguments, call the layers below, and print."""
