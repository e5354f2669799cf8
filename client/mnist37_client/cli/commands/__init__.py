"""The commands of `mnist37`, one module a theme."""
