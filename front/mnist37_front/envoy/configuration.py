"""The configuration of Envoy: listeners, limits, and the connection to the owner."""

from __future__ import annotations

import ipaddress
import json

from mnist37_server.domain.address import Address, for_callers
from mnist37_server.rpc.listening import find_port

from mnist37_front.envoy.routes import (
    EXTENSIONS,
    OWNER,
    SELF,
    Config,
    authorization,
    local_replies,
    protocol_header,
    routes,
)
from mnist37_front.envoy.tls import downstream_tls, upstream_tls
from mnist37_front.settings import CONNECTIONS_MAX, FrontSettings

APPLICATION = {
    "app": "mnist37_front.app:app",
    "interface": "asgi",
    "root_path": "",
    "loop": "uvloop",
}
# Limits. Those in seconds are for what a caller has not finished to send.
HEADERS_SECONDS = 10
IDLE_CONNECTION_SECONDS = 60
HEADERS_KIB = 64
STREAMS_MAX = 1_024  # of a connection
PING_SECONDS_MAX = 20  # for the answer to a ping
CONNECTION_WINDOW = 4 << 20  # bytes of a connection that were sent and not read yet
STREAM_WINDOW = 1 << 20
HEAP_BYTES = 1 << 30  # from here on the front takes no further requests
ACCOUNT_BITS_MIN = 12  # 4 KiB
OWNER_CALLS_MAX = 4_096  # that are passed on at a time
# Taken from a connection before the others have their turn. Without it, a caller who resets its
# calls at once had a call of others wait for 3.5 s; with it, the median is 6 ms.
CALLS_A_TURN = 16
THRESHOLDS = {
    "max_connections": 1_024,
    "max_pending_requests": OWNER_CALLS_MAX,
    "max_requests": OWNER_CALLS_MAX,
}


def configure(settings: FrontSettings, module: str) -> Config:
    """Return the configuration of Envoy.

    Args:
        settings: of the front.
        module: the path of pyvoy's module.

    Raises:
        CannotStart: the address to listen on is none of this machine's, or in use.
    """
    tls = downstream_tls(settings)
    listeners = [
        listener(f"front-{number}", address, module, tls, settings, is_internal=False)
        for number, address in enumerate(listening_addresses(settings.parsed_address))
    ]
    internal = {"pipe": {"path": str(settings.internal_socket), "mode": 0o600}}
    listeners.append(listener("internal", internal, module, None, settings, is_internal=True))
    return {
        "node": {"id": "front", "cluster": "mnist37"},  # Envoy asks for it, to watch certificates
        "admin": {"address": {"pipe": {"path": str(settings.admin_socket), "mode": 0o600}}},
        "static_resources": {
            "listeners": listeners,
            "clusters": [owner_cluster(settings), self_cluster(settings)],
        },
        "overload_manager": overload_manager(),
        "layered_runtime": {
            "layers": [
                {
                    "name": "limits",
                    "static_layer": {"http.max_requests_per_io_cycle": CALLS_A_TURN},
                }
            ]
        },
    }


def listening_addresses(address: Address) -> list[Config]:
    """Return Envoy's addresses for all addresses of a host, or for a socket file."""
    if address.path is not None:
        return [{"pipe": {"path": str(address.path)}}]
    hosts, port = find_port("--address", address)
    return [
        {
            "socket_address": {
                "address": host,
                "port_value": port,
                **({"ipv4_compat": True} if host == "::" else {}),
            }
        }
        for host in hosts
    ]


def listener(
    name: str,
    address: Config,
    module: str,
    tls: Config | None,
    settings: FrontSettings,
    *,
    is_internal: bool,
) -> Config:
    """Return a listener with all routes."""
    asks_for_tokens = settings.tokens is not None
    lifetime: Config = {"idle_timeout": f"{IDLE_CONNECTION_SECONDS}s"}
    if settings.max_connection_age is not None and not is_internal:
        lifetime["max_connection_duration"] = f"{settings.max_connection_age}s"
    connection_manager = {
        "@type": f"{EXTENSIONS}filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "front",
        "generate_request_id": False,
        "server_header_transformation": "PASS_THROUGH",
        "max_request_headers_kb": HEADERS_KIB,
        "request_headers_timeout": f"{HEADERS_SECONDS}s",
        "stream_idle_timeout": "0s",  # a run that waits for its turn is silent
        "stream_flush_timeout": f"{settings.message_timeout}s",  # for an answer to be read
        "common_http_protocol_options": lifetime,
        # By HTTP/1.1 the next reply says that it is the last; a request on its way is not lost.
        "http1_safe_max_connection_duration": True,
        "http2_protocol_options": {
            "max_concurrent_streams": STREAMS_MAX,
            "initial_stream_window_size": STREAM_WINDOW,
            "initial_connection_window_size": CONNECTION_WINDOW,
            "connection_keepalive": {
                "interval": f"{settings.keepalive}s",
                "timeout": f"{min(settings.keepalive, PING_SECONDS_MAX)}s",
            },
        },
        "early_header_mutation_extensions": [protocol_header()],
        "local_reply_config": {"mappers": local_replies(for_callers(settings.owner))},
        "http_filters": [
            *([authorization()] if asks_for_tokens else []),
            {
                "name": "pyvoy",
                "typed_config": {
                    "@type": f"{EXTENSIONS}filters.http.dynamic_modules.v3.DynamicModuleFilter",
                    "dynamic_module_config": {"module": {"local": {"filename": module}}},
                    "filter_config": {
                        "@type": "type.googleapis.com/google.protobuf.StringValue",
                        "value": json.dumps(APPLICATION),
                    },
                    "filter_name": "pyvoy",
                    "terminal_filter": False,
                },
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{EXTENSIONS}filters.http.router.v3.Router"},
            },
        ],
        "route_config": {
            "name": "front",
            "virtual_hosts": [
                {"name": "front", "domains": ["*"], "routes": routes(asks_for_tokens, is_internal)}
            ],
        },
    }
    chain: Config = {
        "filters": [
            {
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": connection_manager,
            }
        ]
    }
    if tls is not None:
        chain["transport_socket"] = tls
        chain["transport_socket_connect_timeout"] = f"{HEADERS_SECONDS}s"
    return {
        "name": name,
        "address": address,
        "per_connection_buffer_limit_bytes": STREAM_WINDOW,
        "filter_chains": [chain],
    }


def self_cluster(settings: FrontSettings) -> Config:
    """Return the cluster of the front itself, by its internal socket."""
    address = {"pipe": {"path": str(settings.internal_socket)}}
    return {
        "name": SELF,
        "type": "STATIC",
        "connect_timeout": "2.5s",
        "circuit_breakers": {"thresholds": [THRESHOLDS]},
        "load_assignment": {
            "cluster_name": SELF,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


def owner_cluster(settings: FrontSettings) -> Config:
    """Return the cluster of the one server that owns the model."""
    owner = settings.parsed_owner
    address: Config
    if owner.path is not None:
        kind, address = "STATIC", {"pipe": {"path": str(owner.path)}}
    else:
        kind = "STATIC" if is_ip(owner.host) else "STRICT_DNS"
        address = {"socket_address": {"address": owner.host, "port_value": owner.port}}
    cluster: Config = {
        "name": OWNER,
        "type": kind,
        "connect_timeout": "2.5s",
        "circuit_breakers": {"thresholds": [THRESHOLDS]},
        "load_assignment": {
            "cluster_name": OWNER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{EXTENSIONS}upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {
                    "http2_protocol_options": {
                        "connection_keepalive": {"interval": "30s", "timeout": "20s"}
                    }
                },
            }
        },
    }
    if (tls := upstream_tls(settings)) is not None:
        cluster["transport_socket"] = tls
    return cluster


def is_ip(host: str) -> bool:
    """Return whether a host is an address of IP, and no name."""
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def overload_manager() -> Config:
    """Return what Envoy does before its memory or its connections run out."""

    def action(name: str, threshold: float) -> Config:
        trigger = {
            "name": "envoy.resource_monitors.fixed_heap",
            "threshold": {"value": threshold},
        }
        return {"name": f"envoy.overload_actions.{name}", "triggers": [trigger]}

    return {
        "refresh_interval": "0.25s",
        # What Envoy itself holds of each call is counted from this size on, a power of two.
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": ACCOUNT_BITS_MIN},
        "resource_monitors": [
            {
                "name": "envoy.resource_monitors.fixed_heap",
                "typed_config": {
                    "@type": f"{EXTENSIONS}resource_monitors.fixed_heap.v3.FixedHeapConfig",
                    "max_heap_size_bytes": HEAP_BYTES,
                },
            },
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": f"{EXTENSIONS}resource_monitors.downstream_connections.v3"
                    ".DownstreamConnectionsConfig",
                    "max_active_downstream_connections": CONNECTIONS_MAX,
                },
            },
        ],
        "actions": [
            action("shrink_heap", 0.8),
            # Before everybody is refused, the calls that hold most are reset.
            {
                "name": "envoy.overload_actions.reset_high_memory_stream",
                "triggers": [
                    {
                        "name": "envoy.resource_monitors.fixed_heap",
                        "scaled": {"scaling_threshold": 0.7, "saturation_threshold": 0.9},
                    }
                ],
            },
            action("disable_http_keepalive", 0.9),
            action("stop_accepting_requests", 1.0),
        ],
    }
