"""The verbs of the command line: parse, call one function, print. Heavy imports happen inside the verb."""
