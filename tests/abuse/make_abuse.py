"""The hostile files: for each rule, one payload that breaks it and nothing else. Run this file to write new ones."""

from pathlib import Path

from comask.wire.header import BlockHeader, Header, seal, write_header

FOLDER = Path(__file__).parent
DIM = 40
VALID = bytes.fromhex("C04D534B010028070102030301000CC486030000003F000080BF0000803ECEB52327")


def payload(*blocks: tuple[BlockHeader, bytes], dim: int = DIM, fingerprint: bytes | None = None) -> bytes:
    """A payload whose frame is right, whatever the sections hold."""
    header = write_header(Header(dim, 1, fingerprint, 0, tuple(block for block, _ in blocks)))
    return seal(header + b"".join(section for _, section in blocks))


def mask(coding: int, k: int, section: bytes) -> bytes:
    """A payload of one block without values."""
    return payload((BlockHeader(coding, k, len(section), (), ()), section))


def values(coding: int, k: int, section: bytes) -> bytes:
    """A payload that keeps the first `k` positions, for one stream."""
    bitmap = ((1 << k) - 1).to_bytes(DIM // 8, "little")
    return payload((BlockHeader(1, k, len(bitmap), (coding,), (len(section),)), bitmap + section))


def cases() -> dict[str, bytes]:
    front = b"\xc0MSK\x01"
    return {
        "magic": b"\xc1" + VALID[1:],
        "version": VALID[:4] + b"\x02" + VALID[5:],
        "checksum": VALID[:-1] + bytes((VALID[-1] ^ 1,)),
        "flags": seal(front + b"\x04\x28\x07\x00"),
        "truncated": seal(VALID[:-5]),
        "varint": seal(front + b"\x00\xa8\x00\x07\x00"),
        "trailing": seal(VALID[:-4] + b"\x00"),
        "dim": payload(dim=DIM + 1),
        "layout": payload(fingerprint=b"\x00" * 8),
        "buffers": seal(front + b"\x02\x28\x07\x00\x00"),
        "streams": payload(*((BlockHeader(2, 0, 0, (), ()), b"") for _ in range(17))),
        "kept": payload((BlockHeader(2, DIM + 1, 6, (), ()), b"\xff" * 6)),
        "index-coding": mask(255, 1, b"\x00"),
        "index-length": mask(2, 3, bytes.fromhex("C486")),
        "index-range": mask(2, 1, bytes.fromhex("4B14")),  # modulus 2**6, quotient 0, low bits 40
        "index-order": mask(5, 2, bytes.fromhex("0500000005000000")),
        "index-count": mask(1, 2, b"\x07\x00\x00\x00\x00"),
        "index-padding": mask(2, 3, bytes.fromhex("C48683")),
        "rice-parameter": mask(2, 1, b"\x7f"),
        "index-shape": mask(8, 1, bytes.fromhex("0127270300")),  # 39 entries of 40
        "value-coding": payload((BlockHeader(2, 0, 0, (255,), (0,)), b"")),
        "stream": b"\xc0MSS\x01\x28" + bytes((len(VALID),)) + VALID + b"\x00" + bytes(4),
        "value-scale": values(10, 1, bytes.fromhex("80BF00")),
        "value-code": values(3, 1, bytes.fromhex("803F80")),
        "value-padding": values(8, 1, bytes.fromhex("0000803F400008")),
        "value-length": payload((BlockHeader(2, 0, 0, (0,), (1,)), b"\x00")),
    }


def main() -> None:
    for rule, data in cases().items():
        (FOLDER / f"{rule}.bin").write_bytes(data)


if __name__ == "__main__":
    main()
