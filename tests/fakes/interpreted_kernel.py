"""A process whose Triton interprets kernels on the CPU, and which answers calls of NAG's kernel."""

import traceback
from multiprocessing.connection import Connection


def serve(connection: Connection) -> None:
    """Guide rows until the connection closes. Start it with TRITON_INTERPRET=1."""
    from nag.formulas.guidance_kernel import guide_rows

    while True:
        try:
            arguments = connection.recv()
        except EOFError:
            return
        try:
            connection.send(guide_rows(*arguments))
        # Whatever the kernel raises must reach the test, which fails with this traceback.
        except Exception:  # noqa: BLE001
            connection.send(traceback.format_exc())
