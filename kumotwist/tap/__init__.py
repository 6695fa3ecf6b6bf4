"""The C{twistd} plugins' command lines: C{kumo}, C{kumoproxy} and C{kumosink}."""
