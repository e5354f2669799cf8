"""The benchmarks, by theme; each module has a function `rows`."""
