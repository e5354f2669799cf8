"""The benchmarks, one module a theme; each module has a function `rows`."""
