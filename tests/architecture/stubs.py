"""Generates protocol/crossbank_pb2* from the schema, or with --check says whether they are fresh. Not a test."""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("crossbank_pb2.py", "crossbank_pb2.pyi", "crossbank_pb2_grpc.py")


def generate(out: Path) -> None:
    """Run protoc into a folder and make the import absolute."""
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(ROOT / "protocol" / "proto")]
    command += [f"--python_out={out}", f"--pyi_out={out}", f"--grpc_python_out={out}", "crossbank.proto"]
    subprocess.run(command, check=True)
    stub = out / "crossbank_pb2_grpc.py"
    text = stub.read_text()
    stub.write_text(text.replace("\nimport crossbank_pb2 as", "\nfrom protocol import crossbank_pb2 as"))


def stale() -> list[str]:
    """Names of generated files that differ from what the schema gives."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        generate(out)
        return [n for n in NAMES if (out / n).read_text() != (ROOT / "protocol" / n).read_text()]


if __name__ == "__main__":
    if "--check" in sys.argv:
        wrong = stale()
        print(f"stubs are stale: {', '.join(wrong)}; run `make stubs`" if wrong else "stubs are fresh")
        sys.exit(bool(wrong))
    generate(ROOT / "protocol")
