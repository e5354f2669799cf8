"""Tests of the table of roles: it has exactly the server's RPCs."""

from __future__ import annotations

from mnist37_server.access.roles import ALLOWED, FOLLOWS, OPEN, READS, REQUIRED_ROLES, Role
from mnist37_server.app import CONTRACTS


def test_the_table_has_exactly_the_servers_rpcs() -> None:
    served = {
        service.full_name: {method.name for method in service.methods}
        for contract in CONTRACTS
        for service in contract.services_by_name.values()
    }
    served["grpc.reflection.v1.ServerReflection"] = {"ServerReflectionInfo"}
    listed = {
        service: [method for methods in needed.values() for method in methods]
        for service, needed in REQUIRED_ROLES.items()
    }
    assert {service: set(methods) for service, methods in listed.items()} == served
    assert all(len(methods) == len(set(methods)) for methods in listed.values())


def test_writes_need_train_and_open_rpcs_do_not_touch_the_model() -> None:
    service = "mnist37.v1.Mnist37Service"
    assert set(REQUIRED_ROLES[service]) == {Role.PREDICT, Role.FOLLOW, Role.TRAIN}
    writes = {f"/{service}/{method}" for method in REQUIRED_ROLES[service][Role.TRAIN]}
    assert not writes & (READS | FOLLOWS)
    assert ALLOWED[Role.PREDICT] < ALLOWED[Role.FOLLOW]
    assert all(prefix.startswith(("/grpc.health.", "/grpc.reflection.")) for prefix in OPEN)
