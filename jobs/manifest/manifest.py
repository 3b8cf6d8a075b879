"""A manifest: a YAML, JSONL, table or list of prompts with the clips of a run.

Rows are streamed and can be walked again; a million rows are never held. To find duplicates, a
walk holds one 16-byte digest for each clip and one for each given name. `flat_file` and
`yaml_manifest` read the file, and the folder `walk` makes each row a `ClipSpec`, and each error a
`ManifestError` with file and line. Loads without torch.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from jobs.digests import DigestSet, digest_of
from jobs.errors import ManifestError
from jobs.inputs.checked_inputs import CheckedInputs, ReadS3
from jobs.manifest.field_values import at, check_extra_columns, check_run_name
from jobs.manifest.flat_file import FlatFile, open_flat_file
from jobs.manifest.lines import ManifestFile, SourceLocation
from jobs.manifest.resolving import Resolver
from jobs.manifest.rows import Catalog, Given, Row
from jobs.manifest.walk.identifying import (
    BATCH_CLIPS,
    Resolved,
    RowClip,
    identified,
    in_batches,
    read_prompts,
)
from jobs.manifest.walk.random_seeds import RandomSeeds
from jobs.manifest.walk.selection import ALL, ALL_ROWS, ManifestRow, MarkedRows, Selection, Wanted
from jobs.manifest.yaml_manifest import YamlFile, open_yaml_file
from jobs.text import shown
from jobs.timetable.dated_output import MIDNIGHT_IN_UTC, Calendar
from jobs.types import BrokenClip, ClipSpec
from pipelines.clip_inputs import InputFile
from pipelines.errors import RequestError


@dataclass(frozen=True, eq=False)
class Manifest:
    """The clips of one manifest.

    Args:
        digest: SHA-256 of the manifest's bytes, followed by the SHA-256 of each file that an axis
            names.
        defaults: values of the fields that a row may leave out.
        calendar: rule by which the output is named after a day.
        inputs: the images and videos that its rows name, as far as they were read.
        output_line: line that gives the output; None if no line of the manifest does.
        selection: the rows that the methods yield.
        salt: random bytes of the output, from which random seeds follow.
    """

    name: str
    output: str | None
    path: ManifestFile
    digest: str
    defaults: dict[str, Given]
    _source: FlatFile | YamlFile
    _catalog: Catalog
    inputs: CheckedInputs
    calendar: Calendar = MIDNIGHT_IN_UTC
    output_line: SourceLocation | None = None
    selection: Selection = ALL
    salt: bytes = b""

    @property
    def catalog(self) -> Catalog:
        return self._catalog

    def check_unchanged(self) -> None:
        """Raise ManifestError if the file was rewritten since; appended lines do not count."""
        self._source.watch.check()

    def has_grown(self) -> bool:
        """Return True if lines were appended since; they are not part of this manifest."""
        return self._source.watch.has_grown()

    def specs(self) -> Iterator[ClipSpec]:
        """Yield every clip once, in the manifest's order, under the name of its first row.

        Raises:
            ManifestError: at the first row that is wrong, or whose model is missing or broken.
        """
        for row in self.rows():
            if isinstance(row.clip, BrokenClip):
                raise ManifestError(row.clip.message)
            if not row.is_repeat:
                yield row.clip.spec()

    def marked_rows(self, marks: bytes, num_ahead: int = BATCH_CLIPS) -> Iterator[ManifestRow]:
        """Yield the rows with a mark, and read no others.

        A row counts as a repeat only if an earlier row with a mark asks for the same clip, and the
        seeds of rows without a name are those of `rows` if all such rows with equal content have
        marks.

        Args:
            marks: a byte for each row, from the first one on; 1 marks it.
            num_ahead: as for `rows`.

        Raises:
            ManifestError: as `rows`, at a row with a mark.
        """
        return self._all_rows(num_ahead, MarkedRows(marks))

    def rows(self, num_ahead: int = BATCH_CLIPS) -> Iterator[ManifestRow]:
        """Yield the rows of the selection. Several rows may ask for one clip, under several names.

        A model that is missing or broken stops no other: its rows ask for a `BrokenClip` each.

        Args:
            num_ahead: rows that are read ahead, since many texts are tokenized faster together.

        Raises:
            ManifestError: at the first row that is wrong; at the end if the manifest has no row.
            RefusedError: at the end if the selection names a clip that is not there.
        """
        return self.selection.of(lambda: self._all_rows(num_ahead), str(self.path))

    def _all_rows(self, num_ahead: int, wanted: Wanted = ALL_ROWS) -> Iterator[ManifestRow]:
        clips, names = DigestSet(), DigestSet()
        index = -1
        for index, row, clip, is_random in self._identified_rows(num_ahead, wanted):
            is_named = "name" in row.values
            if is_named and not names.add(digest_of(clip.name)):
                first = self._location_of_first(clip.name, before=index)
                raise row.location_of("name").refuse(
                    f"the name {clip.name!r} is taken by the clip at {first}"
                )
            is_repeat = not clips.add(bytes.fromhex(clip.clip_id))
            yield ManifestRow(index, clip, is_named, is_random, is_repeat)
        if index < 0 and wanted is ALL_ROWS:
            raise SourceLocation(str(self.path), 1).refuse(
                "expected at least one clip, there is none"
            )

    def _identified_rows(
        self, num_ahead: int, wanted: Wanted
    ) -> Iterator[tuple[int, Row, RowClip | BrokenClip, bool]]:
        """Yield each wanted row with its number and its clip, and True if its seed was drawn."""
        seeds, resolver = RandomSeeds(self.salt), self._resolver()
        for batch in in_batches(self._resolved_rows(resolver, wanted, num_ahead), num_ahead):
            prompts = read_prompts([clip for _, _, clip in batch])
            for (index, row, clip), prompt in zip(batch, prompts, strict=True):
                if isinstance(clip, BrokenClip):
                    yield index, row, clip, resolver.is_random(row)
                    continue
                assert prompt is not None, "each clip with a model has tokens"
                try:
                    found = identified(clip, prompt, seeds, is_named="name" in row.values)
                except RequestError as error:
                    location = resolver.location_at_fault(row, error.fields)
                    raise location.refuse(str(error)) from error
                yield index, row, found, clip.seed is None

    def _resolver(self) -> Resolver:
        return Resolver(self.name, self.defaults, self._catalog, self.inputs)

    def _resolved_rows(
        self, resolver: Resolver, wanted: Wanted = ALL_ROWS, num_ahead: int = 1
    ) -> Iterator[tuple[int, Row, Resolved | BrokenClip]]:
        """Yield each wanted row with its number and its clip, which has no id yet."""
        for batch in in_batches(self._source.rows(wanted), num_ahead):
            self.inputs.read_ahead(row.values for _, row in batch)
            for index, row in batch:
                clip = resolver.resolve(index, row)
                yield index, row, clip
                if index == wanted.last and not isinstance(clip, BrokenClip):
                    return  # rows behind it, behind a limit, may even be wrong

    def refuse_input(self, file: InputFile, message: str) -> ManifestError:
        """Return the error about an image or a video, with the first line that names it.

        A further walk finds the line, since lines are not held.
        """
        resolver = self._resolver()
        try:
            for _, row, clip in self._resolved_rows(resolver):
                if not isinstance(clip, BrokenClip):
                    for name, files in clip.kind.request.inputs.given().items():
                        if file.sha256 in [one.sha256 for one in files]:
                            location = resolver.location_at_fault(row, (name,))
                            return location.refuse(f"{name} {shown(file.name)}: {message}")
        except ManifestError as error:  # a file that the walk looked at anew, perhaps this one
            return error
        return SourceLocation(str(self.path), 1).refuse(message)

    def _location_of_first(self, name: str, before: int) -> SourceLocation:
        """Return the line that gives a name first, from a further walk: lines are not held."""
        for index, row, clip in self._resolved_rows(self._resolver()):
            if index < before and clip.name == name:
                return row.location_of("name")
        raise ManifestError(f"{self.path}:1: the file changed after it was opened; plan it again")


def open_manifest(
    path: ManifestFile,
    catalog: Catalog,
    read_s3: ReadS3 | None = None,
    *,
    output: str | None = None,
    model: str | None = None,
    selection: Selection = ALL,
    extra_columns: Collection[str] = (),
) -> Manifest:
    """Open a manifest by its suffix: .yaml or .yml with axes, the others with one clip a row.

    A YAML manifest is read at once; `Manifest.specs` reads the rows of the others.

    Args:
        path: manifest; files that it names lie in its folder or below, or in S3.
        catalog: catalog of the models.
        read_s3: reads the object at an `s3://` URI; without it such a file is refused.
        output: URI for the clips, instead of the manifest's own.
        model: model of rows that name none, instead of the manifest's own.
        selection: the part of the rows that is wanted.
        extra_columns: columns and fields that become notes of a clip, besides `meta`.

    Raises:
        ManifestError: the file cannot be read, or a part that belongs to no single row is wrong.
    """
    start = SourceLocation(str(path), 1)
    name, defaults = Given(path.stem, start), dict[str, Given]()
    calendar, output_line = MIDNIGHT_IN_UTC, None
    source: FlatFile | YamlFile
    with at(start):
        check_extra_columns(extra_columns)
    match path.suffix.lower():
        case ".yaml" | ".yml":
            source = open_yaml_file(path, read_s3, extra_columns)
            name, defaults, calendar = source.name or name, source.defaults, source.calendar
            if source.output and not output:
                output, output_line = source.output.value, source.output.location
        case _:
            source = open_flat_file(path, extra_columns)
    if model is not None:
        defaults = defaults | {"model": Given(model, start)}
    with at(name.location):
        check_run_name(name.value)
    return Manifest(
        name.value, output or None, path, source.digest, defaults, source, catalog,
        CheckedInputs(path.parent, read_s3), calendar, output_line, selection,
    )  # fmt: skip
