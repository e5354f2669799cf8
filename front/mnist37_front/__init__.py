"""A native front of a server: Envoy, which answers predictions itself and passes on the rest."""
