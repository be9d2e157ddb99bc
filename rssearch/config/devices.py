"""Machines that measure the networks of a study: their section of the YAML."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from rssearch.agent.protocol import LONGEST_LEASE, MOST_THREADS, is_loopback
from rssearch.config.scalars import Integer, Real
from rssearch.config.section import Section
from rssearch.errors import shown

__all__ = ["Device"]


class Device(Section):
    """A machine that measures the networks of a study: where the study waits for its agent."""

    listen: str = Field(
        "127.0.0.1:8765",
        description="address that the study listens at while it runs, HOST:PORT; other machines than this one are "
        "served with a certificate alone",
    )
    token_file: str | None = Field(
        None, description="file with the token that the agent shows; null: the variable RSSEARCH_AGENT_TOKEN"
    )
    certificate: str | None = Field(None, description="file of the certificate for HTTPS, in PEM; null: HTTP")
    private_key: str | None = Field(None, description="file of its key; null: it is in the same file")
    threads: Integer = Field(1, ge=1, le=MOST_THREADS, description="CPU threads that a network gets on the device")
    wait: Real = Field(60, ge=0, description="seconds that the end of a search waits for an agent that is not heard of")
    lease: Real = Field(
        300, ge=1, le=LONGEST_LEASE, description="seconds after which a network that was handed out is handed out again"
    )

    @field_validator("listen")
    @classmethod
    def _address(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isascii() or not port.isdecimal() or len(port) > 5 or int(port) > 65535:
            raise ValueError(f"must be HOST:PORT, such as 127.0.0.1:8765, not {shown(value)}")
        return value

    @model_validator(mode="after")
    def _seen_by_nobody(self) -> Device:
        if not is_loopback(self.address[0]) and self.certificate is None:
            raise ValueError(
                f"listen: {self.listen} can be reached from other machines, where the token would be seen on its way; "
                "give a certificate, or listen at 127.0.0.1 and lead a tunnel there"
            )
        if self.private_key is not None and self.certificate is None:
            raise ValueError("private_key: needs a certificate")
        return self

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)
