"""Our certificate and the CAs that we trust: [tls], shared by the TLS port and by every peer with `tls = true`."""

from pathlib import Path
from typing import Self

from pydantic import Field

from dicomnode.config.fields import ConfigTable, File
from dicomnode.network.tls import TlsFiles


class TlsTable(ConfigTable):
    """PEM files. They are read again when they change."""

    certificate: File = Field(description="give the file of our certificate (PEM), with its intermediate CAs behind it")
    key: File = Field(description="give the file of its private key (PEM, without a password, mode 0600)")
    ca_file: File = Field(description="give the file of the trusted CAs (PEM)")
    crl_file: File | None = Field(None, description="give the file of the CAs' revocation lists (PEM), or omit the key")

    def resolved(self, folder: Path) -> Self:
        """Return the same with its paths made absolute against `folder`."""
        given = {key: getattr(self, key) for key in type(self).model_fields}
        return self.model_copy(update={key: folder / path for key, path in given.items() if path is not None})

    @property
    def files(self) -> TlsFiles:
        """As the network has them."""
        return TlsFiles(self.certificate, self.key, self.ca_file, self.crl_file)
