"""The files of the tables: written in groups of rows as the clips come, and whole or not at all.

Decides how many rows memory holds. A file appears under its name when it is complete; it replaces a
table and nothing else.
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from jobs.errors import RefusedError, TableError
from jobs.overview.clips import OutputClip
from jobs.tables.arrow import batch_of, schema_of
from jobs.tables.columns import CLIP_COLUMNS, STAGE_COLUMNS, Column
from jobs.tables.rows import clip_row, stage_rows
from jobs.whole_files import unwritable, written_whole

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.csv import CSVWriter
    from pyarrow.parquet import ParquetWriter

Format = Literal["parquet", "csv"]
FORMATS: tuple[Format, ...] = ("parquet", "csv")
RECORDS, STAGES = "records", "stages"
BATCH_ROWS = 1_000  # as Python values
BATCH_CHARACTERS = 4_000_000  # in the texts of such rows, roughly
GROUP_ROWS = 50_000  # as Arrow's, before they are written
GROUP_BYTES = 64_000_000
PARQUET_MAGIC = b"PAR1"


class _AbandonedError(Exception):
    """Ends the block of an unfinished file without giving it its name."""


class TableFile:
    """One table on its way into a file.

    Args:
        path: the file; its folder must exist.
        form: format of the file.
        columns: the columns of its rows.
    """

    def __init__(self, path: Path, form: Format, columns: tuple[Column, ...]) -> None:
        self.path = path
        self.num_rows = 0
        self._columns = columns
        self._is_flat = form == "csv"
        self._rows: list[Sequence[Any]] = []
        self._num_characters = 0
        self._batches: list[pa.RecordBatch] = []
        with ExitStack() as stack:
            unfinished = stack.enter_context(written_whole(path))
            self._writer = _open_writer(unfinished, form, schema_of(columns, is_flat=self._is_flat))
            self._unfinished = stack.pop_all()

    def add(self, rows: Iterable[Sequence[Any]]) -> None:
        """Add rows, and write a group of them once there are many.

        Raises:
            TableError: pyarrow refuses a value.
            OSError: the file cannot be written.
        """
        for row in rows:
            self._rows.append(row)
            self._num_characters += _num_characters(row)
            self.num_rows += 1
            if len(self._rows) >= BATCH_ROWS or self._num_characters >= BATCH_CHARACTERS:
                self._end_batch()

    def _end_batch(self) -> None:
        if not self._rows:
            return
        try:
            batch = batch_of(self._columns, self._rows, is_flat=self._is_flat)
        except ValueError as error:  # as pyarrow's own errors are
            raise TableError(f"{self.path.name} cannot be written: {error}") from error
        self._batches.append(batch)
        self._rows, self._num_characters = [], 0
        num_rows = sum(one.num_rows for one in self._batches)
        num_bytes = sum(one.nbytes for one in self._batches)
        if num_rows >= GROUP_ROWS or num_bytes >= GROUP_BYTES:
            self._end_group()

    def _end_group(self) -> None:
        import pyarrow as pa

        if self._batches:
            table = pa.Table.from_batches(self._batches).unify_dictionaries()
            self._writer.write_table(table)
        self._batches = []

    def close(self) -> None:
        """Write what is left."""
        self._end_batch()
        self._end_group()
        self._writer.close()

    def publish(self) -> None:
        """Give the file its name."""
        self._unfinished.close()

    def abandon(self) -> None:
        """Remove what was written."""
        with suppress(OSError):
            self._writer.close()
        with suppress(OSError, _AbandonedError), self._unfinished:
            raise _AbandonedError


class ClipTables:
    """The table of clips and the table of stages, beside each other. Used with `with`.

    They get their names when the block ends without an error.
    """

    def __init__(self, clips: Path, stages: Path, form: Format) -> None:
        with ExitStack() as stack:
            self.clips = TableFile(clips, form, CLIP_COLUMNS)
            stack.callback(self.clips.abandon)
            self.stages = TableFile(stages, form, STAGE_COLUMNS)
            stack.pop_all()

    def add(self, clip: OutputClip) -> None:
        """Add the rows of a clip.

        Raises:
            RecordError: a number or a time of it is beyond what a table can hold; it has no row.
        """
        rows, stages = [clip_row(clip)], list(stage_rows(clip))
        self.clips.add(rows)
        self.stages.add(stages)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: object, _traceback: TracebackType | None
    ) -> None:
        tables = (self.clips, self.stages)
        try:
            if kind is None:
                for table in tables:
                    table.close()
                for table in tables:
                    table.publish()
        finally:
            for table in tables:
                table.abandon()


def _num_characters(value: Any) -> int:
    """Return the characters of all texts in a value."""
    match value:
        case str():
            return len(value)
        case dict():
            return sum(map(_num_characters, cast("dict[str, Any]", value).values()))
        case list() | tuple():
            return sum(map(_num_characters, cast("Sequence[Any]", value)))
        case _:
            return 0


def _open_writer(path: Path, form: Format, schema: "pa.Schema") -> "ParquetWriter | CSVWriter":
    if form == "csv":
        from pyarrow.csv import CSVWriter

        return CSVWriter(str(path), schema)
    from pyarrow.parquet import ParquetWriter

    return ParquetWriter(str(path), schema, compression="zstd")


def refuse_other_file(path: Path) -> None:
    """Refuse a file that is there and holds something else than a table of this room.

    Raises:
        RefusedError: it holds something else, or cannot be read.
    """
    heads: tuple[bytes, ...] = (
        PARQUET_MAGIC,
        b'"clip_id",',
        b"",
    )
    try:
        if not path.exists():
            return
        with path.open("rb") as file:
            head = file.read(len(heads[1]))
    except OSError as error:
        raise unwritable("--output", path, error) from error
    if not any(head.startswith(one) if one else not head for one in heads):
        raise RefusedError(f"--output: {path} holds something else than a table; name another file")
